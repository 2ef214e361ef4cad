//! An old disk image never leads: from the start at which a disk was set back,
//! no replica that lay on it wins an election.
//!
//! Its votes must not count either: `votes.rs` leaves them out. Whether an
//! acknowledgement did shows in the durable quorum, for the logs of the image
//! are judged as they are. Source: the bug catalogue's D10.

use std::collections::{BTreeMap, BTreeSet};

use actors::probe::Report;
use cluster::{
    ids::{Incarnation, NodeId, ReplicaId},
    ports::log::RecoveredReplica,
};

use super::Checker;

/// Starts of nodes, and replicas that are old.
#[derive(Debug, Default)]
pub(super) struct OldImages {
    highest: BTreeMap<NodeId, Incarnation>,
    old: BTreeSet<ReplicaId>,
    /// Where each replica was found last.
    homes: BTreeMap<ReplicaId, NodeId>,
    set_back: BTreeSet<NodeId>,
}

impl OldImages {
    /// A node starts with what its disk held. A start that is not later than
    /// one before is that of an old image.
    pub(super) fn starts(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        found: &[RecoveredReplica],
    ) {
        let highest = self.highest.entry(node).or_insert(Incarnation(0));
        if incarnation <= *highest {
            self.old.extend(found.iter().map(|replica| replica.replica));
            self.set_back.insert(node);
        }
        *highest = (*highest).max(incarnation);
        self.homes.extend(found.iter().map(|replica| (replica.replica, node)));
    }

    /// Whether a replica was found on a node whose disk was set back at some time.
    pub(super) fn may_be_born_again(&self, replica: ReplicaId) -> bool {
        self.homes.get(&replica).is_some_and(|node| self.set_back.contains(node))
    }

    /// Whether a replica lies, or lay, on such a disk.
    pub(super) fn is_old(&self, replica: ReplicaId) -> bool {
        self.old.contains(&replica)
    }
}

impl Checker for OldImages {
    fn report(&mut self, node: u32, report: &Report) -> Result<(), String> {
        let Report::Elected { shard, replica, term } = report else { return Ok(()) };
        if !self.is_old(*replica) {
            return Ok(());
        }
        Err(format!("{replica} leads {shard} in {term} from the old disk image of n{node}"))
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{LogIndex, ShardId, StoreId, Term, VolumeId},
        raft::types::HardState,
    };

    use super::*;

    fn found(replica: u64) -> RecoveredReplica {
        RecoveredReplica {
            replica: ReplicaId(replica),
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

    #[test]
    fn a_replica_that_leads_from_an_old_image_is_found() {
        let mut checker = OldImages::default();
        let elected =
            |term| Report::Elected { shard: ShardId(1), replica: ReplicaId(7), term: Term(term) };
        checker.starts(NodeId(1), Incarnation(1), &[]);
        checker.starts(NodeId(1), Incarnation(2), &[found(7)]);
        assert_eq!(checker.report(1, &elected(2)), Ok(()), "a restart is no old image");
        checker.starts(NodeId(2), Incarnation(2), &[found(9)]);
        checker.starts(NodeId(1), Incarnation(2), &[found(7)]);
        assert!(checker.report(1, &elected(3)).is_err());
    }
}
