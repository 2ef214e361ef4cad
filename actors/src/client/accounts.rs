//! Accounts of a volume: users, roles, permissions, and whether they are in force.

use cluster::{
    auth::{AuthCommand, AuthOutcome, AuthQuery, AuthView},
    mvcc::version::Version,
    request::{ShardBody, ShardResult},
    shard::command::Outcome,
};

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    write::strange_result,
};

impl Client {
    /// Changes accounts of a volume of one shard, exactly once.
    ///
    /// # Errors
    /// See [`ClientError`]; [`cluster::request::Fault::Denied`] if accounts
    /// refuse it.
    pub async fn change_accounts(
        &self,
        volume: &str,
        command: AuthCommand,
    ) -> Result<AuthOutcome, ClientError> {
        let mut trial = self.trial(format!("accounts of volume {volume}"));
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            let body = |request| ShardBody::Auth { request, command: command.clone() };
            match self.once(&mut trial, shard, &body).await? {
                None => {}
                Some(ShardResult::Outcome(Outcome::Auth(outcome))) => return Ok(outcome),
                Some(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    /// Asks about accounts, linearizable; the answer and the newest version.
    ///
    /// # Errors
    /// As [`Self::change_accounts`].
    pub async fn ask_accounts(
        &self,
        volume: &str,
        query: AuthQuery,
    ) -> Result<(AuthView, Version), ClientError> {
        let mut trial = self.trial(format!("accounts of volume {volume}"));
        let body = || ShardBody::ShowAuth(query.clone());
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            match self.ask_shard(&mut trial, shard, Who::Leader, &body).await? {
                Reply::Reroute => {}
                Reply::Result(ShardResult::Auth(view, version)) => return Ok((view, version)),
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }
}
