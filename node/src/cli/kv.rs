//! Keys with their revisions: `cdb kv get|put|del|txn|watch|lease|compact`.
//!
//! What `cdb get` and `cdb put` do for files, these do for what etcd's users
//! know: old versions, ranges in any order, previous values, leases. A *version*
//! here is etcd's revision; *changes* is what etcd calls the version of a key.

pub mod lease;
mod show;
mod txn;

use std::{
    io::{IsTerminal, Read},
    time::Duration,
};

use actors::client::Deleted;
use clap::{Args, Subcommand, ValueEnum};
use cluster::{
    codes::ErrorCode,
    ids::LeaseId,
    limits::{TRANSACTION_KEYS_MAX, VALUE_BYTES_MAX},
    mvcc::version::Version,
    request::ReadLevel,
    shard::{
        range::{Range, Show, Sort, SortBy, Span},
        transaction::{Keys, Put},
    },
};
use indicatif::{ProgressBar, ProgressStyle};

pub(super) use self::show::{ItemView, value_text};
use super::{
    Context,
    error::{CliError, Outcome},
    place::Place,
    render,
};

/// `cdb kv …`
#[derive(Debug, Subcommand)]
pub enum KvCommand {
    /// Reads keys, now or as of a version
    Get(GetArgs),
    /// Writes a key
    Put(PutArgs),
    /// Deletes keys: at one version, or, of more than 10,000, in parts
    Del(DelArgs),
    /// Compares, then does one thing or another
    #[command(after_help = txn::HELP)]
    Txn {
        /// In which volume; what to do comes from standard input
        volume: String,
    },
    /// Shows what happens to keys, as it happens: the same as cdb watch
    Watch(super::watch::WatchArgs),
    /// Keys that go when nobody keeps them
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Lets go of the history below a version
    Compact {
        /// Of which volume
        volume: String,
        /// The oldest version that shall stay readable
        version: u64,
    },
}

/// Which keys.
#[derive(Debug, Args)]
struct KeysArgs {
    /// VOLUME/KEY; VOLUME or VOLUME/PREFIX with --prefix
    place: String,
    /// Every key that begins so
    #[arg(long, conflicts_with_all = ["from_key", "to"])]
    prefix: bool,
    /// Every key from this one on
    #[arg(long, conflicts_with = "to")]
    from_key: bool,
    /// Every key from this one up to that one, which is left out
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
}

impl KeysArgs {
    fn parse(&self) -> Outcome<(String, Keys)> {
        if self.prefix || self.from_key {
            let place = Place::parse(&self.place)?;
            let keys =
                if self.prefix { Keys::prefix(place.key) } else { Keys::range(place.key, "") };
            return Ok((place.volume, keys));
        }
        let place = Place::parse_key(&self.place)?;
        let keys = match &self.to {
            Some(to) => Keys::range(place.key, to.as_str()),
            None => Keys::from(place.key.as_str()),
        };
        Ok((place.volume, keys))
    }
}

/// What keys are ordered by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// The key.
    Key,
    /// Changes since it was created.
    Changes,
    /// The version that created it.
    Created,
    /// The version that changed it last.
    Modified,
    /// The value.
    Value,
}

/// `cdb kv get`
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// As of this version instead of now
    #[arg(long, value_name = "VERSION")]
    rev: Option<u64>,
    /// At most so many keys
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    limit: u32,
    /// Only how many there are
    #[arg(long)]
    count_only: bool,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    /// In which order
    #[arg(long, value_enum, default_value = "key")]
    sort_by: By,
    /// Largest first
    #[arg(long)]
    descending: bool,
    /// Only keys changed last by this version or a later one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "VERSION")]
    min_modified: u64,
    /// Only keys changed last by this version or an earlier one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "VERSION")]
    max_modified: u64,
    /// Only keys created by this version or a later one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "VERSION")]
    min_created: u64,
    /// Only keys created by this version or an earlier one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "VERSION")]
    max_created: u64,
    /// How fresh: strong, eventual, or bounded=MILLISECONDS
    #[arg(long, default_value = "strong", value_parser = super::data::read_level)]
    level: ReadLevel,
}

impl GetArgs {
    fn range(&self, keys: Keys) -> Range {
        let by = match self.sort_by {
            By::Key => SortBy::Key,
            By::Changes => SortBy::Changes,
            By::Created => SortBy::Created,
            By::Modified => SortBy::Modified,
            By::Value => SortBy::Value,
        };
        let show = match (self.count_only, self.keys_only) {
            (true, _) => Show::Count,
            (false, true) => Show::Heads,
            (false, false) => Show::Items,
        };
        let span = |from, to| Span { from: Version(from), to: Version(to) };
        Range {
            keys,
            at: self.rev.filter(|rev| *rev > 0).map(Version),
            limit: self.limit,
            show,
            sort: Sort { by, descending: self.descending },
            created: span(self.min_created, self.max_created),
            modified: span(self.min_modified, self.max_modified),
            count: self.count_only,
        }
    }
}

/// `cdb kv put`
#[derive(Debug, Args)]
pub struct PutArgs {
    /// VOLUME/KEY
    place: String,
    /// The value, or - for standard input; none with --ignore-value
    #[arg(required_unless_present = "ignore_value", conflicts_with = "ignore_value")]
    value: Option<String>,
    /// The lease it hangs on
    #[arg(long, conflicts_with = "ignore_lease")]
    lease: Option<u64>,
    /// Also shows what was there
    #[arg(long)]
    prev: bool,
    /// Leaves the value as it is
    #[arg(long)]
    ignore_value: bool,
    /// Leaves the lease as it is
    #[arg(long)]
    ignore_lease: bool,
}

/// `cdb kv del`
#[derive(Debug, Args)]
pub struct DelArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// Also shows what was there
    #[arg(long)]
    prev: bool,
}

/// Runs `cdb kv …`.
///
/// # Errors
/// See [`CliError`].
pub async fn run(context: &Context, command: KvCommand) -> Outcome {
    match command {
        KvCommand::Get(args) => get(context, args).await,
        KvCommand::Put(args) => put(context, args).await,
        KvCommand::Del(args) => del(context, args).await,
        KvCommand::Txn { volume } => txn::run(context, &volume).await,
        KvCommand::Watch(args) => super::watch::run(context, args).await,
        KvCommand::Lease(command) => lease::run(context, command).await,
        KvCommand::Compact { volume, version } => {
            let now = context.client()?.compact(&volume, Version(version)).await?;
            let view = serde_json::json!({ "compacted": version, "version": now.0 });
            context.output.record(&view, &format!("compacted to version {version}"))
        }
    }
}

async fn get(context: &Context, args: GetArgs) -> Outcome {
    let (volume, keys) = args.keys.parse()?;
    let range = args.range(keys);
    let read = context.client()?.range(&volume, range, args.level).await?;
    if args.count_only {
        let count = read.result.count;
        let view = serde_json::json!({ "count": count, "version": read.now.0 });
        return context.output.record(&view, &count.to_string());
    }
    let items: Vec<ItemView> = read.result.items.iter().map(ItemView::from).collect();
    let rows: Vec<Vec<String>> = items.iter().map(ItemView::row).collect();
    let view = serde_json::json!({
        "items": items, "more": read.result.more, "at": read.at.0, "version": read.now.0,
    });
    context.output.rows(&view, &ItemView::HEADER, &rows)?;
    if read.result.more && !context.output.is_json() {
        render::tell("more follow: raise --limit");
    }
    Ok(())
}

async fn put(context: &Context, args: PutArgs) -> Outcome {
    let place = Place::parse_key(&args.place)?;
    let value = match args.value.as_deref() {
        None => None,
        Some("-") => Some(standard_input()?),
        Some(text) => Some(text.as_bytes().to_vec()),
    };
    let lease = (!args.ignore_lease).then_some(LeaseId(args.lease.unwrap_or(0)));
    let put = Put { key: place.key.into(), value, lease, previous: args.prev };
    let client = context.client()?;
    let put = client.put_as(&place.volume, put).await;
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    let (version, previous) = put?;
    let previous = previous.as_ref().map(ItemView::from);
    if context.output.is_json() {
        let view = serde_json::json!({ "version": version.0, "previous": previous });
        return context.output.json(&view);
    }
    match previous {
        Some(previous) => render::line(&render::printable(&previous.value)),
        None => Ok(()),
    }
}

/// Deletes keys, and says whether that was one change. Who stops it, or is told of an
/// error, has deleted what the line on the terminal says.
async fn del(context: &Context, args: DelArgs) -> Outcome {
    let (volume, keys) = args.keys.parse()?;
    let client = context.client()?;
    let (spinner, mut gone) = (spinner(), 0);
    let telling = |all: &Deleted| {
        gone = all.count;
        spinner.set_position(u64::from(gone));
    };
    let deleted = client.delete_range_in_parts_telling(&volume, keys, args.prev, telling).await;
    spinner.finish_and_clear();
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    let deleted = deleted.inspect_err(|_| tell_half(gone))?;
    if deleted.parts > 1 {
        render::tell(&format!(
            "deleted in {} parts, each a change of its own, the last at version {}: one takes at most \
             {TRANSACTION_KEYS_MAX} keys, so others may have seen part of them gone",
            deleted.parts, deleted.version
        ));
    }
    let previous: Vec<ItemView> = deleted.previous.iter().map(ItemView::from).collect();
    let view = serde_json::json!({
        "deleted": deleted.count, "previous": previous, "version": deleted.version.0,
        "parts": deleted.parts,
    });
    if context.output.is_json() || previous.is_empty() {
        return context.output.record(&view, &deleted.count.to_string());
    }
    let rows: Vec<Vec<String>> = previous.iter().map(ItemView::row).collect();
    context.output.rows(&view, &ItemView::HEADER, &rows)
}

/// Says what is gone though the command fails.
fn tell_half(gone: u32) {
    if gone > 0 {
        render::tell(&format!("{gone} keys are gone already; run it again for the others"));
    }
}

/// Shows how many keys are gone, on a terminal.
fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} keys deleted  {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// A value from standard input, but never more than one byte over the limit.
fn standard_input() -> Outcome<Vec<u8>> {
    let mut value = Vec::new();
    std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(value);
    }
    Err(CliError::new(
        ErrorCode::ValueTooLarge,
        "standard input is larger than 4 MiB",
        "values lie in the log and the store in one piece; objects in many pieces come later",
        "split it into several keys",
    )
    .into())
}
