//! What a command does to accounts, and what accounts do to a command.
//!
//! A command is judged on the accounts that stand at its place in the log, by
//! every replica alike: what one entry takes away, the next no longer has.

use super::{Action, Outcome, Refusal, ShardRole, Step};
use crate::{
    auth::{AuthCommand, AuthOutcome, Denial, Principal, needs},
    ids::LeaseId,
    mvcc::draft::Draft,
    ports::engine::EngineError,
    shard::leases::attached_keys,
};
use std::sync::Arc;

impl Step<'_> {
    /// Why the command's principal may not do it.
    pub(super) fn denial(&self, action: &Action) -> Result<Option<Refusal>, EngineError> {
        let (accounts, principal) = (&self.root.accounts, &self.principal);
        let is_free = !accounts.is_enabled() && !needs::is_for_the_cluster(action);
        if *principal == Principal::Trusted || is_free {
            return Ok(None);
        }
        let judged = accounts
            .check(principal, &needs::of_action(action), |lease, tell| self.tell_keys(lease, tell));
        match judged {
            Ok(()) => Ok(None),
            Err(Denial::Denied(error)) => Ok(Some(Refusal::Auth(error))),
            Err(Denial::Unread(error)) => Err(error),
        }
    }

    /// Tells the keys that hang on a lease, until that is enough.
    fn tell_keys(
        &self,
        lease: LeaseId,
        tell: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), EngineError> {
        let draft = Draft::new(self.overlay, self.view, self.stamp(self.root.mark.clock));
        for key in attached_keys(self.overlay, self.view, lease)? {
            let hangs = draft.get(&key)?.is_some_and(|record| record.head.lease == lease);
            if hangs && !tell(&key) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn account(&mut self, command: &AuthCommand) -> Outcome {
        if self.root.role == ShardRole::Catalog {
            return Outcome::Refused(Refusal::WrongKind);
        }
        match Arc::make_mut(&mut self.root.accounts).change(command) {
            Ok(()) => {
                let (revision, version) = (self.root.accounts.revision(), self.root.now());
                Outcome::Auth(AuthOutcome { revision, version })
            }
            Err(error) => Outcome::Refused(Refusal::Auth(error)),
        }
    }
}
