//! A full disk at the replica that leads: who takes puts now, if anyone.
//!
//! Puts are refused before they are proposed; deletes go on. A leader on a full
//! disk first gives leadership to the next voter: the others may have room. If
//! they are full too, leadership goes round once, and then whoever holds it
//! says so: each replica gives it away at most once per [`HANDOVER_PAUSE`].
//! A store that is near its limit is no reason to give it away: the others hold
//! the same.

use std::time::Duration;

use cluster::{ids::ReplicaId, raft::Input, request::Fault};

use super::state::{Phase, ReplicaState};

/// Time between two handovers of one replica for a full disk: longer than
/// leadership takes to go round, short enough that room elsewhere is found.
const HANDOVER_PAUSE: Duration = Duration::from_secs(30);
/// Time one handover may take before the disk counts as full for good.
const HANDOVER_TIME: Duration = Duration::from_secs(1);
/// What an asker should wait meanwhile.
const RETRY_MS: u32 = 50;
/// What an asker should wait until somebody has looked at the store: half the
/// time between two measures.
const MEASURE_MS: u32 = 500;

impl ReplicaState {
    /// How full the disk is for a put to this shard, if it is.
    fn fullness(&self) -> Result<Option<u8>, Fault> {
        let budget = self.half.budget();
        let space = self.space.borrow().with_promised(budget.promised_bytes());
        if space.is_full() {
            return Ok(Some(space.percent_used()));
        }
        if !space.is_device_scarce() {
            return Ok(None);
        }
        // The device has its reserve only: what this store has must do. Requests
        // under way may all be for it.
        let room = self.half.own_room().ok_or(Fault::Busy { retry_after_ms: MEASURE_MS })?;
        let takes = budget.requests.bytes() as u64 <= room && room > 0;
        Ok((!takes).then(|| space.device_percent_used()))
    }

    /// Whether the limit of the store has room for puts.
    fn admit_to_store(&self) -> Result<(), Fault> {
        let (limit, grown) = self.half.limit();
        if limit.is_full() {
            return Err(Fault::StoreFull {
                node: self.world.identity.node,
                shard: self.facts.shard,
                percent_used: limit.percent_used(),
                limit_bytes: limit.limit_bytes(),
            });
        }
        // Requests under way may all be for it.
        let takes = self.half.budget().requests.bytes() as u64 <= limit.room(grown);
        if takes { Ok(()) } else { Err(Fault::Busy { retry_after_ms: MEASURE_MS }) }
    }

    /// Whether there is room for puts here.
    pub(super) fn admit_puts(&mut self) -> Result<(), Fault> {
        self.admit_to_store()?;
        let node = self.world.identity.node;
        let Some(percent_used) = self.fullness()? else { return Ok(()) };
        let full = Fault::DiskFull { node, percent_used };
        let Phase::Running(group) = &self.phase else { return Err(full) };
        let status = group.status();
        if !status.leading {
            return Err(Fault::NotLeader { leader: self.leader_node() });
        }
        let now = self.world.clock.now();
        let since = self.handed_over.map(|at| now.since(at));
        if since.is_some_and(|since| since < HANDOVER_TIME) {
            return Err(Fault::Busy { retry_after_ms: RETRY_MS });
        }
        let next = next_voter(&status.configuration.voters, self.facts.replica);
        if next.is_none() || since.is_some_and(|since| since < HANDOVER_PAUSE) {
            return Err(full);
        }
        tracing::warn!(shard = %self.facts.shard, "disk is full; another replica shall lead");
        self.handed_over = Some(now);
        self.input(Input::TransferLeader { to: next });
        Err(Fault::Busy { retry_after_ms: RETRY_MS })
    }
}

/// The voter after `own` in a ring, so that leadership visits all of them.
fn next_voter(voters: &[ReplicaId], own: ReplicaId) -> Option<ReplicaId> {
    let others = || voters.iter().copied().filter(|voter| *voter != own);
    others().filter(|voter| *voter > own).min().or_else(|| others().min())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_goes_round_all_voters() {
        let voters = [ReplicaId(9), ReplicaId(4), ReplicaId(7)];
        let next = |own| next_voter(&voters, ReplicaId(own));
        assert_eq!([next(4), next(7), next(9)], [7, 9, 4].map(|id| Some(ReplicaId(id))));
        assert_eq!(next_voter(&voters[..1], ReplicaId(9)), None);
    }
}
