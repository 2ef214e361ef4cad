//! State machine safety: all replicas apply the same entry at a position.
//!
//! An entry is known by its position and term (log matching), so terms are
//! compared. Source: Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm", figure 3.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::ids::{LogIndex, ReplicaId, ShardId, Term};

use super::Checker;

/// The term of the entry applied at each position, and who was first.
#[derive(Debug, Default)]
pub(super) struct StateMachineSafety {
    applied: BTreeMap<(ShardId, LogIndex), (Term, ReplicaId)>,
}

impl Checker for StateMachineSafety {
    fn report(&mut self, _node: u32, report: &Report) -> Result<(), String> {
        let Report::Applied { shard, replica, index, term, .. } = report else { return Ok(()) };
        let (first, by) = *self.applied.entry((*shard, *index)).or_insert((*term, *replica));
        if first == *term {
            return Ok(());
        }
        Err(format!("{by} applied {shard} {index} of {first}, {replica} applied it of {term}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(by: u64, term: u64) -> Report {
        let (shard, replica, index) = (ShardId(1), ReplicaId(by), LogIndex(7));
        Report::Applied { shard, replica, index, term: Term(term), repeated: 0, expired: 0 }
    }

    #[test]
    fn different_entries_at_one_position_are_found() {
        let mut checker = StateMachineSafety::default();
        assert_eq!(checker.report(1, &applied(1, 3)), Ok(()));
        assert_eq!(checker.report(2, &applied(2, 3)), Ok(()));
        assert!(checker.report(3, &applied(3, 4)).is_err());
    }
}
