//! Keys: put, get, ls, rm, stat.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use actors::client::{Client, ListOptions};
use clap::Args;
use cluster::{
    codes::ErrorCode,
    limits::{LIST_PAGE_MAX, VALUE_BYTES_MAX},
    request::{Item, ReadLevel, WriteLevel},
    routing::Cursor,
    shard::command::Op,
};
use serde::Serialize;

use super::{
    Context,
    error::{CliError, Outcome},
    place::Place,
    render::{Format, count, printable, tell, time},
};

/// `cdb put`
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Where to: VOLUME/KEY
    place: String,
    /// What: a file of at most 4 MiB, or - for standard input
    file: PathBuf,
    /// When it counts as written: strong, memory or eventual (the weaker ones
    /// may lose it and return no version)
    #[arg(long, default_value = "strong", value_parser = write_level)]
    level: WriteLevel,
}

/// `cdb get`
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Where from: VOLUME/KEY
    place: String,
    /// Where to: a file, or - for standard output
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How fresh: strong, eventual, or bounded=MILLISECONDS
    #[arg(long, default_value = "strong", value_parser = read_level)]
    level: ReadLevel,
}

/// `cdb ls`
#[derive(Debug, Args)]
pub struct LsArgs {
    /// What: VOLUME or VOLUME/PREFIX
    place: String,
    /// At most so many keys
    #[arg(long)]
    limit: Option<usize>,
    /// Go on where an earlier list stood
    #[arg(long)]
    token: Option<String>,
    /// How fresh: strong, eventual, or bounded=MILLISECONDS
    #[arg(long, default_value = "strong", value_parser = read_level)]
    level: ReadLevel,
}

/// `cdb rm`
#[derive(Debug, Args)]
pub struct RmArgs {
    /// What: VOLUME/KEY, or VOLUME/PREFIX with -r
    #[arg(required = true)]
    places: Vec<String>,
    /// Every key that begins so
    #[arg(short, long)]
    recursive: bool,
    /// Say nothing of keys that are not there
    #[arg(short, long)]
    force: bool,
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
}

/// `cdb stat`
#[derive(Debug, Args)]
pub struct StatArgs {
    /// Which: VOLUME/KEY
    place: String,
}

/// One key as it is shown.
#[derive(Debug, Serialize)]
struct KeyView {
    key: String,
    bytes: u64,
    modified: String,
    modified_ms: u64,
    version: u64,
    created_version: u64,
    changes: u64,
}

impl From<&Item> for KeyView {
    fn from(item: &Item) -> Self {
        Self {
            key: String::from_utf8_lossy(&item.key).into_owned(),
            bytes: item.value_bytes,
            modified: time(item.modified_ms),
            modified_ms: item.modified_ms,
            version: item.modified.0,
            created_version: item.created.0,
            changes: item.changes,
        }
    }
}

#[derive(Debug, Serialize)]
struct ListView {
    items: Vec<KeyView>,
    next: Option<String>,
}

/// Reads a write level.
fn write_level(text: &str) -> Result<WriteLevel, String> {
    match text {
        "strong" => Ok(WriteLevel::Strong),
        "memory" => Ok(WriteLevel::Memory),
        "eventual" => Ok(WriteLevel::Eventual),
        other => Err(format!("`{other}` is none of strong, memory, eventual")),
    }
}

/// Reads a read level.
pub(super) fn read_level(text: &str) -> Result<ReadLevel, String> {
    match text {
        "strong" => Ok(ReadLevel::Strong),
        "eventual" => Ok(ReadLevel::Eventual),
        other => other
            .strip_prefix("bounded=")
            .and_then(|ms| ms.parse().ok())
            .map(|staleness_ms| ReadLevel::Bounded { staleness_ms })
            .ok_or_else(|| format!("`{other}` is none of strong, eventual, bounded=MILLISECONDS")),
    }
}

/// Runs `cdb put`.
///
/// # Errors
/// See [`CliError`].
pub async fn put(context: &Context, args: PutArgs) -> Outcome {
    let place = Place::parse_key(&args.place)?;
    let value = read_value(&args.file)?;
    let client = context.client()?;
    let bytes = value.len();
    let op = Op::Put { key: place.key.clone().into_bytes(), value };
    let written = client.write(&place.volume, vec![op], args.level).await;
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    let version = written?.version.map(|version| version.0);
    if context.output.is_json() {
        return context.output.json(&serde_json::json!({
            "volume": place.volume, "key": place.key, "bytes": bytes, "version": version,
        }));
    }
    Ok(())
}

/// Reads the value to put, but never more than one byte over the limit.
fn read_value(file: &Path) -> Outcome<Vec<u8>> {
    let limit = VALUE_BYTES_MAX as u64 + 1;
    let mut value = Vec::new();
    let result = if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut value)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(limit).read_to_end(&mut value))
    };
    result.map_err(|error| CliError::file("read", file, &error))?;
    if value.len() > VALUE_BYTES_MAX {
        let name = if file == Path::new("-") {
            "standard input".into()
        } else {
            file.display().to_string()
        };
        return Err(CliError::new(
            ErrorCode::ValueTooLarge,
            format!("{name} is larger than 4 MiB"),
            "values lie in the log and the store in one piece; objects in many pieces come later",
            "split it into several keys",
        )
        .into());
    }
    Ok(value)
}

/// Runs `cdb get`.
///
/// # Errors
/// See [`CliError`].
pub async fn get(context: &Context, args: GetArgs) -> Outcome {
    let place = Place::parse_key(&args.place)?;
    let client = context.client()?;
    let item = client.read(&place.volume, &place.key, args.level, None, false).await?;
    let item = item.ok_or_else(|| unknown_key(&place))?;
    if args.file == Path::new("-") {
        let mut out = io::stdout().lock();
        out.write_all(&item.value)?;
        return Ok(out.flush()?);
    }
    super::files::write_whole(&args.file, &item.value, None)
        .map_err(|error| CliError::file("write", &args.file, &error).into())
}

/// Runs `cdb stat`.
///
/// # Errors
/// See [`CliError`].
pub async fn stat(context: &Context, args: StatArgs) -> Outcome {
    let place = Place::parse_key(&args.place)?;
    let item = context.client()?.stat(&place.volume, &place.key).await?;
    let view = KeyView::from(&item.ok_or_else(|| unknown_key(&place))?);
    let row = vec![
        printable(&view.key),
        view.bytes.to_string(),
        view.modified.clone(),
        view.version.to_string(),
        view.created_version.to_string(),
        view.changes.to_string(),
    ];
    let header = ["KEY", "BYTES", "MODIFIED", "VERSION", "CREATED", "CHANGES"];
    context.output.rows(&view, &header, &[row])
}

/// Runs `cdb ls`.
///
/// # Errors
/// See [`CliError`].
pub async fn ls(context: &Context, args: LsArgs) -> Outcome {
    let place = Place::parse(&args.place)?;
    let from = args.token.as_deref().map(Cursor::from_token).transpose().map_err(|error| {
        CliError::usage(error.to_string(), "take the token an earlier `cdb ls` printed")
    })?;
    let page = args.limit.unwrap_or(LIST_PAGE_MAX).clamp(1, LIST_PAGE_MAX);
    let options = ListOptions { page, level: args.level, from, values: false };
    let mut listing = context.client()?.list(&place.volume, &place.key, options);
    let mut list = ListView { items: Vec::new(), next: None };
    let mut shown = 0;
    let streams = matches!(context.output.format(), Format::Plain | Format::Name);
    while let Some(page) = listing.next_page().await? {
        shown += page.items.len();
        list.items.extend(page.items.iter().map(KeyView::from));
        list.next = page.next.map(|next| next.to_token());
        if streams {
            show(context, &list)?;
            list.items.clear();
        }
        if args.limit.is_some_and(|limit| shown >= limit) {
            break;
        }
    }
    if !streams {
        show(context, &list)?;
    }
    if let (Some(token), false) = (&list.next, context.output.is_json()) {
        tell(&format!("more follow: cdb ls {} --token {token}", args.place));
    }
    Ok(())
}

fn show(context: &Context, list: &ListView) -> Outcome {
    let row =
        |item: &KeyView| vec![item.key.clone(), item.bytes.to_string(), item.modified.clone()];
    let rows: Vec<Vec<String>> = list.items.iter().map(row).collect();
    context.output.rows(list, &["KEY", "BYTES", "MODIFIED"], &rows)
}

/// Runs `cdb rm`.
///
/// # Errors
/// See [`CliError`]; the first failure ends it.
pub async fn rm(context: &Context, args: RmArgs) -> Outcome {
    let client = context.client()?;
    let mut removed = Vec::new();
    for text in &args.places {
        if args.recursive {
            let place = Place::parse(text)?;
            remove_prefix(&client, &place, args.dry_run, &mut removed).await?;
            continue;
        }
        let place = Place::parse_key(text)?;
        let found = if args.dry_run {
            client.stat(&place.volume, &place.key).await?.is_some()
        } else {
            client.delete(&place.volume, &place.key).await?.deleted > 0
        };
        if !found && !args.force {
            return Err(unknown_key(&place).into());
        }
        removed.extend(found.then(|| text.clone()));
    }
    client.with_deadline(super::CLOSE_WITHIN).close().await;
    if context.output.is_json() {
        let view = serde_json::json!({ "removed": removed, "dry_run": args.dry_run });
        return context.output.json(&view);
    }
    if args.dry_run {
        for key in &removed {
            super::render::line(&printable(key))?;
        }
    } else if args.recursive {
        tell(&format!("{} removed", count(removed.len(), "key")));
    }
    Ok(())
}

/// Keys deleted in one batch: small entries keep other writers' wait short.
const RM_BATCH: usize = 256;

async fn remove_prefix(
    client: &Client,
    place: &Place,
    dry_run: bool,
    removed: &mut Vec<String>,
) -> Outcome {
    let options = ListOptions { page: RM_BATCH, ..ListOptions::default() };
    let mut listing = client.list(&place.volume, &place.key, options);
    while let Some(page) = listing.next_page().await? {
        let keys = page.items.iter().map(|item| String::from_utf8_lossy(&item.key));
        removed.extend(keys.map(|key| format!("{}/{key}", place.volume)));
        if dry_run || page.items.is_empty() {
            continue;
        }
        let ops = page.items.into_iter().map(|item| Op::Delete { key: item.key }).collect();
        client.batch(&place.volume, ops, WriteLevel::Strong).await?;
    }
    Ok(())
}

fn unknown_key(place: &Place) -> CliError {
    CliError::new(
        ErrorCode::UnknownKey,
        format!("there is no key {}/{}", place.volume, printable(&place.key)),
        "the volume was asked and does not hold it now",
        format!("see what is there: cdb ls {}", place.volume),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_documented() {
        assert_eq!(read_level("bounded=250"), Ok(ReadLevel::Bounded { staleness_ms: 250 }));
        assert!(read_level("stale").unwrap_err().contains("bounded=MILLISECONDS"));
        assert_eq!(write_level("memory"), Ok(WriteLevel::Memory));
        assert!(write_level("fast").is_err());
    }

    #[test]
    fn a_file_over_the_limit_is_refused_with_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        std::fs::write(&path, vec![0; VALUE_BYTES_MAX + 1]).unwrap();
        let Err(super::super::error::Failure::Error(error)) = read_value(&path) else {
            panic!("taken")
        };
        assert_eq!(error.code, ErrorCode::ValueTooLarge);
        assert!(error.to_string().contains("4 MiB"));
        std::fs::write(&path, vec![0; VALUE_BYTES_MAX]).unwrap();
        assert_eq!(read_value(&path).unwrap().len(), VALUE_BYTES_MAX);
    }
}
