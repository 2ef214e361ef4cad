//! A leader looks after the leases of its shard.
//!
//! It knows from its own monotonic clock when the first of them is over, and
//! wakes then; the entry it proposes is judged again by apply. While there are
//! leases it also adds to shard time every few seconds, so that the next leader
//! begins with what this one counted. A shard without leases is never woken.

use std::time::Duration;

use cluster::{
    ids::LeaseId,
    limits::LEASE_KEYS_MAX,
    shard::{
        command::Action,
        leases::{CHECKPOINT, LeaseCommand},
    },
};

use super::{
    apply::ReadHalf,
    messages::{ReplicaMessage, ReplicaTimer},
    state::ReplicaState,
};

/// Ends proposed in one turn, each an entry of some hundred bytes; the rest follow
/// when these are applied. So 5,000 end in a second, and others have their turn.
const ENDS_MAX: usize = 512;
/// Keys that go with them, from which on a turn has enough: what one entry may delete.
/// The last of them may bring as many again.
const ENDED_KEYS_MAX: u32 = LEASE_KEYS_MAX;
/// Shortest time between two looks.
const LOOK_AFTER: Duration = Duration::from_millis(100);

impl ReplicaState {
    /// Arms the alarm for the lease that is over first, if this replica leads.
    pub(super) fn watch_leases(&mut self) {
        let half = self.half.read_half().filter(|_| self.leads());
        let Some(half) = half else { return };
        let Some((ends_ms, _)) = half.reader.leases().first() else { return };
        let now_ms = half.reader.lease_time_ms(self.shard_time_ms(&half));
        let left = Duration::from_millis(ends_ms.saturating_sub(now_ms));
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
            let over = over(&half, half.reader.lease_time_ms(now_ms));
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

/// What is over, as much as may end in one turn.
fn over(half: &ReadHalf, now_ms: u64) -> Vec<LeaseId> {
    let leases = half.reader.leases();
    let mut keys = 0;
    let has_room = |lease: &LeaseId| {
        let has_room = keys < ENDED_KEYS_MAX;
        keys += leases.get(*lease).map_or(0, |lease| lease.keys);
        has_room
    };
    leases.over(now_ms).take(ENDS_MAX).take_while(has_room).collect()
}

#[cfg(test)]
mod tests;
