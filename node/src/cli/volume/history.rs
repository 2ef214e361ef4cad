//! How much of its past a volume keeps: said at its birth, and changed by
//! `cdb volume set`.

use clap::Args;
use cluster::mvcc::compaction::HistoryPolicy;

use crate::cli::{Context, duration, error::Outcome};

/// What follows the number of versions.
const VERSIONS: [&str; 2] = ["-versions", "-revisions"];
const USUAL: &str = "usual";

/// `cdb volume set`
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Its name
    name: String,
    /// How much of its past stays readable: 1h, 10000-versions (of kind single), or usual
    #[arg(long, value_parser = policy)]
    history: HistoryPolicy,
}

pub(super) async fn set(context: &Context, args: SetArgs) -> Outcome {
    let client = context.client()?;
    let changed = client.set_history(&args.name, args.history).await;
    client.with_deadline(crate::cli::CLOSE_WITHIN).close().await;
    let history = text(changed?.record.policy.history);
    let view = serde_json::json!({ "volume": args.name, "history": history });
    context.output.record(&view, &format!("volume {} keeps its past: {history}", args.name))
}

/// Reads `1h`, `10000-versions` or `usual`.
pub(super) fn policy(text: &str) -> Result<HistoryPolicy, String> {
    if text == USUAL {
        return Ok(HistoryPolicy::Usual);
    }
    if let Some(count) = VERSIONS.iter().find_map(|unit| text.strip_suffix(unit)) {
        let count = count.parse().map_err(|_| format!("`{count}` is no number of versions"))?;
        return Ok(HistoryPolicy::Versions(count));
    }
    let age = duration(text).map_err(|_| {
        format!("write a duration as 10m or 1h, 10000-versions, or {USUAL}: not `{text}`")
    })?;
    Ok(HistoryPolicy::Age(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

/// The same as it may be written.
pub(super) fn text(history: HistoryPolicy) -> String {
    match history {
        HistoryPolicy::Usual => USUAL.to_owned(),
        HistoryPolicy::Versions(count) => format!("{count}-versions"),
        HistoryPolicy::Age(ms) => {
            let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
            let whole = units.into_iter().find(|(_, unit)| ms > 0 && ms % unit == 0);
            whole.map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / unit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_shown() {
        for (written, shown, expected) in [
            ("usual", "usual", HistoryPolicy::Usual),
            ("1h", "1h", HistoryPolicy::Age(3_600_000)),
            ("90m", "90m", HistoryPolicy::Age(5_400_000)),
            ("120s", "2m", HistoryPolicy::Age(120_000)),
            ("30500ms", "30500ms", HistoryPolicy::Age(30_500)),
            ("1000-versions", "1000-versions", HistoryPolicy::Versions(1_000)),
            ("1000-revisions", "1000-versions", HistoryPolicy::Versions(1_000)),
        ] {
            assert_eq!(policy(written), Ok(expected), "{written}");
            assert_eq!(text(expected), shown);
        }
        for wrong in ["", "1000", "-versions", "-1-versions", "soon", "-1h"] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
    }
}
