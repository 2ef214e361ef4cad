//! What accounts say to a request that is read here. One that changes anything
//! is judged by apply, on every replica: it only takes its principal along.

use cluster::{
    auth::{Need, Principal, needs},
    ports::engine::View,
    request::ShardRequest,
    shard::reader::ReadError,
};

use super::apply::ReadHalf;

/// As whom a request is asked, and what it needs.
#[derive(Debug)]
pub(super) struct Guard {
    principal: Principal,
    needs: Vec<Need>,
}

impl Guard {
    /// What a request needs is of no matter to the cluster itself.
    pub(super) fn of(request: &ShardRequest) -> Self {
        let principal = request.principal.clone();
        let trusted = principal == Principal::Trusted;
        let needs = if trusted { Vec::new() } else { needs::of_body(&request.body) };
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
        half.reader.check(view, &self.principal, &self.needs)
    }
}

#[cfg(test)]
mod tests;
