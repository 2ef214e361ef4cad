//! Compaction by itself: what is older than a while, or more than so many
//! revisions back, goes.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use actors::client::{Client, ClientError};
use cluster::{
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{range::Range, transaction::Keys},
};
use tokio::time::Instant;

use super::store::{MvccStore, VOLUME};

/// How often the number of revisions is looked at, as in etcd.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// Looks remembered: a day of minutes. Older ones are joined with the oldest.
const LOOKS_MAX: usize = 1_440;

/// When history is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// Every so often, what is older than the retention.
    Periodic(Duration),
    /// Every five minutes, all but so many revisions.
    Revision(i64),
}

/// Compacts a store by itself.
#[derive(Debug)]
pub struct Compactor {
    store: Arc<MvccStore>,
    mode: CompactionMode,
    retention: Duration,
}

/// A compactor that runs until this is dropped.
#[derive(Debug)]
pub struct CompactorHandle(tokio::task::JoinHandle<()>);

impl CompactorHandle {
    /// Ends it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for CompactorHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Compactor {
    /// A compactor that keeps at least `retention` of history, if the mode is
    /// periodic.
    pub fn new(store: Arc<MvccStore>, mode: CompactionMode, retention: Duration) -> Self {
        Self { store, mode, retention }
    }

    /// Lets it run.
    pub fn run(self) -> CompactorHandle {
        let client = self.store.client();
        let Self { store, mode, retention } = self;
        CompactorHandle(store.begin(async move {
            keep_compacted(client, VOLUME.to_owned(), mode, retention).await;
        }))
    }
}

/// Compacts a volume of kind *single* by itself, as long as it is asked.
pub(crate) async fn keep_compacted(
    client: Client,
    volume: String,
    mode: CompactionMode,
    retention: Duration,
) -> Infallible {
    let every = match mode {
        CompactionMode::Periodic(every) => every.max(Duration::from_millis(1)),
        CompactionMode::Revision(_) => LOOK_EVERY,
    };
    let mut history = History::new(mode, retention);
    loop {
        let now = Range::of(Keys::range("", "")).limit(1).heads();
        match client.range(&volume, now, ReadLevel::Strong).await {
            Ok(read) => {
                if let Some(version) = history.look(Instant::now(), read.now)
                    && is_gone(version, client.compact(&volume, version).await)
                {
                    history.compacted = version;
                }
            }
            Err(error) => tracing::debug!(%error, "the compactor cannot see the store"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Whether the history below a version is gone by now.
fn is_gone(version: Version, done: Result<Version, ClientError>) -> bool {
    match done {
        Ok(_) => tracing::debug!(%version, "history was let go of"),
        // Somebody else was faster.
        Err(ClientError::Fault { fault: Fault::Compacted { .. }, .. }) => {}
        Err(error) => {
            tracing::warn!(%error, %version, "a compaction failed; the next look repeats it");
            return false;
        }
    }
    true
}

/// What was seen when, as far as it decides.
#[derive(Debug)]
struct History {
    mode: CompactionMode,
    retention: Duration,
    looks: VecDeque<(Instant, Version)>,
    /// The highest that was to be compacted to.
    wanted: Version,
    /// What was.
    compacted: Version,
}

impl History {
    fn new(mode: CompactionMode, retention: Duration) -> Self {
        Self { mode, retention, looks: VecDeque::new(), wanted: Version(0), compacted: Version(0) }
    }

    /// Notes the newest version; the one to compact to, until that is done.
    fn look(&mut self, now: Instant, newest: Version) -> Option<Version> {
        let wanted = match self.mode {
            CompactionMode::Revision(keep) => {
                let keep = u64::try_from(keep).unwrap_or(0);
                Version(newest.0.saturating_sub(keep))
            }
            CompactionMode::Periodic(_) => {
                if self.looks.len() >= LOOKS_MAX {
                    self.looks.remove(1);
                }
                self.looks.push_back((now, newest));
                self.as_of_retention(now).unwrap_or(self.wanted)
            }
        };
        self.wanted = self.wanted.max(wanted);
        (self.wanted > self.compacted).then_some(self.wanted)
    }

    /// The newest version that was seen a retention ago or earlier.
    fn as_of_retention(&mut self, now: Instant) -> Option<Version> {
        let mut wanted = None;
        while let Some((seen, version)) = self.looks.front().copied()
            && now.duration_since(seen) >= self.retention
        {
            wanted = Some(version);
            self.looks.pop_front();
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn what_was_the_newest_a_retention_ago_stays_readable_and_all_before_goes() {
        let mut history = History::new(CompactionMode::Periodic(MINUTE), MINUTE * 3);
        let began = Instant::now();
        let mut look = |minute: u32, newest| {
            let wanted = history.look(began + MINUTE * minute, Version(newest));
            history.compacted = wanted.unwrap_or(history.compacted);
            wanted
        };
        assert_eq!([look(0, 5), look(1, 9), look(2, 9)], [None; 3]);
        assert_eq!(look(3, 20), Some(Version(5)));
        assert_eq!(look(4, 20), Some(Version(9)));
        assert_eq!(look(5, 20), None, "nothing happened between the first and the second minute");
        assert_eq!(look(60, 21), Some(Version(20)), "after a long sleep");
    }

    #[test]
    fn so_many_revisions_are_kept_whatever_the_time() {
        let mut history = History::new(CompactionMode::Revision(10), MINUTE);
        let now = Instant::now();
        let wanted = [5, 10, 11, 11, 40].map(|newest| {
            let wanted = history.look(now, Version(newest));
            history.compacted = wanted.unwrap_or(history.compacted);
            wanted
        });
        assert_eq!(wanted, [None, None, Some(Version(1)), None, Some(Version(30))]);
    }

    #[test]
    fn what_could_not_be_compacted_is_wanted_at_every_look() {
        for mode in [CompactionMode::Revision(10), CompactionMode::Periodic(MINUTE)] {
            let mut history = History::new(mode, MINUTE);
            let began = Instant::now();
            history.look(began, Version(30));
            let wanted = [1, 2, 3].map(|minute| history.look(began + MINUTE * minute, Version(30)));
            assert!(wanted[0].is_some() && wanted == [wanted[0]; 3], "{wanted:?}");
            history.compacted = wanted[0].unwrap();
            assert_eq!(history.look(began + MINUTE * 4, Version(30)), None);
        }
    }

    #[test]
    fn looks_are_bounded() {
        let mut history = History::new(CompactionMode::Periodic(MINUTE), MINUTE * 100_000);
        let began = Instant::now();
        for minute in 0..5_000 {
            assert_eq!(history.look(began + MINUTE * minute, Version(u64::from(minute))), None);
        }
        assert_eq!(history.looks.len(), 1_440);
    }
}
