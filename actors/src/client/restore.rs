//! Restoring a volume of one shard, step by step, each exactly once.

use cluster::{
    request::{ShardBody, ShardResult},
    shard::{
        command::Outcome,
        restore::{RestoreCommand, Restored},
    },
};

use super::{Client, error::ClientError, write::strange_result};

impl Client {
    /// Does one step of a restore; where it stands then. A step may be repeated
    /// whatever became of it, by this client or another one.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::BadRestore`] if it does not fit.
    pub async fn restore_step(
        &self,
        volume: &str,
        command: &RestoreCommand,
    ) -> Result<Restored, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let body = |request| ShardBody::Restore { request, command: command.clone() };
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            match self.once(&mut trial, shard, &body).await? {
                None => {}
                Some(ShardResult::Outcome(Outcome::Restored(restored))) => return Ok(restored),
                Some(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }
}
