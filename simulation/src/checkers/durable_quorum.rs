//! What is applied is durable in the logs of a majority of the voters: of both
//! majorities while the configuration is joint.
//!
//! The voters of a shard are its founders, known by their birth records (also
//! those that a crash kept though nobody had heard that they were synced), and
//! from then on those of the configurations that replicas applied. An entry
//! counts under the last configuration before it, or the one before that: a
//! leader commits under the old one until it has applied the new.
//! Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm" §5.3 and §6; the bug catalogue's R1 and D1.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, StoreId, Term},
    ports::log::{LogRecord, RecoveredReplica},
    raft::types::Configuration,
};

use super::logs::Logs;

/// Who counts in each shard.
#[derive(Debug, Default)]
pub(super) struct DurableQuorum {
    /// By the position at which each stands.
    configurations: BTreeMap<ShardId, BTreeMap<LogIndex, Configuration>>,
    /// The highest position judged per shard.
    judged: BTreeMap<ShardId, LogIndex>,
    /// The last configuration that each replica applied since it was started.
    stands: BTreeMap<ReplicaId, LogIndex>,
}

impl DurableQuorum {
    /// A log said that a record is durable: it may be a founder's birth.
    pub(super) fn durable(&mut self, replica: ReplicaId, record: &LogRecord) {
        if let LogRecord::Created { shard, store, index: LogIndex(0), .. } = record {
            self.founder(replica, *shard, *store);
        }
    }

    /// A machine started and found a replica in its log.
    pub(super) fn recovered(&mut self, found: &RecoveredReplica) {
        // Its store may stand before the last one that it applied.
        self.stands.remove(&found.replica);
        if found.base_index == LogIndex(0) {
            self.founder(found.replica, found.shard, found.store);
        }
    }

    /// A replica begins at the first position: a founder has a store already,
    /// a joiner has none before its snapshot.
    fn founder(&mut self, replica: ReplicaId, shard: ShardId, store: StoreId) {
        if store == StoreId(0) {
            return;
        }
        let first = self.configurations.entry(shard).or_default();
        let founders = &mut first.entry(LogIndex(0)).or_default().voters;
        if !founders.contains(&replica) {
            founders.push(replica);
        }
    }

    /// Judges a report by the durable logs.
    pub(super) fn report(&mut self, logs: &Logs, report: &Report) -> Result<(), String> {
        match report {
            Report::Configured { shard, replica, index, configuration, .. } => {
                self.stands.insert(*replica, *index);
                let known = self.configurations.entry(*shard).or_default();
                known.entry(*index).or_insert_with(|| configuration.clone());
                Ok(())
            }
            Report::Applied { shard, index, term, .. } => self.applied(logs, *shard, *index, *term),
            Report::Elected { .. }
            | Report::SnapshotInstalled { .. }
            | Report::SnapshotPinned { .. }
            | Report::SnapshotOpened { .. }
            | Report::SnapshotResumed { .. }
            | Report::LeadershipOffered { .. }
            | Report::Gathered { .. }
            | Report::Hibernating { .. }
            | Report::ReplicaLost { .. }
            | Report::ReplicaReplaced { .. }
            | Report::ReplicaStopped { .. }
            | Report::Restarted { .. }
            | Report::PeerRefused { .. }
            | Report::DiskFenced { .. } => Ok(()),
        }
    }

    /// Whether replicas of which this is true can elect a candidate: they are a
    /// majority of the voters of a configuration, for a candidate may be behind and
    /// not know the newest; but not of one before that which it applied last. Of a
    /// joint one its new voters count alone: who has left it may be first to say so.
    pub(super) fn can_elect(
        &self,
        shard: ShardId,
        candidate: ReplicaId,
        voted: impl Fn(ReplicaId) -> bool,
    ) -> bool {
        let Some(configurations) = self.configurations.get(&shard) else { return true };
        let from = self.stands.get(&candidate).copied().unwrap_or_default();
        configurations.range(from..).any(|(_, one)| {
            let won = one.voters.iter().filter(|voter| voted(**voter)).count();
            won * 2 > one.voters.len()
        })
    }

    fn applied(
        &mut self,
        logs: &Logs,
        shard: ShardId,
        index: LogIndex,
        term: Term,
    ) -> Result<(), String> {
        let Some(configurations) = self.configurations.get(&shard) else { return Ok(()) };
        let judged = self.judged.entry(shard).or_default();
        if index <= *judged {
            return Ok(());
        }
        *judged = index;
        let holds = |voter: &&ReplicaId| logs.held(**voter, index, term);
        let durable = |voters: &[ReplicaId]| voters.iter().filter(holds).count();
        let majority = |voters: &[ReplicaId]| durable(voters) * 2 > voters.len();
        let counts = |one: &&Configuration| {
            majority(&one.voters) && (one.outgoing.is_empty() || majority(&one.outgoing))
        };
        let mut latest = configurations.range(..index).rev().take(2).map(|(_, one)| one);
        let Some(last) = latest.clone().next() else { return Ok(()) };
        if latest.any(|one| counts(&one)) {
            return Ok(());
        }
        let (found, of) = (durable(&last.voters), last.voters.len());
        let joint = if last.outgoing.is_empty() { "" } else { ", joint" };
        Err(format!("{shard} applied {index} of {term}, durable on {found} of {of} voters{joint}"))
    }
}

#[cfg(test)]
mod tests {
    use cluster::{ids::VolumeId, raft::types::HardState};

    use super::{
        super::{
            logs::samples::{born, entry},
            samples::{applied, configured},
        },
        *,
    };

    /// Three founders.
    #[derive(Default)]
    struct Three {
        logs: Logs,
        checker: DurableQuorum,
    }

    impl Three {
        fn new() -> Self {
            let mut three = Self::default();
            (1..=3).for_each(|replica| three.write(replica, &born()));
            three
        }

        fn write(&mut self, replica: u64, record: &LogRecord) {
            self.logs.durable(ReplicaId(replica), record);
            self.checker.durable(ReplicaId(replica), record);
        }

        fn report(&mut self, report: &Report) -> Result<(), String> {
            self.checker.report(&self.logs, report)
        }
    }

    #[test]
    fn what_lies_on_one_of_three_disks_and_is_applied_is_found() {
        let mut three = Three::new();
        three.write(1, &entry(1, 1));
        assert!(three.report(&applied(1, 1)).is_err());
        let mut three = Three::new();
        three.write(1, &entry(1, 1));
        three.write(3, &entry(1, 1));
        assert_eq!(three.report(&applied(1, 1)), Ok(()));
    }

    /// Seed 2 of *deaths-at-named-places*: one founder's birth was kept by a
    /// crash, another founder was destroyed with its volume.
    #[test]
    fn a_birth_that_a_crash_kept_and_a_copy_that_was_destroyed_count() {
        let mut three = Three::default();
        (1..=2).for_each(|replica| three.write(replica, &born()));
        let kept = RecoveredReplica {
            replica: ReplicaId(3),
            shard: ShardId(1),
            volume: VolumeId(1),
            store: StoreId(1),
            hard_state: HardState::default(),
            base_index: LogIndex(0),
            base_term: Term(0),
            entries: Vec::new(),
            damaged: false,
        };
        three.logs.recovered(&kept);
        three.checker.recovered(&kept);
        three.write(2, &LogRecord::Destroyed);
        three.write(1, &entry(1, 1));
        assert!(three.report(&applied(1, 1)).is_err(), "one of three");
        three.write(3, &entry(2, 1));
        three.write(1, &entry(2, 1));
        assert_eq!(three.report(&applied(2, 1)), Ok(()), "two of three");
        three.write(1, &entry(3, 1));
        three.write(3, &entry(3, 1));
        three.write(3, &LogRecord::Destroyed);
        assert_eq!(three.report(&applied(3, 1)), Ok(()), "it was durable when it counted");
    }

    #[test]
    fn an_entry_of_another_term_and_one_that_was_cut_off_do_not_count() {
        let mut three = Three::new();
        three.write(1, &entry(1, 2));
        three.write(2, &entry(1, 1));
        assert!(three.report(&applied(1, 2)).is_err());
        let mut three = Three::new();
        three.write(1, &entry(1, 1));
        three.write(2, &entry(1, 1));
        three.write(2, &entry(1, 2));
        assert!(three.report(&applied(1, 1)).is_err());
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities_and_the_next_one_only_its_own() {
        let joint = |logs: &[u64]| {
            let mut three = Three::new();
            for index in 1..=3 {
                for replica in logs {
                    three.write(*replica, &entry(index, 1));
                }
            }
            three.report(&configured(1, &[4, 5, 6], &[1, 2, 3]))?;
            three.report(&configured(2, &[4, 5, 6], &[]))?;
            three.report(&applied(3, 1))
        };
        assert_eq!(joint(&[4, 5]), Ok(()), "the joint one has ended");
        assert_eq!(joint(&[1, 2, 4, 5]), Ok(()));
        assert!(joint(&[1, 2, 3, 4]).is_err());
        let mut three = Three::new();
        (1..=2).for_each(|index| (4..=6).for_each(|r| three.write(r, &entry(index, 1))));
        assert_eq!(three.report(&configured(0, &[1, 2, 3], &[])), Ok(()));
        assert_eq!(three.report(&configured(1, &[4, 5, 6], &[1, 2, 3])), Ok(()));
        assert!(three.report(&applied(2, 1)).is_err(), "none of the old voters has it");
    }
}
