//! What a command does to a lease, and to the keys that hang on it.
//!
//! The end of a lease deletes its keys, in their order, at one version; a lease
//! without keys moves no version. Which keys they are is read from the tree
//! `leases`, and believed only if the key says so too.

use super::{Outcome, Refusal, ShardRole, Step};
use crate::{
    ids::LeaseId,
    mvcc::{draft::Draft, version::Hlc},
    ports::engine::EngineError,
    shard::leases::{LeaseCommand, LeaseError, LeaseOutcome, attached_keys},
};

impl Step<'_> {
    pub(super) fn lease(
        &mut self,
        point: Hlc,
        command: LeaseCommand,
    ) -> Result<Outcome, EngineError> {
        if self.root.role == ShardRole::Catalog {
            return Ok(Outcome::Refused(Refusal::WrongKind));
        }
        let now_ms = self.root.lease_time_ms(self.root.shard_time_ms);
        let leases = &mut self.root.leases;
        let lives = match command {
            LeaseCommand::Grant { lease, ttl_ms } => leases.grant(lease, ttl_ms, now_ms),
            LeaseCommand::KeepAlive(lease) => leases.keep_alive(lease, now_ms),
            LeaseCommand::Revoke(lease) => return self.end_lease(point, lease),
            LeaseCommand::Expire(lease) => match leases.get(lease) {
                Ok(known) if known.ends_ms <= now_ms => return self.end_lease(point, lease),
                Ok(_) | Err(_) => return Ok(Outcome::Lease(LeaseOutcome::NotDue)),
            },
        };
        Ok(match lives {
            Ok(ttl_ms) => Outcome::Lease(LeaseOutcome::Lives { ttl_ms, version: self.root.now() }),
            Err(error) => Outcome::Refused(Refusal::Lease(error)),
        })
    }

    fn end_lease(&mut self, point: Hlc, lease: LeaseId) -> Result<Outcome, EngineError> {
        if let Err(error @ LeaseError::Unknown(_)) = self.root.leases.get(lease) {
            return Ok(Outcome::Refused(Refusal::Lease(error)));
        }
        let stamp = self.stamp(point);
        let mut draft = Draft::new(self.overlay, self.view, stamp);
        let mut keys = 0;
        for key in attached_keys(self.overlay, self.view, lease)? {
            if draft.get(&key)?.is_some_and(|record| record.head.lease == lease) {
                keys += u32::from(draft.delete(&key)?);
            }
        }
        let version = self.commit(point, stamp, draft);
        self.root.leases.end(lease);
        Ok(Outcome::Lease(LeaseOutcome::Ended { version, keys }))
    }
}
