//! What accounts say to a request that is read here. One that changes anything
//! is judged by apply, on every replica: it only takes its principal along.

use cluster::{
    auth::{AuthError, Need, Principal, needs},
    ports::engine::View,
    request::ShardRequest,
    shard::reader::ReadError,
};

use super::apply::ReadHalf;

/// As whom a request is asked, and what it needs.
#[derive(Debug)]
pub(super) struct Guard {
    principal: Principal,
    /// None of what apply judges, for nothing is read with it here; and of the cluster itself.
    needs: Option<Vec<Need>>,
}

impl Guard {
    /// What a request needs is of no matter to the cluster itself.
    pub(super) fn of(request: &ShardRequest) -> Self {
        let principal = request.principal.clone();
        let is_judged_here = principal != Principal::Trusted && !request.body.changes();
        let needs = is_judged_here.then(|| needs::of_body(&request.body));
        Self { principal, needs }
    }

    /// As whom a change is put before the log.
    pub(super) fn principal(&self) -> Principal {
        self.principal.clone()
    }

    /// Judges a read on the state it reads. One that is not whole is shown to nobody.
    pub(super) fn check(&self, half: &ReadHalf, view: &dyn View) -> Result<(), ReadError> {
        half.reader.check_whole()?;
        if self.principal == Principal::Trusted {
            return Ok(());
        }
        debug_assert!(self.needs.is_some(), "what apply judges reads nothing");
        let needs = self.needs.as_ref().ok_or(AuthError::Denied)?;
        half.reader.check(view, &self.principal, needs)
    }
}

#[cfg(test)]
mod tests;
