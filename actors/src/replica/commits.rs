//! A moment after a commit, a quiet leader tells its followers of it
//! (`cluster::raft`): who watches there hears of a lone write at once, and not with the
//! next heartbeat.

use std::time::Duration;

use cluster::raft::Input;

use super::{
    messages::{ReplicaMessage, ReplicaTimer},
    state::{Phase, ReplicaState},
};

/// How long a leader waits for an append that says it anyway.
const MOMENT: Duration = Duration::from_millis(1);

impl ReplicaState {
    /// A run is over: looks again in a moment if followers lack a commit.
    pub(super) fn look_after_commit(&mut self) {
        let owes = matches!(&self.phase, Phase::Running(group) if group.owes_commit());
        if owes && !self.commit_looked_after {
            self.commit_looked_after = true;
            self.myself.send_after(MOMENT, || ReplicaMessage::Timer(ReplicaTimer::Commit));
        }
    }

    /// The moment is over.
    pub(super) fn tell_committed(&mut self) {
        self.commit_looked_after = false;
        // What waits for the next round is about to say it.
        if !self.rounds.wait() {
            self.input(Input::TellCommitted);
        }
    }
}
