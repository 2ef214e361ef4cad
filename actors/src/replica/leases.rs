//! A leader looks after the leases of its shard.
//!
//! It knows from its own monotonic clock when the first of them is over, and
//! wakes then; the entry it proposes is judged again by apply. While there are
//! leases it also adds to shard time every few seconds, so that the next leader
//! begins with what this one counted. A shard without leases is never woken.

use std::time::Duration;

use cluster::shard::{
    command::Action,
    leases::{CHECKPOINT, LeaseCommand},
};

use super::{
    messages::{ReplicaMessage, ReplicaTimer},
    state::ReplicaState,
};

/// Ends proposed at once; the rest follow when these are applied.
const ENDS_MAX: usize = 64;
/// Shortest time between two looks.
const LOOK_AFTER: Duration = Duration::from_millis(100);

impl ReplicaState {
    /// Arms the alarm for the lease that is over first, if this replica leads.
    pub(super) fn watch_leases(&mut self) {
        let half = self.half.read_half().filter(|_| self.leads());
        let Some(half) = half else { return };
        let Some((ends_ms, _)) = half.reader.leases().first() else { return };
        let left = Duration::from_millis(ends_ms.saturating_sub(self.shard_time_ms(&half)));
        // Their time stands still until a restore has ended.
        let left = if half.reader.check_whole().is_ok() { left } else { CHECKPOINT };
        let wait = left.clamp(LOOK_AFTER, CHECKPOINT);
        let at = self.world.clock.now() + wait;
        // One that was armed for later only looks once too often.
        if self.calls.alarm.is_none_or(|armed| at < armed) {
            self.calls.alarm = Some(at);
            self.myself.send_after(wait, || ReplicaMessage::Timer(ReplicaTimer::Leases));
        }
    }

    /// Proposes the end of what is over, or a step of shard time.
    pub(super) fn look_after_leases(&mut self) {
        self.calls.alarm = None;
        let half = self.half.read_half().filter(|_| self.leads());
        let Some(half) = half else { return };
        // What was proposed before must be known first: without a quorum it
        // would be proposed again and again.
        if !self.calls.has_own() {
            let now_ms = self.shard_time_ms(&half);
            let ends_max = if half.reader.check_whole().is_ok() { ENDS_MAX } else { 0 };
            let over: Vec<_> = half.reader.leases().over(now_ms).take(ends_max).collect();
            let counted = Duration::from_millis(now_ms - half.reader.shard_time_ms());
            if over.is_empty() && counted >= CHECKPOINT && half.reader.leases().count() > 0 {
                self.propose_own(Action::Close);
            }
            for lease in over {
                let command = LeaseCommand::Expire(lease);
                self.propose_own(Action::Lease { request: None, command });
            }
        }
        self.watch_leases();
    }
}

#[cfg(test)]
mod tests;
