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
        if *principal == Principal::Trusted {
            return Ok(None);
        }
        let judged =
            accounts.check(principal, &needs::of_action(action), |lease| self.keys_of(lease));
        match judged {
            Ok(()) => Ok(None),
            Err(Denial::Denied(error)) => Ok(Some(Refusal::Auth(error))),
            Err(Denial::Unread(error)) => Err(error),
        }
    }

    /// The keys that hang on a lease.
    fn keys_of(&self, lease: LeaseId) -> Result<Vec<Vec<u8>>, EngineError> {
        let draft = Draft::new(self.overlay, self.view, self.stamp(self.root.mark.clock));
        let mut keys = attached_keys(self.overlay, self.view, lease)?;
        let mut fault = None;
        keys.retain(|key| match draft.get(key) {
            Ok(record) => record.is_some_and(|record| record.head.lease == lease),
            Err(error) => fault.replace(error).is_some(),
        });
        fault.map_or(Ok(keys), Err)
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
