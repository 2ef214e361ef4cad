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
//! Where the processor is what all wait for, even that is too little: a round is over
//! before many of those whom the last one answered have had their turn to ask again.
//! So a crowd gathers for [`GATHERING`] more, which makes rounds fewer and larger; who
//! comes alone right behind a crowd waits with it, once. Where the processor has time,
//! that would only delay everybody. How it stands is seen from alarms that ring late.
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

use super::{
    messages::{ReplicaMessage, ReplicaTimer},
    state::ReplicaState,
};
use crate::probe::Report;

/// Bytes of proposals that wait for no round: a few packets.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// The longest round that is waited for: several times what one takes within a site,
/// with a slow disk or a busy processor.
const ROUND_MAX: Duration = Duration::from_millis(20);

/// Proposals of a round from which on they come from a crowd: who was answered with it
/// is about to ask again.
const CROWD: usize = 8;

/// How long a crowd gathers after a round where the processor is short, and how long
/// alarms are set for.
const GATHERING: Duration = Duration::from_millis(2);

/// An alarm that takes longer than this rang late: timers round up to the next
/// millisecond, and a little more passes until the actor has its turn.
const LATE: Duration = Duration::from_micros(3_100);

/// Of the last sixteen alarms so many were late where the processor is short.
const LATE_ALARMS: u32 = 8;

/// A leader's proposals that wait.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: Vec<(Ticket, Vec<u8>, WriteLevel)>,
    bytes: usize,
    /// How many the last round had.
    last: usize,
    /// When the last one ended.
    ended: Option<Instant>,
    /// When the alarm was set that is to ring.
    alarm: Option<Instant>,
    /// Which of the last alarms rang late, a bit each.
    lates: u16,
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

    /// Whether there is a crowd that may be worth waiting for.
    fn has_crowd(&self) -> bool {
        self.last >= CROWD && self.took <= ROUND_MAX
    }

    /// Whether it gathers still.
    fn gathers(&self, now: Instant) -> bool {
        let is_over = self.ended.is_none_or(|ended| now.since(ended) >= GATHERING);
        self.has_crowd() && self.lates.count_ones() >= LATE_ALARMS && !is_over
    }

    /// The alarm rings.
    fn ring(&mut self, now: Instant) {
        if let Some(set) = self.alarm.take() {
            self.lates = self.lates << 1 | u16::from(now.since(set) > LATE);
        }
    }

    /// Whether proposals wait for a round to begin.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A proposal stands in the log.
    pub(super) fn proposed(&mut self, index: LogIndex, now: Instant) {
        self.proposed = index;
        self.timed.get_or_insert((index, now));
    }

    /// Positions were committed.
    pub(super) fn committed(&mut self, index: LogIndex, now: Instant) {
        let was_under_way = self.proposed > self.committed;
        self.committed = self.committed.max(index);
        if was_under_way && self.proposed <= self.committed {
            self.ended = Some(now);
        }
        if let Some((_, began)) = self.timed.take_if(|(timed, _)| *timed <= index) {
            self.took = now.since(began);
        }
    }

    /// Forgets what waits, and what was proposed: the leadership is over.
    pub(super) fn end(&mut self) {
        *self = Self { committed: self.committed, alarm: self.alarm, ..Self::default() };
    }
}

impl ReplicaState {
    /// Puts a command before the core, now or with the next round.
    pub(super) fn propose_in_round(&mut self, ticket: Ticket, command: Vec<u8>, level: WriteLevel) {
        self.rounds.bytes += command.len();
        self.rounds.waiting.push((ticket, command, level));
        // A weaker write does not wait for disks, so not for a round of theirs either.
        let may_wait = level == WriteLevel::Strong && self.rounds.bytes <= GATHERED_BYTES_MAX;
        if !(may_wait && self.leads() && self.waits_for_round()) {
            self.propose_all();
        }
    }

    /// A run is over: what waited for the round that it ended begins the next.
    pub(super) fn begin_next_round(&mut self) {
        if self.rounds.wait() && !self.waits_for_round() {
            self.propose_all();
        }
    }

    /// A crowd has gathered.
    pub(super) fn end_gathering(&mut self) {
        self.rounds.ring(self.world.clock.now());
        let (replica, proposals) = (self.facts.replica, self.rounds.waiting.len());
        self.begin_next_round();
        if proposals > 0 && !self.rounds.wait() {
            self.world.probe.report(Report::Gathered { replica, proposals });
        }
        self.wake();
    }

    /// Whether the next round is yet to begin; sees to it that it will.
    fn waits_for_round(&mut self) -> bool {
        if self.rounds.is_under_way() {
            return true;
        }
        let now = self.world.clock.now();
        if self.rounds.has_crowd() && self.rounds.alarm.is_none() {
            self.rounds.alarm = Some(now);
            self.myself.send_after(GATHERING, || ReplicaMessage::Timer(ReplicaTimer::Round));
        }
        self.rounds.gathers(now)
    }

    fn propose_all(&mut self) {
        self.rounds.bytes = 0;
        self.rounds.last = self.rounds.waiting.len();
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

    /// Rounds of a crowd, the last of which ended at 30 ms.
    fn crowded(lates: u16) -> Rounds {
        Rounds { last: CROWD, ended: Some(at(30)), lates, ..Rounds::default() }
    }

    #[test]
    fn a_crowd_gathers_where_the_processor_is_short() {
        assert!(crowded(0x00ff).gathers(at(31)));
        assert!(!crowded(0x00ff).gathers(at(32)), "long enough");
        assert!(!crowded(0x007f).gathers(at(31)), "the processor has time");
        let few = Rounds { last: CROWD - 1, ..crowded(0x00ff) };
        assert!(!few.gathers(at(31)), "these are few");
        let slow = Rounds { took: ROUND_MAX * 2, ..crowded(0x00ff) };
        assert!(!slow.gathers(at(31)), "rounds take long");
    }

    #[test]
    fn alarms_tell_whether_the_processor_is_short() {
        let mut rounds = crowded(0);
        let mut ring = |after_ms: u64| {
            rounds.alarm = Some(at(100));
            rounds.ring(at(100 + after_ms));
            rounds.lates.count_ones()
        };
        assert_eq!((ring(3), ring(4), ring(9)), (0, 1, 2));
        assert_eq!((0..16).map(|_| ring(2)).last(), Some(0), "they are forgotten");
        rounds.ring(at(500));
        assert_eq!(rounds.lates, 0, "none was set");
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
