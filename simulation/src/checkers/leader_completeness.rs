//! Leader completeness: a leader's log holds every entry that was committed
//! in the terms before its own.
//!
//! The first entry of a term is its leader's, and it lies behind everything
//! that was in the leader's log when it was elected; whoever has that entry
//! durable holds what lies before it durable as well. So logs are judged when
//! such an entry becomes durable in them.
//!
//! In which term an entry was committed is not told. It was in none after the last
//! that had a leader when it was applied: what a later leader committed need not be in
//! the log of an earlier one, whose first entry may become durable late.
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm", figure 3.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, Term},
    raft::types::{Entry, Payload},
};

use super::{Checker, logs::Logs};

/// What was applied in each shard.
#[derive(Debug, Default)]
pub(super) struct LeaderCompleteness {
    /// The last term that had a leader.
    led: BTreeMap<ShardId, Term>,
    /// The furthest entry of each term, by the last term that had a leader then.
    applied: BTreeMap<(ShardId, Term, Term), LogIndex>,
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
            let Some((index, term)) = self.committed_before(shard, first.term) else { continue };
            if index >= first.index || !log.holds(index, term) {
                return Err(format!(
                    "{replica} of {shard} took up {} of {} without {index} of {term}, which was \
                     committed",
                    first.index, first.term
                ));
            }
        }
        Ok(())
    }

    /// The furthest entry of earlier terms that the leader of a term must have.
    fn committed_before(&self, shard: ShardId, term: Term) -> Option<(LogIndex, Term)> {
        let known = self.applied.range((shard, Term(0), Term(0))..=(shard, term, term));
        let earlier = known.filter(|((_, _, of), _)| *of < term);
        earlier.map(|((_, _, of), index)| (*index, *of)).max()
    }
}

impl Checker for LeaderCompleteness {
    fn report(&mut self, _node: u32, report: &Report) -> Result<(), String> {
        if let Report::Elected { shard, term, .. } = report {
            let led = self.led.entry(*shard).or_default();
            *led = (*led).max(*term);
        }
        if let Report::Applied { shard, index, term, .. } = report {
            let led = self.led.get(shard).copied().unwrap_or_default().max(*term);
            let furthest = self.applied.entry((*shard, led, *term)).or_default();
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

    fn elected(term: u64) -> Report {
        Report::Elected { shard: ShardId(1), replica: ReplicaId(9), term: Term(term) }
    }

    /// Seed 32689 of the swarm: a leader on a slow disk had lost its term before its
    /// first entry was durable, and the next one committed what it had never had.
    #[test]
    fn what_a_later_leader_committed_is_not_asked_of_an_earlier_one() {
        let judged = |leaders: &[u64]| {
            let (mut logs, mut checker) = (Logs::default(), LeaderCompleteness::default());
            for term in leaders {
                assert_eq!(checker.report(1, &elected(*term)), Ok(()));
            }
            assert_eq!(checker.report(1, &applied(2, 1)), Ok(()));
            for record in [born(), entry(1, 1), entry(2, 2)] {
                logs.durable(ReplicaId(2), &record);
            }
            let LogRecord::Ready { entries, .. } = entry(2, 2) else { return Ok(()) };
            checker.entries(&logs, ReplicaId(2), &entries)
        };
        assert_eq!(judged(&[1, 2, 3]), Ok(()));
        assert!(judged(&[1, 2]).is_err(), "committed by an earlier one while it led");
        assert!(judged(&[1]).is_err());
    }

    #[test]
    fn what_was_committed_in_later_terms_is_not_asked_of_it() {
        assert_eq!(judged(&[born()], &entry(1, 1)), Ok(()));
    }
}
