//! `cdb watch`, or `cdb kv watch`: what happens to keys, as it happens.

use std::time::Duration;

use clap::Args;
use cluster::{
    mvcc::version::Version,
    shard::{
        transaction::Keys,
        watch::{Event, EventKind, Watch},
    },
};

use super::{
    Context,
    error::Outcome,
    kv::{ItemView, value_text},
    place::Place,
    render,
};

/// How long it waits before it asks again whoever could not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// `cdb watch`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct WatchArgs {
    /// What: VOLUME or VOLUME/PREFIX
    place: String,
    /// Only this key, not every one that begins so
    #[arg(long)]
    exact: bool,
    /// From this version on, instead of from now on
    #[arg(long, value_name = "VERSION")]
    rev: Option<u64>,
    /// Also shows what was there before
    #[arg(long)]
    prev: bool,
    /// Without writes
    #[arg(long)]
    no_puts: bool,
    /// Without deletes
    #[arg(long, conflicts_with = "no_puts")]
    no_deletes: bool,
    /// Says every few seconds up to which version nothing else happened
    #[arg(long)]
    progress: bool,
    /// Ends after so many events
    #[arg(long)]
    count: Option<u64>,
}

/// Runs `cdb watch` until it is interrupted.
///
/// # Errors
/// See [`super::error::CliError`]; what a pause may mend is only told.
pub async fn run(context: &Context, args: WatchArgs) -> Outcome {
    let place = if args.exact { Place::parse_key } else { Place::parse }(&args.place)?;
    let keys =
        if args.exact { Keys::from(place.key.as_str()) } else { Keys::prefix(place.key.as_str()) };
    let watch = Watch { keys, puts: !args.no_puts, deletes: !args.no_deletes, previous: args.prev };
    let from = args.rev.filter(|rev| *rev > 0).map(Version);
    let mut watching = context.client()?.watch(&place.volume, watch, from).await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let happened = match watching.next().await {
            Ok(happened) => happened,
            Err(error) if error.is_retryable() => {
                render::tell(&format!("waiting: {error}"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for event in happened.events.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            show(context, event)?;
        }
        left = left.saturating_sub(happened.events.len() as u64);
        if args.progress && happened.events.is_empty() {
            let version = happened.upto.version.0;
            if context.output.is_json() {
                render::line(&serde_json::json!({ "progress": version }).to_string())?;
            } else {
                render::tell(&format!("nothing else up to version {version}"));
            }
        }
    }
    Ok(())
}

/// One line for each event.
fn show(context: &Context, event: &Event) -> Outcome {
    let kind = match event.kind {
        EventKind::Put => "put",
        EventKind::Delete => "delete",
    };
    let previous = event.previous.as_ref();
    if context.output.is_json() {
        let view = serde_json::json!({
            "event": kind,
            "item": ItemView::from(&event.item),
            "previous": previous.map(ItemView::from),
        });
        return render::line(&view.to_string());
    }
    let item = &event.item;
    let mut columns = vec![
        kind.to_owned(),
        render::printable(&String::from_utf8_lossy(&item.key)),
        item.modified.0.to_string(),
        render::printable(&value_text(&item.value).0),
    ];
    columns.extend(previous.map(|item| render::printable(&value_text(&item.value).0)));
    render::line(&columns.join("\t"))
}
