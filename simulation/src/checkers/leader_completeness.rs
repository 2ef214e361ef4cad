//! Leader completeness: a leader's log holds every entry that was committed
//! in the terms before its own.
//!
//! The first entry of a term is its leader's, and it lies behind everything
//! that was in the leader's log when it was elected; whoever has that entry
//! durable holds what lies before it durable as well. So logs are judged when
//! such an entry becomes durable in them.
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm", figure 3.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, Term},
    raft::types::{Entry, Payload},
};

use super::{Checker, logs::Logs};

/// The furthest entry applied in each term of each shard.
#[derive(Debug, Default)]
pub(super) struct LeaderCompleteness {
    applied: BTreeMap<(ShardId, Term), LogIndex>,
}

impl LeaderCompleteness {
    /// Judges entries that lie in a log by now.
    pub(super) fn entries(
        &self,
        logs: &Logs,
        replica: ReplicaId,
        entries: &[Entry],
    ) -> Result<(), String> {
        let firsts = entries.iter().filter(|entry| entry.payload == Payload::Empty);
        for first in firsts {
            let (Some(shard), Some(log)) = (logs.shard_of(replica), logs.of(replica)) else {
                continue;
            };
            let mut earlier = self.applied.range((shard, Term(0))..(shard, first.term));
            let Some(((_, term), index)) = earlier.next_back() else { continue };
            if *index >= first.index || !log.holds(*index, *term) {
                return Err(format!(
                    "{replica} of {shard} took up {} of {} without {index} of {term}, which was \
                     committed",
                    first.index, first.term
                ));
            }
        }
        Ok(())
    }
}

impl Checker for LeaderCompleteness {
    fn report(&mut self, _node: u32, report: &Report) -> Result<(), String> {
        if let Report::Applied { shard, index, term, .. } = report {
            let furthest = self.applied.entry((*shard, *term)).or_default();
            *furthest = (*furthest).max(*index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster::ports::log::LogRecord;

    use super::{
        super::{
            logs::samples::{born, entry, entry_with},
            samples::applied,
        },
        *,
    };

    /// Somebody applied the second entry, of term 1; then this log takes up
    /// the first entry of term 2.
    fn judged(before: &[LogRecord], first: &LogRecord) -> Result<(), String> {
        let (mut logs, mut checker) = (Logs::default(), LeaderCompleteness::default());
        assert_eq!(checker.report(1, &applied(2, 1)), Ok(()));
        for record in before.iter().chain([first]) {
            logs.durable(ReplicaId(2), record);
        }
        let LogRecord::Ready { entries, .. } = first else { return Ok(()) };
        checker.entries(&logs, ReplicaId(2), entries)
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_found_and_one_with_it_is_not() {
        let write = |index| entry_with(index, 1, Payload::Command(vec![1]));
        assert_eq!(judged(&[born(), entry(1, 1), write(2)], &entry(3, 2)), Ok(()));
        assert!(judged(&[born(), entry(1, 1)], &entry(2, 2)).is_err(), "it replaced it");
        let other = entry_with(2, 0, Payload::Command(vec![1]));
        assert!(judged(&[born(), entry(1, 0), other], &entry(3, 2)).is_err());
    }

    #[test]
    fn what_was_committed_in_later_terms_is_not_asked_of_it() {
        assert_eq!(judged(&[born()], &entry(1, 1)), Ok(()));
    }
}
