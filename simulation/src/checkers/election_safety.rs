//! Election safety: a term has at most one leader.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm", figure 3.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::ids::{ReplicaId, ShardId, Term};

use super::Checker;

/// Who led in which term.
#[derive(Debug, Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<(ShardId, Term), ReplicaId>,
}

impl Checker for ElectionSafety {
    fn report(&mut self, _node: u32, report: &Report) -> Result<(), String> {
        let Report::Elected { shard, replica, term } = report else { return Ok(()) };
        let first = *self.leaders.entry((*shard, *term)).or_insert(*replica);
        if first == *replica {
            return Ok(());
        }
        Err(format!("{first} and {replica} both lead {shard} in {term}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elected(shard: u64, replica: u64, term: u64) -> Report {
        let (shard, replica, term) = (ShardId(shard), ReplicaId(replica), Term(term));
        Report::Elected { shard, replica, term }
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut checker = ElectionSafety::default();
        for report in [elected(1, 1, 3), elected(1, 1, 3), elected(1, 2, 4), elected(2, 5, 3)] {
            assert_eq!(checker.report(1, &report), Ok(()));
        }
        assert!(checker.report(1, &elected(1, 2, 3)).is_err());
    }
}
