//! The logs of all replicas, as far as they said to be durable: what other
//! checkers judge by.
//!
//! Counted from what the logs themselves said to have synced, never from what
//! replicas told each other. What a destroyed disk held counts as it was when
//! it was durable.

use std::collections::BTreeMap;

use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, Term},
    ports::log::{LogRecord, RecoveredReplica},
};

/// The durable log of each replica.
#[derive(Debug, Default)]
pub(super) struct Logs {
    present: BTreeMap<ReplicaId, DurableLog>,
    /// What replicas held before an old image of their disk gave birth to them
    /// again.
    earlier: BTreeMap<ReplicaId, Vec<DurableLog>>,
    /// Whose copy a replica is; never forgotten.
    shards: BTreeMap<ReplicaId, ShardId>,
}

/// Terms by run: an entry has the term of the last run that begins at or
/// before it.
#[derive(Debug, Default)]
pub(super) struct DurableLog {
    base: u64,
    last: u64,
    runs: BTreeMap<u64, Term>,
}

impl DurableLog {
    fn cut(&mut self, from: u64) -> bool {
        let cuts = from <= self.last;
        self.runs.split_off(&from);
        self.last = self.last.min(from.saturating_sub(1));
        cuts
    }

    fn push(&mut self, index: u64, term: Term) {
        if self.runs.last_key_value().map(|(_, last)| *last) != Some(term) {
            self.runs.insert(index, term);
        }
        self.last = index;
    }

    fn begin_after(&mut self, index: LogIndex, term: Term) {
        *self = Self { base: index.0, last: index.0, runs: BTreeMap::from([(index.0, term)]) };
    }

    /// Whether it holds this entry, or has forgotten it as proven.
    pub(super) fn holds(&self, index: LogIndex, term: Term) -> bool {
        index.0 < self.base || self.term_of(index) == Some(term)
    }

    /// The term at a position it still knows.
    pub(super) fn term_of(&self, index: LogIndex) -> Option<Term> {
        let known = (self.base..=self.last).contains(&index.0);
        let run = self.runs.range(..=index.0).next_back();
        run.map(|(_, term)| *term).filter(|_| known)
    }
}

impl Logs {
    /// A log said that a record is durable; whether it replaced other entries.
    pub(super) fn durable(&mut self, replica: ReplicaId, record: &LogRecord) -> bool {
        let log = self.present.entry(replica).or_default();
        match record {
            LogRecord::Created { shard, index, term, .. } => {
                let before = std::mem::take(log);
                log.begin_after(*index, *term);
                if self.shards.insert(replica, *shard).is_some() {
                    self.earlier.entry(replica).or_default().push(before);
                }
            }
            LogRecord::Ready { entries, .. } => {
                let cuts = entries.first().is_some_and(|first| log.cut(first.index.0));
                for entry in entries {
                    log.push(entry.index.0, entry.term);
                }
                return cuts;
            }
            LogRecord::Installed { index, term, .. } => log.begin_after(*index, *term),
            // Ids are never used again: what it held still counts for what
            // was decided while it was there.
            LogRecord::Trimmed { .. } | LogRecord::Destroyed => {}
        }
        false
    }

    /// What a log held when its machine started: a crash may have kept more
    /// than was synced, and has lost nothing that was.
    pub(super) fn recovered(&mut self, found: &RecoveredReplica) {
        self.shards.insert(found.replica, found.shard);
        let log = self.present.entry(found.replica).or_default();
        log.begin_after(found.base_index, found.base_term);
        for entry in &found.entries {
            log.push(entry.index.0, entry.term);
        }
    }

    /// What a log held when its machine started on a disk that the plan has
    /// harmed: what it lost still counts, and what a crash kept beyond what was
    /// known counts as well.
    pub(super) fn recovered_beyond(&mut self, found: &RecoveredReplica) {
        let Some(log) = self.present.get_mut(&found.replica) else {
            // All of it is what a crash kept.
            return self.recovered(found);
        };
        if found.base_index.0 > log.last {
            // A snapshot that only the crash kept.
            log.begin_after(found.base_index, found.base_term);
        }
        for entry in &found.entries {
            let index = entry.index.0;
            if log.term_of(entry.index).is_some_and(|known| known < entry.term) {
                // One that only the crash kept, in the place of what was known.
                log.cut(index);
            }
            if index == log.last + 1 {
                log.push(index, entry.term);
            }
        }
    }

    /// Whether an entry is, or ever was, durable in the log of a replica: whoever
    /// was told so may count it, whatever became of the disk.
    pub(super) fn held(&self, replica: ReplicaId, index: LogIndex, term: Term) -> bool {
        let earlier = self.earlier.get(&replica).into_iter().flatten();
        self.of(replica).into_iter().chain(earlier).any(|log| log.holds(index, term))
    }

    /// The durable log of a replica.
    pub(super) fn of(&self, replica: ReplicaId) -> Option<&DurableLog> {
        self.present.get(&replica)
    }

    /// The last position of each log of a shard, and its term.
    pub(super) fn ends(&self, shard: ShardId) -> impl Iterator<Item = (LogIndex, Term)> {
        let of_shard = self.shards.iter().filter(move |(_, copied)| **copied == shard);
        of_shard.filter_map(|(replica, _)| self.end(*replica))
    }

    /// The last position of a log, and its term.
    pub(super) fn end(&self, replica: ReplicaId) -> Option<(LogIndex, Term)> {
        let log = self.of(replica)?;
        let last = LogIndex(log.last);
        Some((last, log.term_of(last)?))
    }

    /// The shard a replica is a copy of.
    pub(super) fn shard_of(&self, replica: ReplicaId) -> Option<ShardId> {
        self.shards.get(&replica).copied()
    }
}

#[cfg(test)]
pub(super) mod samples {
    //! Records for the tests of whoever judges by logs.

    use cluster::{
        ids::{StoreId, VolumeId},
        raft::types::{Entry, Payload},
    };

    use super::*;

    /// A founder of the first shard.
    pub(in crate::checkers) fn born() -> LogRecord {
        let (shard, volume, store) = (ShardId(1), VolumeId(1), StoreId(1));
        LogRecord::Created { shard, volume, store, index: LogIndex(0), term: Term(0) }
    }

    /// A leader's first entry.
    pub(in crate::checkers) fn entry(index: u64, term: u64) -> LogRecord {
        entry_with(index, term, Payload::Empty)
    }

    /// An entry that carries something.
    pub(in crate::checkers) fn entry_with(index: u64, term: u64, payload: Payload) -> LogRecord {
        let (index, term) = (LogIndex(index), Term(term));
        LogRecord::Ready { hard_state: None, entries: vec![Entry { index, term, payload }] }
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{StoreId, VolumeId},
        raft::types::{Entry, HardState, Payload},
    };

    use super::{samples::*, *};

    fn at(index: u64, term: u64) -> Entry {
        Entry { index: LogIndex(index), term: Term(term), payload: Payload::Empty }
    }

    /// What a machine finds in the log of a newborn.
    fn nothing(replica: ReplicaId) -> RecoveredReplica {
        RecoveredReplica {
            replica,
            shard: ShardId(1),
            volume: VolumeId(1),
            store: StoreId(1),
            hard_state: HardState::default(),
            base_index: LogIndex(0),
            base_term: Term(0),
            entries: Vec::new(),
            damaged: false,
        }
    }

    /// Seed 1064 of the swarm: a joiner on a disk that was once harmed died with
    /// the record of its first snapshot written and not yet synced; its next
    /// entry was held to follow its birth.
    #[test]
    fn a_harmed_disk_adds_a_snapshot_that_only_a_crash_kept() {
        let (mut logs, replica) = (Logs::default(), ReplicaId(1));
        logs.durable(replica, &born());
        let (base_index, base_term) = (LogIndex(9), Term(5));
        logs.recovered_beyond(&RecoveredReplica { base_index, base_term, ..nothing(replica) });
        logs.durable(replica, &entry(10, 5));
        let log = logs.of(replica).unwrap();
        assert_eq!(log.term_of(LogIndex(9)), Some(Term(5)));
    }

    /// Seed 5 of the swarm: a disk that was once harmed kept eight entries that
    /// nobody had heard of, and the next ones were compared with what lay before.
    #[test]
    fn a_harmed_disk_adds_what_a_crash_kept_and_takes_nothing_away() {
        let (mut logs, replica) = (Logs::default(), ReplicaId(1));
        logs.durable(replica, &born());
        logs.durable(replica, &entry(1, 1));
        logs.durable(replica, &entry(2, 1));
        let found = |entries| RecoveredReplica { entries, ..nothing(replica) };
        logs.recovered_beyond(&found(vec![at(1, 1)]));
        logs.recovered_beyond(&found(vec![at(1, 1), at(2, 1), at(3, 2)]));
        let log = logs.of(replica).unwrap();
        assert!(log.holds(LogIndex(2), Term(1)) && log.holds(LogIndex(3), Term(2)));
    }

    /// Seed 2276 of the swarm: a crash on such a disk kept an entry that had
    /// replaced a known one, and its replica led with it.
    #[test]
    fn a_harmed_disk_replaces_what_was_known_by_what_a_crash_kept() {
        let (mut logs, replica) = (Logs::default(), ReplicaId(1));
        logs.durable(replica, &born());
        logs.durable(replica, &entry(1, 6));
        logs.recovered_beyond(&RecoveredReplica { entries: vec![at(1, 7)], ..nothing(replica) });
        logs.recovered_beyond(&RecoveredReplica { entries: vec![at(1, 6)], ..nothing(replica) });
        assert!(logs.of(replica).is_some_and(|log| log.holds(LogIndex(1), Term(7))));
    }

    /// Seed 52 of *deaths-at-named-places*: of a founder on a disk that was once
    /// harmed, all that was there had been kept by a crash.
    #[test]
    fn a_harmed_disk_adds_a_replica_that_only_a_crash_kept() {
        let (mut logs, replica) = (Logs::default(), ReplicaId(1));
        logs.recovered_beyond(&RecoveredReplica { entries: vec![at(1, 1)], ..nothing(replica) });
        assert!(logs.of(replica).is_some_and(|log| log.holds(LogIndex(1), Term(1))));
        assert_eq!(logs.shard_of(replica), Some(ShardId(1)));
    }

    /// Seed 5366 of the swarm: a leader counted what a joiner had acknowledged just
    /// before its disk was set back to before its birth.
    #[test]
    fn what_was_told_before_a_second_birth_still_counts() {
        let (mut logs, replica) = (Logs::default(), ReplicaId(1));
        logs.durable(replica, &born());
        logs.durable(replica, &entry(1, 1));
        logs.durable(replica, &born());
        assert!(logs.held(replica, LogIndex(1), Term(1)));
        assert!(!logs.held(replica, LogIndex(1), Term(2)), "it was never there");
        assert!(logs.of(replica).is_some_and(|log| !log.holds(LogIndex(1), Term(1))), "it is gone");
    }

    #[test]
    fn a_log_holds_what_was_written_last_at_a_position_and_what_it_forgot() {
        let (mut logs, replica) = (Logs::default(), ReplicaId(1));
        assert!(!logs.durable(replica, &born()));
        assert!(!logs.durable(replica, &entry(1, 1)));
        assert!(!logs.durable(replica, &entry(2, 1)));
        assert!(logs.durable(replica, &entry(2, 3)), "it replaces an entry");
        let holds = |logs: &Logs, index, term| {
            logs.of(replica).is_some_and(|log| log.holds(LogIndex(index), Term(term)))
        };
        assert!(holds(&logs, 1, 1) && holds(&logs, 2, 3));
        assert!(!holds(&logs, 2, 1) && !holds(&logs, 3, 3));
        assert_eq!(logs.shard_of(replica), Some(ShardId(1)));
    }
}
