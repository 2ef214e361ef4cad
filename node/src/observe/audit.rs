//! Who changed what: a line of JSON for each change that came through a door.
//!
//! ```text
//! {"at":"2026-11-26T05:00:00.123Z","door":"etcd","as":"ann","operation":"put",
//!  "of":["/a"],"revision":42,"outcome":"done"}
//! ```
//! Keys, leases and names are told, values and passwords never. A key that is no text
//! is told as `base64:…`, a range as `from..to`. `as` is the name of a user, or `-` where accounts are not in force
//! or nobody said who it was.
//!
//! Lines go through a bounded line to one thread, and whoever changes something waits
//! if that is full: a log that leaves changes out is none. It is written, not synced,
//! and a disk that takes no more of it is told of in the log and stops no change. A
//! file that is full becomes `FILE.1`, that one `FILE.2`, and so on; the last goes.

use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cluster::{
    auth::Principal, mvcc::version::Version, ports::clock::Clock, shard::transaction::Keys,
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{config::AuditConfig, devices::clock::SystemClock};

/// Lines that wait for the disk: a second of a busy door, some megabytes.
const LINES_WAITING_MAX: usize = 10_000;
/// Keys of one change that are told; of more only their number is.
const TOLD_MAX: usize = 32;
/// Older files kept beside the one that is written.
const OLDER_FILES: u32 = 4;

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    door: &'static str,
    #[serde(rename = "as")]
    principal: &'a str,
    operation: &'static str,
    of: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    of_in_all: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    outcome: &'a str,
}

/// A change under way.
#[derive(Debug)]
pub struct Change {
    /// Through which door.
    pub door: &'static str,
    /// As whom.
    pub principal: Principal,
    /// What.
    pub operation: &'static str,
    /// Of which keys, leases or names.
    pub of: Vec<String>,
}

/// The log of one node. Ends when the last of its handles is dropped.
#[derive(Clone, Debug)]
pub struct Audit {
    lines: mpsc::Sender<String>,
    clock: Arc<SystemClock>,
}

impl Audit {
    /// Opens it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn open(config: &AuditConfig) -> io::Result<Self> {
        let mut log = Log::open(&config.file, config.size.bytes())?;
        let (lines, mut waiting) = mpsc::channel::<String>(LINES_WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            while let Some(line) = waiting.blocking_recv() {
                if let Err(error) = log.write(&line) {
                    tracing::error!(%error, "a line of the audit log is lost");
                }
            }
        });
        Ok(Self { lines, clock: Arc::new(SystemClock::new()) })
    }

    /// Does a change and tells what came of it: the revision, or why not. Whoever
    /// asked may go away meanwhile, then what came of it is not known here.
    ///
    /// # Errors
    /// Those of the change.
    pub async fn watch<T, E: Display>(
        &self,
        change: Change,
        done: impl Future<Output = Result<T, E>>,
        revision: impl FnOnce(&T) -> Version,
    ) -> Result<T, E> {
        let mut open = Open { audit: self, change: Some(change) };
        let done = done.await;
        if let Some(change) = open.change.take() {
            let line = match &done {
                Ok(done) => self.line(&change, Some(revision(done)), "done"),
                Err(error) => self.line(&change, None, &error.to_string()),
            };
            // It only ends with the node.
            drop(self.lines.send(line).await);
        }
        done
    }

    fn line(&self, change: &Change, revision: Option<Version>, outcome: &str) -> String {
        let at = i64::try_from(self.clock.wall().0).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(at)
            .map_or_else(|_| String::new(), |at| at.to_string());
        let in_all = (change.of.len() > TOLD_MAX).then_some(change.of.len());
        let line = Line {
            at,
            door: change.door,
            principal: name_of(&change.principal),
            operation: change.operation,
            of: change.of.get(..TOLD_MAX).unwrap_or(&change.of),
            of_in_all: in_all,
            revision: revision.map(|revision| revision.0),
            outcome,
        };
        // Strings and numbers: there is nothing in it that JSON does not know.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

/// A change of which nothing was told yet.
struct Open<'a> {
    audit: &'a Audit,
    change: Option<Change>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Some(change) = self.change.take() else { return };
        let line = self.audit.line(&change, None, "unknown: who asked went away");
        if self.audit.lines.try_send(line).is_err() {
            tracing::error!("a line of the audit log is lost");
        }
    }
}

/// The name a principal is told by.
fn name_of(principal: &Principal) -> &str {
    match principal {
        Principal::User { name, .. } => name,
        Principal::Trusted | Principal::Nameless => "-",
    }
}

/// Keys as they are told.
pub fn shown(keys: &Keys) -> String {
    match keys {
        Keys::One(key) => text(key),
        Keys::Range { from, to } => format!("{}..{}", text(from), text(to)),
    }
}

/// A key as it is told.
pub fn text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(key) => key.to_owned(),
        Err(_) => format!("base64:{}", STANDARD.encode(key)),
    }
}

/// The file that is written.
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
}

impl Log {
    fn open(path: &Path, most: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, most })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.most {
            for number in (1..=OLDER_FILES).rev() {
                let newer = if number == 1 { self.path.clone() } else { self.older(number - 1) };
                match std::fs::rename(newer, self.older(number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            *self = Self::open(&self.path, self.most)?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use cluster::units::ByteSize;

    use super::*;

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = Log::open(&path, 20).unwrap();
        for number in 0..14 {
            log.write(&format!("line {number:02}\n")).unwrap();
        }
        drop(log);
        let mut log = Log::open(&path, 20).unwrap();
        log.write("the last\n").unwrap();
        let mut files: Vec<_> =
            folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        let named = ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4"];
        assert_eq!(files, named);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("audit.log"), "the last\n");
        assert_eq!(read("audit.log.1"), "line 12\nline 13\n");
        assert_eq!(read("audit.log.4"), "line 06\nline 07\n");
    }

    #[tokio::test]
    async fn a_change_is_told_with_its_outcome_and_also_if_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.log");
        let audit =
            Audit::open(&AuditConfig { file: file.clone(), size: ByteSize::mib(1) }).unwrap();
        let change = |of: Vec<String>| Change {
            door: "etcd",
            principal: Principal::User { name: "ann".into(), since: None },
            operation: "put",
            of,
        };
        let keys = [Keys::One(b"/a".to_vec()), Keys::One(vec![255, 1]), Keys::range("a", "b")];
        let told = keys.iter().map(shown).collect();
        let done = audit.watch(change(told), async { Ok::<_, String>(7) }, |n| Version(*n)).await;
        assert_eq!(done, Ok(7));
        let failed = async { Err::<u64, _>("it may not") };
        let failed = audit.watch(change(vec!["k".into(); 100]), failed, |n| Version(*n)).await;
        assert_eq!(failed, Err("it may not"));
        let never = audit.watch(change(Vec::new()), std::future::pending(), |n| Version(*n));
        let never: Result<Result<u64, String>, _> =
            tokio::time::timeout(std::time::Duration::from_millis(10), never).await;
        assert!(never.is_err());
        drop(audit);
        let mut text = String::new();
        for _ in 0..500 {
            text = std::fs::read_to_string(&file).unwrap();
            if text.lines().count() == 3 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["of"], serde_json::json!(["/a", "base64:/wE=", "a..b"]));
        assert_eq!((&lines[0]["as"], &lines[0]["revision"]), (&"ann".into(), &7.into()));
        assert_eq!(
            (&lines[1]["outcome"], &lines[1]["of_in_all"]),
            (&"it may not".into(), &100.into())
        );
        assert_eq!(lines[1]["of"].as_array().unwrap().len(), TOLD_MAX);
        assert_eq!(lines[2]["outcome"], "unknown: who asked went away");
    }
}
