//! One file of a sync, up or down.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use actors::client::{ClientError, ListOptions};
use cluster::request::Item;
use sha2::{Digest, Sha256};

use super::{
    LeftOut, Plan,
    local::{LocalFile, walk},
};
use crate::cli::{
    error::{CliError, Outcome},
    files::{modified_ms, no_link_between, path_below, write_whole},
};

/// One file to copy, if it changed.
#[derive(Debug)]
pub(super) enum Job {
    /// To the cluster; with what it holds under the key.
    Up(LocalFile, Option<Item>),
    /// From the cluster, to a path below a folder.
    Down { item: Item, key: String, folder: PathBuf, path: PathBuf },
}

/// What one came to.
#[derive(Debug)]
pub(super) enum Done {
    /// It was copied (or would be).
    Copied { name: String, bytes: u64 },
    /// It was there already.
    Unchanged,
    /// It could not be copied.
    LeftOut(LeftOut),
}

/// Every local file, with what the cluster holds of it.
pub(super) async fn uploads(
    plan: &Plan,
    folder: &Path,
    prefix: &str,
) -> Outcome<(Vec<Job>, Vec<LeftOut>)> {
    let (from, under) = (folder.to_owned(), prefix.to_owned());
    let walked = tokio::task::spawn_blocking(move || walk(&from, &under)).await;
    let (files, left_out) = walked
        .map_err(std::io::Error::other)
        .and_then(|walked| walked)
        .map_err(|error| CliError::file("read", folder, &error))?;
    let mut stored: BTreeMap<Vec<u8>, Item> =
        stored(plan, prefix).await?.into_iter().map(|item| (item.key.clone(), item)).collect();
    let job = |file: LocalFile| {
        let item = stored.remove(file.key.as_bytes());
        Job::Up(file, item)
    };
    Ok((files.into_iter().map(job).collect(), left_out))
}

/// Every key under a prefix, with its path; keys that are no safe path are
/// left out before anything is written.
pub(super) async fn downloads(
    plan: &Plan,
    folder: &Path,
    prefix: &str,
) -> Outcome<(Vec<Job>, Vec<LeftOut>)> {
    let mut jobs = Vec::new();
    let mut left_out = Vec::new();
    for item in stored(plan, prefix).await? {
        let name = String::from_utf8_lossy(&item.key).into_owned();
        let Ok(key) = String::from_utf8(item.key.clone()) else {
            left_out.push(LeftOut { name, reason: "the key is not UTF-8".into() });
            continue;
        };
        let relative = key.strip_prefix(prefix).unwrap_or(&key);
        match path_below(folder, relative) {
            Ok(path) => jobs.push(Job::Down { item, key, folder: folder.to_owned(), path }),
            Err(reason) => left_out.push(LeftOut { name, reason: reason.to_string() }),
        }
    }
    if !plan.dry_run {
        fs::create_dir_all(folder).map_err(|error| CliError::file("create", folder, &error))?;
    }
    Ok((jobs, left_out))
}

async fn stored(plan: &Plan, prefix: &str) -> Outcome<Vec<Item>> {
    let mut listing = plan.client.list(&plan.volume, prefix, ListOptions::default());
    let mut items = Vec::new();
    while let Some(page) = listing.next_page().await? {
        items.extend(page.items);
    }
    Ok(items)
}

/// Copies one file. What is wrong with this one file is no error of the sync;
/// a cluster that does not answer is.
pub(super) async fn run(plan: &Plan, job: Job) -> Outcome<Done> {
    let name = match &job {
        Job::Up(file, _) => file.path.display().to_string(),
        Job::Down { key, .. } => key.clone(),
    };
    let copied = match job {
        Job::Up(file, item) => up(plan, &file, item.as_ref()).await,
        Job::Down { item, key, folder, path } => down(plan, &item, &key, &folder, path).await,
    };
    match copied {
        Ok(Some(bytes)) => Ok(Done::Copied { name, bytes }),
        Ok(None) => Ok(Done::Unchanged),
        Err(Trouble::Cluster(error)) => Err(error.into()),
        Err(Trouble::File(reason)) => Ok(Done::LeftOut(LeftOut { name, reason })),
    }
}

enum Trouble {
    Cluster(ClientError),
    File(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Cluster(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::File(error.to_string())
    }
}

async fn up(plan: &Plan, file: &LocalFile, item: Option<&Item>) -> Result<Option<u64>, Trouble> {
    let same_size = item.is_some_and(|item| item.value_bytes == file.bytes);
    let not_older = item.is_some_and(|item| item.modified_ms >= file.modified_ms);
    if same_size && not_older && !plan.checksum {
        return Ok(None);
    }
    if plan.dry_run && !plan.checksum {
        return Ok(Some(file.bytes));
    }
    let value = tokio::fs::read(&file.path).await?;
    if value.len() > cluster::limits::VALUE_BYTES_MAX {
        return Err(Trouble::File("it grew over 4 MiB while it was read".into()));
    }
    let digest = Sha256::digest(&value);
    if plan.checksum && same_size && holds(plan, &file.key, &digest).await? {
        return Ok(None);
    }
    let bytes = value.len() as u64;
    if plan.dry_run {
        return Ok(Some(bytes));
    }
    plan.client.put(&plan.volume, &file.key, value).await?;
    if plan.verify && !holds(plan, &file.key, &digest).await? {
        let reason = "what was read back differs: it was changed by another, or damaged";
        return Err(Trouble::File(reason.into()));
    }
    Ok(Some(bytes))
}

/// Whether the cluster holds a value of this SHA-256 under the key.
async fn holds(plan: &Plan, key: &str, digest: &[u8]) -> Result<bool, ClientError> {
    let item = plan.client.get(&plan.volume, key).await?;
    Ok(item.is_some_and(|item| Sha256::digest(&item.value).as_slice() == digest))
}

async fn down(
    plan: &Plan,
    head: &Item,
    key: &str,
    folder: &Path,
    path: PathBuf,
) -> Result<Option<u64>, Trouble> {
    no_link_between(folder, &path).map_err(|error| Trouble::File(error.to_string()))?;
    let local = fs::symlink_metadata(&path).ok();
    let same_size = local.as_ref().is_some_and(|m| m.is_file() && m.len() == head.value_bytes);
    let not_older = local.as_ref().is_some_and(|m| modified_ms(m) >= head.modified_ms);
    if same_size && not_older && !plan.checksum {
        return Ok(None);
    }
    if plan.dry_run {
        return Ok(Some(head.value_bytes));
    }
    let Some(item) = plan.client.get(&plan.volume, key).await? else {
        return Err(Trouble::File("it was deleted while the sync ran".into()));
    };
    if item.value.len() as u64 != item.value_bytes {
        return Err(Trouble::File("the value is not as long as its head says".into()));
    }
    if plan.checksum && same_size && tokio::fs::read(&path).await? == item.value {
        return Ok(None);
    }
    let bytes = item.value_bytes;
    let written = tokio::task::spawn_blocking(move || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_whole(&path, &item.value, Some(item.modified_ms))
    });
    written.await.map_err(std::io::Error::other)??;
    Ok(Some(bytes))
}
