//! What time demands: elections, a disk that stalls, offers, sleep.

use super::{
    core::{Effect, Effects},
    group::Group,
};
use crate::{
    ids::{LogIndex, ReplicaId, Term},
    raft::types::Message,
};

/// Ticks a leader's oldest record may wait for its disk (2 s at 100 ms) before
/// it gives leadership away: its commits wait for that disk, others' need not.
const STALL_TICKS_MAX: u64 = 20;

impl Group {
    pub(super) fn on_tick(&mut self, out: &mut Effects) {
        if self.sleep.asleep() {
            return;
        }
        self.tick += 1;
        let runs = if self.leads() { !self.sleep.agreeing() } else { self.may_campaign() };
        if runs {
            self.raw.tick();
            self.elections.settle(&mut self.raw.raft);
        }
        if self.leads() {
            self.flee_stalled_disk();
            self.tick_offers(out);
            self.tick_sleep();
        }
        self.forget();
    }

    /// Whether raft-rs can begin an election now. Not while a snapshot is being
    /// installed (it would look for entries that are gone), nor, as the only
    /// voter, with entries on their way to the disk (it would lead at once and
    /// assert that they are durable).
    pub(super) fn may_campaign(&self) -> bool {
        let raft = &self.raw.raft;
        let alone = raft.prs().is_singleton();
        let durable = raft.raft_log.persisted == raft.raft_log.last_index();
        !self.persists.installing() && self.raw.snap().is_none() && (!alone || durable)
    }

    /// Stands for election at once, if nobody leads and raft-rs can.
    pub(super) fn campaign(&mut self) {
        let raft = &self.raw.raft;
        if raft.leader_id != 0 || !raft.promotable() || !self.may_campaign() {
            return;
        }
        if let Err(error) = self.raw.campaign() {
            tracing::debug!(replica = %self.config.replica, %error, "cannot stand for election");
        }
    }

    fn flee_stalled_disk(&mut self) {
        let waited = self.persists.waited_ticks(self.tick);
        let patience = STALL_TICKS_MAX + 2 * u64::from(self.config.election_ticks);
        if self.others().is_empty() || waited < STALL_TICKS_MAX {
            return;
        }
        if waited >= patience {
            self.step_down();
        } else if self.raw.raft.lead_transferee.is_none() {
            self.hand_over(None);
        }
    }

    /// Gives leadership to `to`, or to the voter that is furthest.
    pub(super) fn hand_over(&mut self, to: Option<ReplicaId>) {
        if !self.leads() {
            return;
        }
        let own = self.config.replica;
        let voters = self.configuration.voters.iter().copied();
        let best = voters
            .filter(|id| *id != own && self.live(*id))
            .max_by_key(|id| (self.matched(*id), std::cmp::Reverse(*id)));
        if let Some(to) = to.or(best) {
            self.raw.transfer_leader(to.0);
        }
    }

    /// Follows nobody from now on.
    pub(super) fn step_down(&mut self) {
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, raft::INVALID_ID);
        self.elections.settle(&mut self.raw.raft);
    }

    fn tick_offers(&mut self, out: &mut Effects) {
        for (to, id) in self.offers.offered() {
            let progress = self.raw.raft.prs().get(to.0);
            let waits = progress.is_some_and(|seen| seen.state == raft::ProgressState::Snapshot);
            if !waits {
                self.end_offer(to, id, true, out); // caught up, or gone.
            }
        }
        for gone in self.offers.tick(self.tick, &self.heard, out) {
            self.end_offer(gone.to, gone.id, false, out);
        }
    }

    // Sleep.

    /// Nothing under way, and everybody at this replica's last position.
    fn quiet(&self) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        self.at_rest(LogIndex(last))
            && self.reads.is_idle()
            && self.proposals.is_empty()
            && !self.holds.wanted()
            && self.offers.is_empty()
            && self.fetches.is_empty()
            && raft.lead_transferee.is_none()
            && raft.commit_to_current_term()
            && !self.configuration.is_joint()
            && self.others().into_iter().all(|id| {
                raft.prs().get(id.0).is_some_and(|seen| {
                    seen.matched == last && seen.committed_index == last && self.live(id)
                })
            })
    }

    /// Own last, committed, applied and durable positions are all `index`.
    fn at_rest(&self, index: LogIndex) -> bool {
        let log = &self.raw.raft.raft_log;
        let positions = [log.last_index(), log.committed, log.applied, log.persisted];
        positions.iter().all(|position| *position == index.0)
            && self.persists.is_empty()
            && self.fetch.is_idle()
    }

    fn tick_sleep(&mut self) {
        let Some(after) = self.config.hibernate_after_ticks else { return };
        let last = LogIndex(self.raw.raft.raft_log.last_index());
        let idle_at = self.quiet().then_some(last);
        let said_heartbeat = self.raw.raft.heartbeat_elapsed() == 0;
        let patience = self.config.election_ticks / 2;
        self.sleep.tick(idle_at, said_heartbeat, after, patience);
    }

    /// Asks everybody to sleep, after the heartbeats of this turn; falls asleep
    /// when everybody agreed.
    pub(super) fn settle_sleep(&mut self, out: &mut Effects) {
        if !self.sleep.agreeing() || !self.leads() || !self.quiet() {
            return;
        }
        let others = self.others();
        let raft = &self.raw.raft;
        let (term, last) = (Term(raft.term), LogIndex(raft.raft_log.last_index()));
        if let Some(index) = self.sleep.ask() {
            let message = Message::Hibernate { term, index };
            let ask = |to: &ReplicaId| Effect::Send { to: *to, message: message.clone() };
            out.extend(others.iter().map(ask));
        }
        if self.sleep.settle(last, &others) {
            out.push(Effect::Hibernated);
        }
    }

    pub(super) fn on_hibernate(
        &mut self,
        from: ReplicaId,
        term: Term,
        index: LogIndex,
        out: &mut Effects,
    ) {
        let raft = &self.raw.raft;
        let mine = raft.leader_id == from.0 && raft.term == term.0 && !self.leads();
        if !mine || self.config.hibernate_after_ticks.is_none() || !self.at_rest(index) {
            return;
        }
        if !self.sleep.asleep() {
            self.sleep.follow();
            out.push(Effect::Hibernated);
        }
        out.push(Effect::Send { to: from, message: Message::Hibernating { term, index } });
    }

    /// Something happened. `tell` lets the leader know; its own messages are
    /// the exception.
    pub(super) fn wake(&mut self, tell: bool, out: &mut Effects) {
        if !self.sleep.asleep() {
            return;
        }
        self.sleep.disturb();
        out.push(Effect::Woke);
        // The clock stood still: nobody may be called dead for that.
        self.raw.raft.election_elapsed = 0;
        self.elections.redraw(&mut self.raw.raft);
        for heard in self.heard.values_mut() {
            *heard = self.tick;
        }
        if self.leads() {
            self.raw.ping();
        } else if let (true, Some(leader)) = (tell, self.leader()) {
            let term = Term(self.raw.raft.term);
            out.push(Effect::Send { to: leader, message: Message::Awake { term } });
        }
    }
}
