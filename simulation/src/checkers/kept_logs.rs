//! A log gives back what it said to be durable, or says that the replica is
//! damaged; and a damaged replica takes no part any more: it gives no vote,
//! leads nobody and applies nothing.
//!
//! What is found at a start is compared with what was told, as Raft compares
//! logs: by the last term, then by length. On a disk that the plan harmed the
//! last sector may be gone without a word: where nothing behind a bad record
//! states that it was durable, it looks like a torn tail. What was told before
//! that must be there. Sources: design.md §5, the log; the bug catalogue's D1, D7
//! and D9.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use actors::probe::Report;
use cluster::{
    ids::{LogIndex, ReplicaId, Term},
    ports::log::{LogRecord, RecoveredReplica},
};

use super::{logs::Logs, old_images::OldImages, votes::Ballot};

/// Records of one replica that a sector of 512 bytes may hold at its end: none is
/// smaller than 64 bytes.
const SECTOR_RECORDS_MAX: usize = 8;

/// Last term and position of a log.
type End = (Term, LogIndex);

/// What logs told last, and whose were found damaged.
#[derive(Debug, Default)]
pub(super) struct KeptLogs {
    told: BTreeMap<ReplicaId, Told>,
    damaged: BTreeSet<ReplicaId>,
}

/// Where a log ended when it last told of a record, and before each of the last
/// that one sector may hold.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Found at a start, and not only born since.
    found: bool,
    end: End,
    before: VecDeque<End>,
}

impl Told {
    fn tell(&mut self, end: End) {
        self.before.push_back(self.end);
        if self.before.len() > SECTOR_RECORDS_MAX {
            self.before.pop_front();
        }
        self.end = end;
    }

    /// What must be there, on a disk that was harmed or not.
    fn wanted(&self, harmed: bool) -> End {
        match self.before.front() {
            Some(before) if harmed => *before,
            Some(_) | None => self.end,
        }
    }
}

fn end_of(found: &RecoveredReplica) -> End {
    let base = (found.base_term, found.base_index);
    found.entries.last().map_or(base, |last| (last.term, last.index))
}

impl KeptLogs {
    /// A log told, just now, that a record is durable.
    pub(super) fn durable(&mut self, logs: &Logs, replica: ReplicaId, record: &LogRecord) {
        if *record == LogRecord::Destroyed {
            // Nothing of it must be there. An old image may hold it, or give birth
            // to it, until its node has heard that it is one.
            self.told.remove(&replica);
            return;
        }
        let Some((index, term)) = logs.end(replica) else { return };
        // A shorter one of a later term is no loss.
        self.told.entry(replica).or_default().tell((term, index));
    }

    /// Judges what a machine found at its start, on a disk that was `harmed` by
    /// the plan or not.
    pub(super) fn recovered(
        &mut self,
        images: &OldImages,
        found: &RecoveredReplica,
        harmed: bool,
    ) -> Result<(), String> {
        let replica = found.replica;
        if found.damaged {
            self.damaged.insert(replica);
            return Ok(());
        }
        if images.is_old(replica) {
            // The verdict was durable before anybody heard of it, but not here.
            self.damaged.remove(&replica);
        }
        let (told, end) = (self.told.entry(replica).or_default(), end_of(found));
        let wanted = told.wanted(harmed);
        // Whoever is not in an old image is born on it again, under its id, until
        // the node has heard that it is one.
        let born_again = images.may_be_born_again(replica) && !told.found;
        if end < wanted && !images.is_old(replica) && !born_again {
            return Err(format!(
                "the log of {replica} ends at {end:?}, was durable up to {wanted:?}, and does not say that it is damaged"
            ));
        }
        if born_again {
            // What it told in its first life is no longer looked for.
            told.before.clear();
        }
        // What the last sector holds is not written anew by a start.
        (told.found, told.end) = (true, end);
        Ok(())
    }

    /// Judges a vote that leaves its machine.
    pub(super) fn vote(&self, ballot: Ballot) -> Result<(), String> {
        self.takes_part(ballot.voter, "votes")
    }

    /// Judges a report of who leads or applies.
    pub(super) fn report(&self, report: &Report) -> Result<(), String> {
        match report {
            Report::Elected { replica, .. } => self.takes_part(*replica, "leads"),
            Report::Applied { replica, .. } => self.takes_part(*replica, "applies"),
            Report::Configured { .. }
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

    fn takes_part(&self, replica: ReplicaId, does: &str) -> Result<(), String> {
        if self.damaged.contains(&replica) {
            return Err(format!("{replica} {does} though its log was found damaged"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{Incarnation, NodeId, ShardId, StoreId, VolumeId},
        raft::types::{Entry, HardState, Payload},
    };

    use super::{
        super::{
            logs::samples::{born, entry},
            samples::applied,
        },
        *,
    };

    const REPLICA: ReplicaId = ReplicaId(1);

    const LAST: u64 = 12;

    /// A log that told of entries of the first term, one after the other.
    fn told() -> KeptLogs {
        let (mut logs, mut checker) = (Logs::default(), KeptLogs::default());
        logs.durable(REPLICA, &born());
        for index in 1..=LAST {
            let record = entry(index, 1);
            logs.durable(REPLICA, &record);
            checker.durable(&logs, REPLICA, &record);
        }
        checker
    }

    fn found(last: u64, term: u64) -> RecoveredReplica {
        let at =
            |index| Entry { index: LogIndex(index), term: Term(term), payload: Payload::Empty };
        RecoveredReplica {
            replica: REPLICA,
            shard: ShardId(1),
            volume: VolumeId(1),
            store: StoreId(1),
            hard_state: HardState::default(),
            base_index: LogIndex(0),
            base_term: Term(0),
            entries: (1..=last).map(at).collect(),
            damaged: false,
        }
    }

    fn judged(found: &RecoveredReplica, harmed: bool) -> Result<(), String> {
        told().recovered(&OldImages::default(), found, harmed)
    }

    #[test]
    fn a_sound_disk_that_lost_the_last_entry_is_found() {
        assert_eq!(judged(&found(LAST, 1), false), Ok(()));
        assert_eq!(judged(&found(LAST + 1, 1), false), Ok(()), "a crash kept more than was told");
        assert_eq!(judged(&found(2, 2), false), Ok(()), "a crash kept what replaced the others");
        assert!(judged(&found(LAST - 1, 1), false).is_err());
    }

    #[test]
    fn a_harmed_disk_may_lose_its_last_sector_and_nothing_before() {
        let first = LAST - SECTOR_RECORDS_MAX as u64;
        assert_eq!(judged(&found(first, 1), true), Ok(()));
        assert!(judged(&found(first - 1, 1), true).is_err());
        let damaged = RecoveredReplica { damaged: true, ..found(0, 1) };
        assert_eq!(judged(&damaged, true), Ok(()), "it says so");
        let mut images = OldImages::default();
        images.starts(NodeId(1), Incarnation(1), &[]);
        assert!(told().recovered(&images, &found(1, 1), true).is_err());
        images.starts(NodeId(1), Incarnation(1), &[found(1, 1)]);
        assert_eq!(told().recovered(&images, &found(1, 1), true), Ok(()), "an old image");
    }

    /// Seed 2545 of the swarm: a sector went bad between two starts.
    #[test]
    fn a_start_does_not_shrink_what_the_last_sector_may_hold() {
        let mut checker = told();
        assert_eq!(checker.recovered(&OldImages::default(), &found(LAST, 1), true), Ok(()));
        assert_eq!(checker.recovered(&OldImages::default(), &found(LAST - 2, 1), true), Ok(()));
    }

    /// Seed 3310 of the swarm: a replica was destroyed, then its node's disk set back
    /// to before its birth, and the node gave birth to it again.
    #[test]
    fn nothing_of_a_destroyed_replica_must_be_there() {
        let mut checker = told();
        checker.durable(&Logs::default(), REPLICA, &LogRecord::Destroyed);
        assert_eq!(checker.recovered(&OldImages::default(), &found(0, 0), false), Ok(()));
    }

    /// Seed 56729 of the swarm: a replica that was born again on an old image was found
    /// at one start, and at the next one held to what it had told in its first life.
    #[test]
    fn a_second_life_is_not_held_to_the_first() {
        let (mut checker, mut images) = (told(), OldImages::default());
        images.starts(NodeId(1), Incarnation(1), &[]);
        images.starts(NodeId(1), Incarnation(1), &[]);
        images.starts(NodeId(1), Incarnation(2), &[found(0, 0)]);
        assert_eq!(checker.recovered(&images, &found(0, 0), true), Ok(()));
        assert_eq!(checker.recovered(&images, &found(0, 0), true), Ok(()));
    }

    #[test]
    fn a_verdict_of_damage_stays_but_on_an_old_image() {
        let (mut checker, mut images) = (told(), OldImages::default());
        let damaged = RecoveredReplica { damaged: true, ..found(0, 1) };
        assert_eq!(checker.recovered(&images, &damaged, true), Ok(()));
        assert_eq!(checker.recovered(&images, &found(LAST, 1), true), Ok(()));
        assert!(checker.report(&applied(1, 1)).is_err());
        images.starts(NodeId(1), Incarnation(1), &[]);
        images.starts(NodeId(1), Incarnation(1), &[found(LAST, 1)]);
        assert_eq!(checker.recovered(&images, &found(LAST, 1), true), Ok(()));
        assert_eq!(checker.report(&applied(1, 1)), Ok(()));
    }

    #[test]
    fn a_damaged_replica_that_takes_part_is_found() {
        let mut checker = told();
        assert_eq!(checker.report(&applied(1, 1)), Ok(()));
        let damaged = RecoveredReplica { damaged: true, ..found(0, 1) };
        assert_eq!(checker.recovered(&OldImages::default(), &damaged, true), Ok(()));
        assert!(checker.report(&applied(1, 1)).is_err());
        let (shard, candidate, term) = (ShardId(1), ReplicaId(2), Term(3));
        assert!(checker.report(&Report::Elected { shard, replica: REPLICA, term }).is_err());
        let voted = |voter| checker.vote(Ballot { shard, voter, candidate, term });
        assert!(voted(REPLICA).is_err());
        assert_eq!(voted(ReplicaId(2)), Ok(()));
    }
}
