//! Compaction: which versions may go, and when.
//!
//! The log of a shard decides *that* versions below a point can no longer be
//! read (`Mark::compacted`); each replica then sweeps its own store, beside
//! apply and at its own pace, because nobody can see the difference.
//!
//! What may go is found without looking at what stays: a change at version `s`
//! of a key made every older version of that key unreadable from `s` on, so the
//! changes up to the compacted version name exactly the history that goes with
//! them. A key that was deleted there leaves nothing at all. So a sweep costs
//! what was changed, not what is stored.
//!
//! How much of the past is kept is the volume's [`HistoryPolicy`], and what is
//! usual for its kind; a disk that is nearly full keeps less ([`Retention`]).
//!
//! Invariants:
//! - every batch is whole for the keys it names: whichever batches are in the
//!   store, a read at or above the compacted version finds the same;
//! - a change goes in the same batch as, or after, the history it made
//!   unreadable: a sweep that dies goes on from what it left;
//! - nothing above the compacted version is touched.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    time::Duration,
};

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    layout::{change_start, history_end, history_key, read_change_key},
    record::{ChangeRecord, RecordError, RecordKind},
    version::{Hlc, Version, VersionKind},
};
use crate::{
    ports::engine::{EngineError, Order, Tree, View, Write},
    units::WallTime,
};

/// How much one batch of a sweep takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Changes looked at.
    pub changes_max: usize,
    /// Bytes of keys held in memory.
    pub key_bytes_max: usize,
    /// Entries removed. A change usually makes one older version unreadable;
    /// more are left where a batch ended within a key.
    pub entries_max: usize,
}

impl BatchLimits {
    /// What a node uses. Each change touches a leaf of `changes` and one of
    /// `history`, which LMDB writes anew: at most 16 MiB of pages of 4 KiB,
    /// within the smallest reserve of a disk (two segments of the log).
    pub const USUAL: Self = Self { changes_max: 2_048, key_bytes_max: 1 << 20, entries_max: 8_192 };
}

/// How much of its past a volume keeps readable, as long as its disks have room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum HistoryPolicy {
    /// As much as volumes of its kind do.
    #[default]
    Usual,
    /// What was overwritten or deleted within so many milliseconds: etcd's
    /// compaction by period.
    Age(u64),
    /// So many versions before the newest: etcd's compaction by revision. Of kind
    /// *single* only, where versions are counted.
    Versions(u64),
}

/// How long versions stay readable after they were overwritten or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// As long as the disk has room; for ever if none.
    pub usual: Option<Duration>,
    /// When the disk of a replica is nearly full; for ever if none.
    pub tight: Option<Duration>,
}

impl Retention {
    /// What volumes keep that may split, and all but those of kind *single*:
    /// ten minutes, for lists that take long and watchers that come back; half
    /// a minute when the room is needed, three times a request's deadline.
    pub const HYBRID: Self =
        Self { usual: Some(Duration::from_mins(10)), tight: Some(Duration::from_secs(30)) };
    /// What volumes of kind *single* keep: everything until somebody asks, as
    /// users of etcd expect, but for five minutes when the room is needed.
    pub const DENSE: Self = Self { usual: None, tight: Some(Duration::from_mins(5)) };

    /// The point of time up to which history may go. None if it is kept.
    pub fn horizon(self, wall: WallTime, tight: bool) -> Option<Hlc> {
        let kept = if tight { self.tight } else { self.usual }?;
        let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        Some(Hlc::at(WallTime(wall.0.saturating_sub(kept_ms))))
    }

    /// The same in a volume that was told how much to keep. A nearly full disk
    /// keeps no more for it, but less if the volume wants less.
    #[must_use]
    pub fn told(self, history: HistoryPolicy) -> Self {
        let HistoryPolicy::Age(ms) = history else { return self };
        let age = Duration::from_millis(ms);
        Self { usual: Some(age), tight: self.tight.map(|tight| tight.min(age)) }
    }

    /// How far the horizon moves on before a shard that is written all the
    /// time compacts again: a tenth of what is kept, one entry of the log.
    pub fn step(self, tight: bool) -> Duration {
        let kept = if tight { self.tight } else { self.usual };
        kept.map_or(Duration::MAX, |kept| (kept / 10).min(STEP_MAX))
    }
}

/// A shard that keeps its past for months lets go of it once an hour all the same.
const STEP_MAX: Duration = Duration::from_hours(1);

/// Where a shard stands with its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Last version that changed a key.
    pub version: Version,
    /// Versions below this one can no longer be read.
    pub compacted: Version,
}

impl Standing {
    /// Whether anything happened since the last compaction. A shard where
    /// nothing did is left asleep.
    pub fn has_news(self) -> bool {
        self.version > self.compacted
    }

    /// The version a shard of the hybrid clock should compact to now. One that
    /// rests does so once, when its last change is old; one that is written
    /// does so in steps.
    pub fn due(self, horizon: Hlc, step: Duration) -> Option<Version> {
        let horizon = Version(horizon.0);
        if !self.has_news() || horizon <= self.compacted {
            return None;
        }
        if self.version <= horizon {
            // One above, so that of what the last change replaced nothing stays.
            return Some(Version(self.version.0 + 1));
        }
        let step_ms = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
        let passed_ms = Hlc(horizon.0).wall().0.saturating_sub(Hlc(self.compacted.0).wall().0);
        (passed_ms >= step_ms).then_some(horizon)
    }

    /// The version a shard that counts should compact to now, to keep so many
    /// before its newest: when a tenth more lie there.
    pub fn beyond(self, kept: u64) -> Option<Version> {
        let version = Version(self.version.0.saturating_sub(kept));
        let step = (kept / 10).max(1);
        (version.0 >= self.compacted.0.saturating_add(step)).then_some(version)
    }
}

/// Retentions by how versions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retentions {
    /// Of shards on the hybrid clock.
    pub hybrid: Retention,
    /// Of shards with a dense counter.
    pub dense: Retention,
}

impl Default for Retentions {
    fn default() -> Self {
        Self { hybrid: Retention::HYBRID, dense: Retention::DENSE }
    }
}

impl Retentions {
    /// That of one kind.
    pub fn of(&self, versions: VersionKind) -> Retention {
        match versions {
            VersionKind::Hybrid => self.hybrid,
            VersionKind::Dense => self.dense,
        }
    }
}

/// Entries that may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Their removal, sorted by tree and key.
    pub writes: Vec<Write>,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Whether there is more.
    pub more: bool,
}

/// The newest change of a key among those of one batch.
struct Newest {
    version: Version,
    sub: u32,
    kind: RecordKind,
    /// The places of all its changes in the batch.
    changes: Vec<Vec<u8>>,
}

/// Finds a batch of what the store holds and nobody can read at `upto` or
/// later, of keys for which `owns` is true (a store may serve several shards).
///
/// # Errors
/// Those of the view, and damage of a change.
pub fn garbage(
    view: &dyn View,
    upto: Version,
    limits: BatchLimits,
    owns: impl Fn(&[u8]) -> bool,
) -> Result<Garbage, EngineError> {
    let mut out = Garbage::default();
    for (key, newest) in newest_changes(view, upto, limits, owns, &mut out.more)? {
        out.take(view, &key, newest, limits.entries_max)?;
    }
    out.writes.sort_by(|a, b| (a.tree, &a.key).cmp(&(b.tree, &b.key)));
    Ok(out)
}

/// The oldest changes up to `upto`, by key.
fn newest_changes(
    view: &dyn View,
    upto: Version,
    limits: BatchLimits,
    owns: impl Fn(&[u8]) -> bool,
    more: &mut bool,
) -> Result<BTreeMap<Vec<u8>, Newest>, EngineError> {
    let to = change_start(Version(upto.0.saturating_add(1)));
    let mut found: BTreeMap<Vec<u8>, Newest> = BTreeMap::new();
    let (mut count, mut bytes) = (0, 0);
    let mut fault = None;
    let bounds = (Bound::Unbounded, Bound::Excluded(&to[..]));
    view.scan(Tree::Changes, bounds.0, bounds.1, Order::Ascending, &mut |place, stored| {
        let Some((version, sub, key)) = read_change_key(place) else {
            fault = Some(RecordError::Short);
            return ControlFlow::Break(());
        };
        if !owns(key) {
            return ControlFlow::Continue(());
        }
        if count >= limits.changes_max || bytes >= limits.key_bytes_max {
            *more = true;
            return ControlFlow::Break(());
        }
        let kind = match ChangeRecord::read(place, stored) {
            Ok(change) => change.kind,
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        };
        count += 1;
        bytes += place.len();
        let newest =
            found.entry(key.to_vec()).or_insert(Newest { version, sub, kind, changes: Vec::new() });
        (newest.version, newest.sub, newest.kind) = (version, sub, kind);
        newest.changes.push(place.to_vec());
        ControlFlow::Continue(())
    })?;
    match fault {
        Some(error) => Err(EngineError::Damaged { store: view.store(), cause: error.to_string() }),
        None => Ok(found),
    }
}

impl Garbage {
    /// Takes in all of a key that is older than its newest change, that change
    /// itself if it deleted the key, and the changes that say so. Where the
    /// batch is full the changes stay, and so does a tombstone: it hides what
    /// was not reached.
    fn take(
        &mut self,
        view: &dyn View,
        key: &[u8],
        newest: Newest,
        entries_max: usize,
    ) -> Result<(), EngineError> {
        let place = history_key(key, newest.version, newest.sub);
        let end = history_end(key);
        let mut cut = false;
        let bounds = (Bound::Excluded(&place[..]), Bound::Included(&end[..]));
        view.scan(Tree::History, bounds.0, bounds.1, Order::Ascending, &mut |older, stored| {
            if self.writes.len() >= entries_max {
                cut = true;
                return ControlFlow::Break(());
            }
            self.remove(Tree::History, older.to_vec(), stored.len());
            ControlFlow::Continue(())
        })?;
        if cut {
            self.more = true;
            return Ok(());
        }
        if newest.kind == RecordKind::Tombstone {
            self.remove(Tree::History, place, super::record::RECORD_HEADER_BYTES);
        }
        for change in newest.changes {
            self.remove(Tree::Changes, change, super::record::CHANGE_BYTES);
        }
        Ok(())
    }

    fn remove(&mut self, tree: Tree, key: Vec<u8>, value_bytes: usize) {
        self.bytes += (key.len() + value_bytes) as u64;
        self.writes.push(Write { tree, key, value: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Version {
        Version(Hlc::at(WallTime(seconds * 1_000)).0)
    }

    fn due(version: u64, compacted: u64, now: u64, tight: bool) -> Option<Version> {
        let retention = Retention::HYBRID;
        let horizon = retention.horizon(WallTime(now * 1_000), tight).unwrap();
        let standing = Standing { version: at(version), compacted: at(compacted) };
        standing.due(horizon, retention.step(tight))
    }

    #[test]
    fn a_shard_at_rest_compacts_once_when_its_last_change_is_ten_minutes_old() {
        assert_eq!(due(10_000, 9_999, 10_599, false), None);
        let all = Version(at(10_000).0 + 1);
        assert_eq!(due(10_000, 9_999, 10_600, false), Some(all));
        assert!(!Standing { version: at(10_000), compacted: all }.has_news());
        assert_eq!(due(10_000, 10_000, 99_999, false), None);
        assert_eq!(due(0, 0, 99_999, false), None, "nothing was ever written");
    }

    #[test]
    fn a_shard_that_is_written_compacts_once_a_minute_and_sooner_on_a_tight_disk() {
        assert_eq!(due(20_000, 19_341, 20_000, false), None);
        assert_eq!(due(20_000, 19_340, 20_000, false), Some(at(19_400)));
        assert_eq!(due(20_000, 19_340, 20_000, true), Some(at(19_970)));
    }

    #[test]
    fn a_volume_keeps_the_past_it_was_told_to_and_no_more_on_a_tight_disk() {
        let minutes = |of: fn(Retention) -> Option<Duration>, retention: Retention| {
            of(retention).map(|kept| kept.as_secs() / 60)
        };
        let kept = |usual: Retention, history| {
            let told = usual.told(history);
            (minutes(|kept| kept.usual, told), minutes(|kept| kept.tight, told))
        };
        let age = |minutes: u64| HistoryPolicy::Age(minutes * 60_000);
        assert_eq!(kept(Retention::DENSE, age(60)), (Some(60), Some(5)));
        assert_eq!(kept(Retention::DENSE, age(1)), (Some(1), Some(1)));
        assert_eq!(kept(Retention::DENSE, HistoryPolicy::Versions(9)), (None, Some(5)));
        assert_eq!(kept(Retention::HYBRID, HistoryPolicy::Usual), (Some(10), Some(0)));
        let year = Retention::HYBRID.told(age(365 * 24 * 60));
        assert_eq!((year.step(false), year.step(true)), (STEP_MAX, Duration::from_secs(3)));
    }

    #[test]
    fn a_counted_past_goes_when_a_tenth_more_than_it_keeps_lies_there() {
        let beyond = |version, compacted, kept| {
            Standing { version: Version(version), compacted: Version(compacted) }.beyond(kept)
        };
        assert_eq!(beyond(1, 0, 100), None);
        assert_eq!(beyond(109, 0, 100), None);
        assert_eq!(beyond(110, 0, 100), Some(Version(10)));
        assert_eq!(beyond(119, 10, 100), None);
        assert_eq!(beyond(120, 10, 100), Some(Version(20)));
        assert_eq!(beyond(7, 5, 1), Some(Version(6)), "the newest but one stays");
        assert_eq!(beyond(6, 5, 1), None);
        assert_eq!(beyond(1_000, 1_000, 100), None, "after a restore all below is gone");
    }

    #[test]
    fn a_counted_history_is_kept_until_the_disk_is_tight() {
        let now = WallTime(1_000_000);
        assert_eq!(Retention::DENSE.horizon(now, false), None);
        assert_eq!(Retention::DENSE.horizon(now, true), Some(Hlc::at(WallTime(700_000))));
    }
}
