//! Changes of configuration, from the wish to the end of the joint state.
//!
//! A change is taken only from a leader that has committed an entry of its
//! term, with no other change under way; learners must have caught up before
//! they vote. Whoever leads finds the joint configuration and finishes it, also
//! one that an earlier leader began. A leader that is to lose its vote hands
//! over first, and the next one finishes.

use raft::ProgressState;

use super::{
    configuration::to_conf_change,
    core::{ChangeRefusal, Effect, Effects, Ticket},
    group::Group,
};
use crate::{
    formats,
    ids::{Epoch, LogIndex, ReplicaId, Term},
    raft::types::{ConfigurationChange, ConfigurationStep},
};

/// Entries a learner may lack when it becomes a voter: less than what one
/// append message of small entries carries, so it can acknowledge at once.
const PROMOTE_LAG_MAX: u64 = 1_024;

impl Group {
    pub(super) fn on_configure(
        &mut self,
        ticket: Ticket,
        change: &ConfigurationChange,
        out: &mut Effects,
    ) {
        self.wake(true, out);
        self.propose_waiting(out);
        if !self.leads() {
            return out.push(Effect::Dropped { ticket, leader: self.leader() });
        }
        if let Err(why) = self.judge(change) {
            return out.push(Effect::Refused { ticket, why });
        }
        match self.propose_change(change) {
            Some((term, index)) => out.push(Effect::Proposed { ticket, term, index }),
            None => out.push(Effect::Dropped { ticket, leader: self.leader() }),
        }
    }

    fn judge(&self, change: &ConfigurationChange) -> Result<(), ChangeRefusal> {
        if !self.raw.raft.commit_to_current_term() {
            return Err(ChangeRefusal::NotReady);
        }
        if self.raw.raft.has_pending_conf() || self.configuration.is_joint() {
            return Err(ChangeRefusal::Pending);
        }
        if change.epoch <= self.epoch {
            return Err(ChangeRefusal::StaleEpoch { named: change.epoch, present: self.epoch });
        }
        for step in &change.steps {
            match step {
                ConfigurationStep::Voter(id, _) => self.judge_promotion(*id)?,
                ConfigurationStep::Learner(..) | ConfigurationStep::Remove(_) => {}
            }
        }
        let next = self.configuration.after(change).map_err(ChangeRefusal::Invalid)?;
        let mut settled = next.clone();
        settled.outgoing.clear();
        if settled.voters.is_empty() {
            return Err(ChangeRefusal::Invalid(super::ConfigurationFault::NoVoter));
        }
        Ok(())
    }

    fn judge_promotion(&self, replica: ReplicaId) -> Result<(), ChangeRefusal> {
        if self.configuration.is_voter(replica) {
            return Ok(());
        }
        if self.configuration.learners.binary_search(&replica).is_err() {
            return Err(ChangeRefusal::NotLearner(replica));
        }
        let progress = self.raw.raft.prs().get(replica.0);
        let replicating = progress.is_some_and(|seen| seen.state == ProgressState::Replicate);
        let lag = self.raw.raft.raft_log.last_index() - self.matched(replica).0;
        if !replicating || lag > PROMOTE_LAG_MAX {
            return Err(ChangeRefusal::Lagging { replica, lag });
        }
        Ok(())
    }

    /// Puts a change into the log; none if raft-rs would not have it.
    fn propose_change(&mut self, change: &ConfigurationChange) -> Option<(Term, LogIndex)> {
        let index = self.raw.raft.raft_log.last_index() + 1;
        let context = formats::to_bytes(change);
        self.raw.propose_conf_change(context, to_conf_change(change)).ok()?;
        Some((Term(self.raw.raft.term), LogIndex(index)))
    }

    /// Leaves a joint configuration once it is applied.
    pub(super) fn finish_joint(&mut self) {
        let raft = &self.raw.raft;
        if !self.configuration.is_joint()
            || !self.leads()
            || raft.has_pending_conf()
            || raft.lead_transferee.is_some()
            || !raft.commit_to_current_term()
        {
            return;
        }
        if self.configuration.voters.binary_search(&self.config.replica).is_err() {
            return self.hand_over(None);
        }
        let epoch = Epoch(self.epoch.0 + 1);
        // Dropped only while handing over; the next leader finds it again.
        self.propose_change(&ConfigurationChange { epoch, steps: Vec::new() });
    }
}
