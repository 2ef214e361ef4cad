//! What is applied is durable in the logs of a majority of the voters.
//!
//! Counted from what the logs themselves said to have synced, never from what
//! replicas told each other. The voters of a shard are its founders, known by
//! their birth records; a shard whose voters changed is judged no more.
//! Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm" §5.3; the bug catalogue's R1 and D1.

use std::collections::{BTreeMap, BTreeSet};

use actors::probe::Report;
use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, Term},
    ports::log::{LogRecord, RecoveredReplica},
};

use super::Checker;

/// The durable log of each replica.
#[derive(Debug, Default)]
pub(super) struct DurableQuorum {
    logs: BTreeMap<ReplicaId, DurableLog>,
    founders: BTreeMap<ShardId, BTreeSet<ReplicaId>>,
    changed: BTreeSet<ShardId>,
    /// The highest position judged per shard.
    judged: BTreeMap<ShardId, LogIndex>,
}

/// Terms by run: an entry has the term of the last run that begins at or
/// before it.
#[derive(Debug, Default)]
struct DurableLog {
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

    fn begin_after(&mut self, index: LogIndex) {
        *self = Self { base: index.0, last: index.0, runs: BTreeMap::new() };
    }

    /// Whether it holds this entry, or has forgotten it as proven.
    fn holds(&self, index: LogIndex, term: Term) -> bool {
        if index.0 <= self.base {
            return true;
        }
        let run = self.runs.range(..=index.0).next_back();
        index.0 <= self.last && run.map(|(_, found)| *found) == Some(term)
    }
}

impl DurableQuorum {
    /// A log said that a record is durable; whether it replaced other entries.
    pub(super) fn durable(&mut self, replica: ReplicaId, record: &LogRecord) -> bool {
        let log = self.logs.entry(replica).or_default();
        match record {
            LogRecord::Created { shard, store, index, .. } => {
                log.begin_after(*index);
                if store.0 != 0 && index.0 == 0 {
                    self.founders.entry(*shard).or_default().insert(replica);
                }
            }
            LogRecord::Ready { entries, .. } => {
                let cuts = entries.first().is_some_and(|first| log.cut(first.index.0));
                for entry in entries {
                    log.push(entry.index.0, entry.term);
                }
                return cuts;
            }
            LogRecord::Installed { index, .. } => log.begin_after(*index),
            LogRecord::Trimmed { .. } => {}
            LogRecord::Destroyed => {
                self.logs.remove(&replica);
            }
        }
        false
    }

    /// What a log held when its machine started: a crash may have kept more
    /// than was synced, and has lost nothing that was.
    pub(super) fn recovered(&mut self, found: &RecoveredReplica) {
        let log = self.logs.entry(found.replica).or_default();
        log.begin_after(found.base_index);
        for entry in &found.entries {
            log.push(entry.index.0, entry.term);
        }
    }
}

impl Checker for DurableQuorum {
    fn report(&mut self, _node: u32, report: &Report) -> Result<(), String> {
        if let Report::Configured { shard, .. } = report {
            self.changed.insert(*shard);
        }
        let Report::Applied { shard, index, term, .. } = report else { return Ok(()) };
        let Some(voters) = self.founders.get(shard) else { return Ok(()) };
        let judged = self.judged.entry(*shard).or_default();
        if *index <= *judged || self.changed.contains(shard) {
            return Ok(());
        }
        *judged = *index;
        let holds =
            |voter: &&ReplicaId| self.logs.get(*voter).is_some_and(|log| log.holds(*index, *term));
        let durable = voters.iter().filter(holds).count();
        if durable * 2 > voters.len() {
            return Ok(());
        }
        let of = voters.len();
        Err(format!("{shard} applied {index} of {term}, durable on {durable} of {of} voters"))
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{StoreId, VolumeId},
        raft::types::{Entry, Payload},
    };

    use super::*;

    fn born() -> LogRecord {
        let (shard, volume, store) = (ShardId(1), VolumeId(1), StoreId(1));
        LogRecord::Created { shard, volume, store, index: LogIndex(0), term: Term(0) }
    }

    fn entry(index: u64, term: u64) -> LogRecord {
        let (index, term, payload) = (LogIndex(index), Term(term), Payload::Empty);
        LogRecord::Ready { hard_state: None, entries: vec![Entry { index, term, payload }] }
    }

    fn applied(index: u64, term: u64) -> Report {
        let (shard, replica) = (ShardId(1), ReplicaId(1));
        Report::Applied { shard, replica, index: LogIndex(index), term: Term(term) }
    }

    fn three() -> DurableQuorum {
        let mut checker = DurableQuorum::default();
        for replica in 1..=3 {
            checker.durable(ReplicaId(replica), &born());
        }
        checker
    }

    #[test]
    fn what_lies_on_one_of_three_disks_and_is_applied_is_found() {
        let mut checker = three();
        checker.durable(ReplicaId(1), &entry(1, 1));
        assert!(checker.report(1, &applied(1, 1)).is_err());
        let mut checker = three();
        checker.durable(ReplicaId(1), &entry(1, 1));
        checker.durable(ReplicaId(3), &entry(1, 1));
        assert_eq!(checker.report(1, &applied(1, 1)), Ok(()));
    }

    #[test]
    fn an_entry_of_another_term_and_one_that_was_cut_off_do_not_count() {
        let mut checker = three();
        checker.durable(ReplicaId(1), &entry(1, 2));
        checker.durable(ReplicaId(2), &entry(1, 1));
        assert!(checker.report(1, &applied(1, 2)).is_err());
        let mut checker = three();
        checker.durable(ReplicaId(1), &entry(1, 1));
        checker.durable(ReplicaId(2), &entry(1, 1));
        assert!(checker.durable(ReplicaId(2), &entry(1, 2)), "it replaces an entry");
        assert!(checker.report(1, &applied(1, 1)).is_err());
    }
}
