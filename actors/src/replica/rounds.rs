//! Proposals that wait for the round before them.
//!
//! Raft commits in order, so what is proposed while a round is on its way to a
//! majority cannot be committed before it; it can only be written and sent earlier.
//! On a busy machine each earlier write costs all replicas a sync, a packet and a run
//! of the core for a few requests. So while a round is under way, proposals gather,
//! and go together when it is committed: one round at a time, of all that came
//! meanwhile. A lone writer never waits, nor does a write of a weaker level, nor do many bytes
//! ([`GATHERED_BYTES_MAX`]): where transfer takes the time, it must not pause. Nobody
//! waits where a round takes long ([`ROUND_MAX`]), as between distant sites: to be
//! just too late for one would cost its whole length.
//!
//! Source: group commit, as PostgreSQL's `commit_delay` with `commit_siblings`; here the
//! delay is the round that is under way anyway.

use std::time::Duration;

use cluster::{
    ids::LogIndex,
    raft::{Input, Ticket},
    request::WriteLevel,
    units::Instant,
};

use super::state::ReplicaState;

/// Bytes of proposals that wait for no round: a few packets.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// The longest round that is waited for: several times what one takes within a site,
/// with a slow disk or a busy processor.
const ROUND_MAX: Duration = Duration::from_millis(20);

/// A leader's proposals that wait.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: Vec<(Ticket, Vec<u8>, WriteLevel)>,
    bytes: usize,
    /// The last position proposed at.
    proposed: LogIndex,
    /// The last position known to be committed.
    committed: LogIndex,
    /// Of the proposal that is timed: where it stands, and since when.
    timed: Option<(LogIndex, Instant)>,
    /// How long the last one took to be committed.
    took: Duration,
}

impl Rounds {
    /// Whether there is a round that is worth waiting for.
    fn is_under_way(&self) -> bool {
        self.proposed > self.committed && self.took <= ROUND_MAX
    }

    /// A proposal stands in the log.
    pub(super) fn proposed(&mut self, index: LogIndex, now: Instant) {
        self.proposed = index;
        self.timed.get_or_insert((index, now));
    }

    /// Positions were committed.
    pub(super) fn committed(&mut self, index: LogIndex, now: Instant) {
        self.committed = self.committed.max(index);
        if let Some((_, began)) = self.timed.take_if(|(timed, _)| *timed <= index) {
            self.took = now.since(began);
        }
    }

    /// Forgets what waits, and what was proposed: the leadership is over.
    pub(super) fn end(&mut self) {
        *self = Self { committed: self.committed, ..Self::default() };
    }
}

impl ReplicaState {
    /// Puts a command before the core, now or with the next round.
    pub(super) fn propose_in_round(&mut self, ticket: Ticket, command: Vec<u8>, level: WriteLevel) {
        self.rounds.bytes += command.len();
        self.rounds.waiting.push((ticket, command, level));
        // A weaker write does not wait for disks, so not for a round of theirs either.
        let waits = level == WriteLevel::Strong
            && self.rounds.bytes <= GATHERED_BYTES_MAX
            && self.rounds.is_under_way();
        if !waits || !self.leads() {
            self.propose_all();
        }
    }

    /// A run is over: what waited for the round that it ended begins the next.
    pub(super) fn begin_next_round(&mut self) {
        if !self.rounds.is_under_way() {
            self.propose_all();
        }
    }

    fn propose_all(&mut self) {
        self.rounds.bytes = 0;
        for (ticket, command, level) in std::mem::take(&mut self.rounds.waiting) {
            let bytes = command.len();
            self.input(Input::Propose { ticket, command, level });
            self.fed(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_round_is_waited_for_unless_the_last_took_long() {
        let mut rounds = Rounds::default();
        assert!(!rounds.is_under_way(), "nothing is proposed");
        rounds.proposed(LogIndex(5), at(0));
        rounds.proposed(LogIndex(6), at(9));
        assert!(rounds.is_under_way());
        rounds.committed(LogIndex(5), at(30));
        assert!(!rounds.is_under_way(), "the first took 30 ms");
        rounds.proposed(LogIndex(7), at(31));
        rounds.committed(LogIndex(7), at(33));
        rounds.proposed(LogIndex(8), at(34));
        assert!(rounds.is_under_way(), "the way is short again");
        rounds.committed(LogIndex(8), at(35));
        assert!(!rounds.is_under_way(), "all is committed");
    }

    #[test]
    fn a_leadership_that_is_over_leaves_nothing_behind() {
        let mut rounds = Rounds::default();
        rounds.waiting.push((Ticket(1), vec![0], WriteLevel::Strong));
        rounds.proposed(LogIndex(5), at(0));
        rounds.end();
        assert!(rounds.waiting.is_empty() && !rounds.is_under_way());
    }
}
