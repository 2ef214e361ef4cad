//! Who changed what: a line of JSON for each change that came through a door.
//!
//! ```text
//! {"at":"2026-11-26T05:00:00.123Z","door":"etcd","as":"ann","operation":"put",
//!  "of":[{"key":"/a"}],"revision":42,"outcome":"done"}
//! ```
//! What it is of and how it is told stands in `subject`; values and passwords never
//! are. `as` is at the etcd door the name of a user, or `-` where accounts are not in
//! force or nobody said who it was; at the native door the name in the certificate,
//! and `volume` is where.
//!
//! A change has its place among the lines that wait for the disk before it is carried
//! out, and whoever changes something waits if there is none: a log that leaves
//! changes out is none. It is written, not synced, and a disk that takes no more of it
//! is told of in the node's log and stops no change.

mod changes;
mod file;
mod subject;

use std::{fmt::Display, io, sync::Arc};

use cluster::{mvcc::version::Version, ports::clock::Clock};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use self::{
    changes::{changed_accounts, changed_by, name_of},
    subject::{Subject, Told},
};
use self::{
    file::Log,
    subject::{SUBJECT_BYTES_MAX, head},
};
use crate::{config::AuditConfig, devices::clock::SystemClock};

/// Subjects of one change that are told; of more only their number is.
const SUBJECTS_MAX: usize = 32;
/// Most bytes of a line but for its subjects: names of fields, time and numbers, the
/// names of who asked and of a volume, and 256 bytes of an outcome, six for each as JSON
/// writes a control character.
const FRAME_BYTES_MAX: usize = 512 + 2 * SUBJECT_BYTES_MAX + 6 * 256;
/// Most bytes of a line: all it is of, and what it came to. Under 48 KiB.
const LINE_BYTES_MAX: usize = FRAME_BYTES_MAX + (SUBJECTS_MAX + 1) * SUBJECT_BYTES_MAX;
/// Bytes of lines that wait for the disk, and that changes under way have places for:
/// 5,000 changes of a key, 700 of as many as are told.
const BYTES_WAITING_MAX: usize = 32 << 20;

// A file takes a whole line (`doors.audit.size`).
const _: () = assert!(LINE_BYTES_MAX < 48 << 10);

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    door: &'static str,
    #[serde(rename = "as")]
    principal: Told,
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<Told>,
    of: &'a [Subject],
    #[serde(skip_serializing_if = "Option::is_none")]
    of_in_all: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    outcome: &'a str,
}

/// A change under way.
#[derive(Debug)]
pub struct Change {
    door: &'static str,
    principal: Told,
    operation: &'static str,
    volume: Option<Told>,
    of: Vec<Subject>,
    in_all: usize,
}

impl Change {
    /// A change through a door, as somebody, of something.
    pub fn new(
        door: &'static str,
        principal: impl Into<Told>,
        operation: &'static str,
        mut of: Vec<Subject>,
    ) -> Self {
        let in_all = of.len();
        of.truncate(SUBJECTS_MAX);
        Self { door, principal: principal.into(), operation, volume: None, of, in_all }
    }

    /// The same in a volume, where a door serves many.
    #[must_use]
    pub fn within(self, volume: Option<Told>) -> Self {
        Self { volume, ..self }
    }

    /// Most bytes its line will have.
    fn line_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX + (self.of.len() + 1) * SUBJECT_BYTES_MAX
    }
}

/// What a change came to.
#[derive(Debug)]
pub struct Came {
    /// The revision it made, if it made one that is known.
    pub revision: Option<Version>,
    /// What it is of, if only its end says so.
    pub of: Option<Subject>,
}

impl From<Version> for Came {
    fn from(revision: Version) -> Self {
        Self { revision: Some(revision), of: None }
    }
}

/// A line that waits for the disk, in its place.
#[derive(Debug)]
struct Waiting {
    line: String,
    _place: OwnedSemaphorePermit,
}

/// The log of one node. Ends when the last of its handles is dropped.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Bounded by the places.
    lines: mpsc::UnboundedSender<Waiting>,
    places: Arc<Semaphore>,
    clock: Arc<SystemClock>,
}

impl Audit {
    /// Opens it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn open(config: &AuditConfig) -> io::Result<Self> {
        let mut log = Log::open(&config.file, config.size.bytes())?;
        let (audit, mut waiting) = Self::with_room(BYTES_WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            while let Some(Waiting { line, .. }) = waiting.blocking_recv() {
                if let Err(error) = log.write(&line) {
                    tracing::error!(%error, "a line of the audit log is lost");
                }
            }
        });
        Ok(audit)
    }

    /// A log, and the lines that come.
    fn with_room(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (lines, waiting) = mpsc::unbounded_channel();
        let (places, clock) = (Arc::new(Semaphore::new(bytes)), Arc::new(SystemClock::new()));
        (Self { lines, places, clock }, waiting)
    }

    /// Does a change and tells what came of it, or why nothing did. Whoever asked may
    /// go away meanwhile, then what came of it is not known here.
    ///
    /// # Errors
    /// Those of the change.
    pub async fn watch<T, E: Display, C: Into<Came>>(
        &self,
        change: Change,
        done: impl Future<Output = Result<T, E>>,
        came: impl FnOnce(&T) -> C,
    ) -> Result<T, E> {
        let bytes = u32::try_from(change.line_bytes_max()).unwrap_or(u32::MAX);
        // None if the places were closed, which nobody does.
        let place = self.places.clone().acquire_many_owned(bytes).await.ok();
        let mut open = Open { audit: self, change, place };
        let done = done.await;
        match &done {
            Ok(done) => open.tell(Some(came(done).into()), "done"),
            Err(error) => open.tell(None, &error.to_string()),
        }
        done
    }

    fn line(&self, change: &mut Change, came: Option<Came>, outcome: &str) -> String {
        let at = i64::try_from(self.clock.wall().0).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(at)
            .map_or_else(|_| String::new(), |at| at.to_string());
        let revision = came.as_ref().and_then(|came| came.revision).map(|revision| revision.0);
        change.of.extend(came.and_then(|came| came.of));
        let line = Line {
            at,
            door: change.door,
            principal: change.principal.clone(),
            operation: change.operation,
            volume: change.volume.clone(),
            of: &change.of,
            of_in_all: (change.in_all > SUBJECTS_MAX).then_some(change.in_all),
            revision,
            outcome: head(outcome),
        };
        // Strings and numbers: there is nothing in it that JSON does not know.
        let line = serde_json::to_string(&line).unwrap_or_default() + "\n";
        debug_assert!(line.len() <= LINE_BYTES_MAX, "{line}");
        line
    }
}

/// A change in its place, until something is told of it.
struct Open<'a> {
    audit: &'a Audit,
    change: Change,
    place: Option<OwnedSemaphorePermit>,
}

impl Open<'_> {
    fn tell(&mut self, came: Option<Came>, outcome: &str) {
        let Some(place) = self.place.take() else { return };
        let line = self.audit.line(&mut self.change, came, outcome);
        if self.audit.lines.send(Waiting { line, _place: place }).is_err() {
            tracing::error!("a line of the audit log is lost: nobody writes it any more");
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.tell(None, "unknown: who asked went away");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::{auth::Principal, shard::transaction::Keys, units::ByteSize};
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    fn change(of: Vec<Subject>) -> Change {
        let ann = Principal::User { name: "ann".into(), since: None };
        Change::new("etcd", &ann, "put", of)
    }

    fn key(key: &str) -> Subject {
        Subject::key(key.as_bytes())
    }

    #[tokio::test]
    async fn a_change_is_told_with_its_outcome_and_also_if_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.log");
        let audit =
            Audit::open(&AuditConfig { file: file.clone(), size: ByteSize::mib(1) }).unwrap();
        let keys = [Keys::One(b"/a".to_vec()), Keys::One(vec![255, 1]), Keys::range("a", "b")];
        let told = keys.iter().map(Subject::keys).collect();
        let done = audit.watch(change(told), async { Ok::<_, String>(7) }, |n| Version(*n)).await;
        assert_eq!(done, Ok(7));
        let failed = async { Err::<u64, _>("it may not") };
        let failed = audit.watch(change(vec![key("k"); 100]), failed, |n| Version(*n)).await;
        assert_eq!(failed, Err("it may not"));
        let never = std::future::pending::<Result<u64, String>>();
        let never = audit.watch(change(Vec::new()), never, |n| Version(*n));
        assert!(timeout(SHORT, never).await.is_err());
        drop(audit);
        let mut text = String::new();
        for _ in 0..500 {
            text = std::fs::read_to_string(&file).unwrap();
            if text.lines().count() == 3 {
                break;
            }
            tokio::time::sleep(SHORT).await;
        }
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = serde_json::json!([
            { "key": "/a" },
            { "key": { "base64": "/wE=", "bytes": 2 } },
            { "range": { "from": "a", "to": "b" } },
        ]);
        assert_eq!(lines[0]["of"], told);
        assert_eq!((&lines[0]["as"], &lines[0]["revision"]), (&"ann".into(), &7.into()));
        let refused = &lines[1];
        assert_eq!(
            (&refused["outcome"], &refused["of_in_all"]),
            (&"it may not".into(), &100.into())
        );
        assert_eq!(refused["of"].as_array().unwrap().len(), SUBJECTS_MAX);
        assert_eq!(lines[2]["outcome"], "unknown: who asked went away");
    }

    /// Strangers must not fill disk and memory: what they name may have megabytes.
    #[test]
    fn the_longest_line_is_not_long() {
        let (audit, _waiting) = Audit::with_room(0);
        let mut longest = 0;
        for byte in [b'"', b'\\', 1, 255, b'a'] {
            let long = vec![byte; 1 << 20];
            let name = String::from_utf8(long.clone()).unwrap_or_default();
            let range = Subject::keys(&Keys::Range { from: long.clone(), to: long.clone() });
            let user = Principal::User { name: name.clone(), since: None };
            let change = Change::new("etcd", &user, "delete", vec![range.clone(); 1_000]);
            let mut change = change.within(Some(Told::of(&long)));
            let came = Came { revision: Some(Version(u64::MAX)), of: Some(range) };
            let line = audit.line(&mut change, Some(came), &name);
            assert!(line.len() <= change.line_bytes_max().min(LINE_BYTES_MAX), "{}", line.len());
            longest = longest.max(line.len());
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
        assert!(longest > LINE_BYTES_MAX / 2, "{longest}: the arithmetic is too generous");
    }

    #[tokio::test]
    async fn a_change_waits_for_its_place_and_then_leaves_a_line_whatever_happens() {
        let room = change(vec![key("k")]).line_bytes_max();
        let (audit, mut waiting) = Audit::with_room(room);
        let put = |done| audit.watch(change(vec![key("k")]), done, |n| Version(*n));
        put(Box::pin(std::future::ready(Ok::<_, String>(1)))).await.unwrap();
        let mut begun = false;
        let late = async {
            begun = true;
            std::future::pending::<Result<u64, String>>().await
        };
        let late = audit.watch(change(vec![key("k")]), late, |n| Version(*n));
        let mut late = Box::pin(late);
        assert!(timeout(SHORT, &mut late).await.is_err());
        // Nobody wrote the first line yet, so nothing was begun of the second change.
        let first = waiting.try_recv().unwrap();
        assert!(waiting.try_recv().is_err() && first.line.contains("done"));
        drop(first);
        assert!(timeout(SHORT, &mut late).await.is_err());
        drop(late);
        assert!(begun);
        let second = waiting.try_recv().unwrap();
        assert!(second.line.contains("unknown"), "{}", second.line);
        drop(second);
        assert_eq!(audit.places.available_permits(), room);
    }
}
