//! `cdb kv txn`: a transaction as text.

mod text;

use std::io::Read;

use cluster::shard::transaction::StepResult;

use super::{
    super::{
        CLOSE_WITHIN, Context,
        error::{CliError, Outcome},
        render,
    },
    ItemView,
};

/// Longest text of a transaction: its values have at most 4 MiB.
const TEXT_BYTES_MAX: u64 = 8 << 20;

pub(super) const HELP: &str = r"Three parts, each ended by an empty line: what must hold, what to do if all of it
holds, what to do if not. An empty line at the beginning compares nothing. Words with
spaces stand in double quotes.

  value(lock) = free      also: version, created, modified, lease; = != < >
                          (version counts the changes of a key)
  put lock mine
  get lock

  get lock

Also: put KEY VALUE --lease NUMBER. Where get, del and compares name a KEY they may
name more: PREFIX --prefix, KEY --from-key, KEY --to KEY, as in
`version(lock/ --prefix) = 0`; a compare must hold for each key there is.

A step may be a transaction of its own, up to eight deep:

  txn {
    value(a) = 1

    put b 2

    del b
  }";

pub(super) async fn run(context: &Context, volume: &str) -> Outcome {
    let mut text = String::new();
    std::io::stdin().lock().take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        let wrong = format!("the transaction is longer than {TEXT_BYTES_MAX} bytes");
        return Err(CliError::usage(wrong, "write several smaller ones").into());
    }
    let transaction = text::parse(&text)
        .map_err(|wrong| CliError::usage(wrong, "write it as `cdb kv txn --help` shows"))?;
    let client = context.client()?;
    let done = client.transact(volume, transaction).await;
    client.with_deadline(CLOSE_WITHIN).close().await;
    let done = done?;
    let shown = views(&done.results.unwrap_or_default());
    if context.output.is_json() {
        return context.output.json(&serde_json::json!({
            "succeeded": done.succeeded, "version": done.version.0, "results": shown,
        }));
    }
    render::line(if done.succeeded { "succeeded" } else { "failed" })?;
    for result in shown {
        render::line(&result.to_string())?;
    }
    Ok(())
}

/// Results of steps, those of a transaction inside another within its own.
fn views(mut results: &[StepResult]) -> Vec<serde_json::Value> {
    let mut views = Vec::new();
    while let Some((result, rest)) = results.split_first() {
        let inside = match result {
            StepResult::Nested { results, .. } => usize::try_from(*results).unwrap_or(usize::MAX),
            StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Read(_) => 0,
        };
        let (inside, rest) = rest.split_at(inside.min(rest.len()));
        views.push(view(result, inside));
        results = rest;
    }
    views
}

fn view(result: &StepResult, inside: &[StepResult]) -> serde_json::Value {
    let items = |items: &[cluster::request::Item]| -> Vec<ItemView> {
        items.iter().map(ItemView::from).collect()
    };
    match result {
        StepResult::Put { .. } => serde_json::json!({ "put": true }),
        StepResult::Deleted { count, .. } => serde_json::json!({ "deleted": count }),
        StepResult::Read(read) => {
            serde_json::json!({ "items": items(&read.items), "more": read.more })
        }
        StepResult::Nested { succeeded, .. } => {
            serde_json::json!({ "succeeded": succeeded, "results": views(inside) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_a_transaction_inside_stand_within_its_own() {
        let put = || StepResult::Put { previous: None };
        let inner = |succeeded, results| StepResult::Nested { succeeded, results };
        let flat = [put(), inner(true, 3), put(), inner(false, 1), put(), put()];
        let wanted = serde_json::json!([
            { "put": true },
            { "succeeded": true, "results": [
                { "put": true }, { "succeeded": false, "results": [{ "put": true }] },
            ] },
            { "put": true },
        ]);
        assert_eq!(serde_json::Value::from(views(&flat)), wanted);
    }
}
