//! Votes: a replica gives one a term, also over restarts, and only one that its
//! log holds; who leads was given those of a majority. A vote from an old disk
//! image is none: a leader that needed one was not elected.
//!
//! Votes are heard on their way out of a machine, and compared with what its
//! log said to be durable. A candidate's requests say that it voted for itself.
//! Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm", figure 2 and §5.2; the bug catalogue's D2 and D10.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::{
    ids::{ReplicaId, ShardId, Term},
    ports::log::{LogRecord, RecoveredReplica},
    raft::types::HardState,
};

use super::{durable_quorum::DurableQuorum, old_images::OldImages};

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ballot {
    pub(crate) shard: ShardId,
    /// Whose it is.
    pub(crate) voter: ReplicaId,
    /// Who gets it.
    pub(crate) candidate: ReplicaId,
    pub(crate) term: Term,
}

/// Votes given, and those that logs hold.
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// Term and vote as each log holds them.
    durable: BTreeMap<ReplicaId, (Term, ReplicaId)>,
    /// Who got the vote of a replica in a term.
    given: BTreeMap<(ShardId, Term, ReplicaId), ReplicaId>,
}

impl Votes {
    /// A log said that a record is durable.
    pub(super) fn durable(&mut self, replica: ReplicaId, record: &LogRecord) {
        match record {
            LogRecord::Ready { hard_state: Some(hard_state), .. }
            | LogRecord::Installed { hard_state, .. } => self.hold(replica, *hard_state),
            LogRecord::Ready { hard_state: None, .. }
            | LogRecord::Created { .. }
            | LogRecord::Trimmed { .. }
            | LogRecord::Destroyed => {}
        }
    }

    /// What a log held when its machine started: what a crash took is gone, and
    /// what it kept may be more than was known.
    pub(super) fn recovered(&mut self, found: &RecoveredReplica) {
        self.hold(found.replica, found.hard_state);
    }

    fn hold(&mut self, replica: ReplicaId, HardState { term, vote, .. }: HardState) {
        self.durable.insert(replica, (term, vote));
    }

    /// Judges a vote that leaves its machine.
    pub(super) fn give(&mut self, images: &OldImages, ballot: Ballot) -> Result<(), String> {
        let Ballot { shard, voter, candidate, term } = ballot;
        // A later term is held by who was told of two at once.
        let held = self.durable.get(&voter).copied().unwrap_or_default();
        if held.0 < term || (held.0 == term && held.1 != candidate) {
            let (term_held, vote) = held;
            return Err(format!(
                "{voter} of {shard} votes for {candidate} in {term}; its log holds {vote} in {term_held}"
            ));
        }
        if images.is_old(voter) {
            return Ok(());
        }
        let first = *self.given.entry((shard, term, voter)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        Err(format!("{voter} of {shard} votes for {first} and for {candidate} in {term}"))
    }

    /// Judges who leads by the votes that were given.
    pub(super) fn report(&self, quorum: &DurableQuorum, report: &Report) -> Result<(), String> {
        let Report::Elected { shard, replica, term } = *report else { return Ok(()) };
        let voted = |voter: ReplicaId| {
            voter == replica || self.given.get(&(shard, term, voter)) == Some(&replica)
        };
        if quorum.can_elect(shard, replica, voted) {
            return Ok(());
        }
        Err(format!("{replica} leads {shard} in {term} without the votes of a majority"))
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{Incarnation, LogIndex, NodeId, StoreId, VolumeId},
        ports::log::RecoveredReplica,
    };

    use super::{
        super::{
            logs::{Logs, samples::born},
            samples::configured,
        },
        *,
    };

    const SHARD: ShardId = ShardId(1);

    fn ballot(voter: u64, candidate: u64, term: u64) -> Ballot {
        let (voter, candidate) = (ReplicaId(voter), ReplicaId(candidate));
        Ballot { shard: SHARD, voter, candidate, term: Term(term) }
    }

    fn holds(term: u64, vote: u64) -> HardState {
        HardState { term: Term(term), vote: ReplicaId(vote), commit: LogIndex(0) }
    }

    fn found(replica: u64, hard_state: HardState) -> RecoveredReplica {
        RecoveredReplica {
            replica: ReplicaId(replica),
            shard: SHARD,
            volume: VolumeId(1),
            store: StoreId(1),
            hard_state,
            base_index: LogIndex(0),
            base_term: Term(0),
            entries: Vec::new(),
            damaged: false,
        }
    }

    #[derive(Default)]
    struct Three {
        votes: Votes,
        images: OldImages,
        quorum: DurableQuorum,
    }

    impl Three {
        fn new() -> Self {
            let mut three = Self::default();
            (1..=3).for_each(|replica| three.quorum.durable(ReplicaId(replica), &born()));
            three
        }

        fn write(&mut self, replica: u64, hard_state: HardState) {
            let record = LogRecord::Ready { hard_state: Some(hard_state), entries: Vec::new() };
            self.votes.durable(ReplicaId(replica), &record);
        }

        /// Writes a vote and gives it.
        fn vote(&mut self, voter: u64, candidate: u64, term: u64) -> Result<(), String> {
            self.write(voter, holds(term, candidate));
            self.votes.give(&self.images, ballot(voter, candidate, term))
        }

        fn elects(&self, replica: u64, term: u64) -> Result<(), String> {
            let (replica, term) = (ReplicaId(replica), Term(term));
            self.votes.report(&self.quorum, &Report::Elected { shard: SHARD, replica, term })
        }
    }

    #[test]
    fn a_vote_that_the_log_does_not_hold_is_found() {
        let mut three = Three::new();
        assert!(three.votes.give(&three.images, ballot(2, 1, 3)).is_err(), "nothing is durable");
        three.write(2, holds(3, 0));
        assert!(three.votes.give(&three.images, ballot(2, 1, 3)).is_err(), "only the term is");
        three.write(2, holds(3, 1));
        assert_eq!(three.votes.give(&three.images, ballot(2, 1, 3)), Ok(()));
        three.write(2, holds(5, 0));
        assert_eq!(three.votes.give(&three.images, ballot(2, 1, 4)), Ok(()), "said late");
    }

    #[test]
    fn a_second_vote_of_a_term_is_found_also_after_a_crash_that_took_the_first() {
        let mut three = Three::new();
        assert_eq!(three.vote(2, 1, 3), Ok(()));
        assert_eq!(three.vote(2, 1, 3), Ok(()), "an answer may be given again");
        assert_eq!(three.vote(2, 3, 4), Ok(()), "a term has its own");
        three.votes.recovered(&found(2, holds(3, 0)));
        assert!(three.vote(2, 1, 4).is_err());
    }

    #[test]
    fn a_leader_without_the_votes_of_a_majority_is_found() {
        let mut three = Three::new();
        assert!(three.elects(1, 3).is_err(), "its own is one of three");
        assert_eq!(three.vote(2, 1, 3), Ok(()));
        assert_eq!(three.elects(1, 3), Ok(()));
        assert!(three.elects(1, 4).is_err(), "of another term");
        assert!(three.elects(3, 3).is_err(), "for another candidate");
        assert_eq!(three.vote(4, 5, 6), Ok(()));
        assert!(three.elects(5, 6).is_err());
        assert_eq!(three.quorum.report(&Logs::default(), &configured(9, &[4, 5, 6], &[])), Ok(()));
        assert_eq!(three.elects(5, 6), Ok(()), "of a later configuration");
        assert_eq!(three.vote(2, 1, 7), Ok(()));
        assert!(three.elects(1, 7).is_err(), "it knows that these two are voters no more");
        three.quorum.recovered(&found(1, holds(7, 1)));
        assert_eq!(three.elects(1, 7), Ok(()), "its store may stand before that");
    }

    #[test]
    fn a_leader_that_needed_the_vote_of_an_old_disk_image_is_found() {
        let mut three = Three::new();
        three.images.starts(NodeId(2), Incarnation(2), &[]);
        three.images.starts(NodeId(2), Incarnation(2), &[found(2, holds(1, 0))]);
        assert_eq!(three.vote(2, 1, 3), Ok(()), "nobody need listen to it");
        assert!(three.elects(1, 3).is_err());
        assert_eq!(three.vote(3, 1, 3), Ok(()));
        assert_eq!(three.elects(1, 3), Ok(()));
    }
}
