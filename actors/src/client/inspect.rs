//! What replicas say of themselves.

use cluster::{
    ids::ShardId,
    request::{ReplicaStatus, ShardBody, ShardResult},
};

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    write::strange_result,
};

impl Client {
    /// What a replica of a shard says of itself: its leader's, if that is known.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn inspect_shard(&self, shard: ShardId) -> Result<ReplicaStatus, ClientError> {
        let mut trial = self.trial(shard.to_string());
        loop {
            match self.ask_shard(&mut trial, shard, Who::Leader, &|| ShardBody::Inspect).await? {
                Reply::Reroute => self.renew_map(&mut trial).await?,
                Reply::Result(ShardResult::Replica(status)) => return Ok(status),
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    /// What a replica of a volume's one shard says of itself: one that knows a leader, if
    /// any does before the deadline.
    ///
    /// # Errors
    /// See [`ClientError`]; if none answers.
    pub async fn inspect(&self, volume: &str) -> Result<ReplicaStatus, ClientError> {
        let mut trial = self.trial(format!("volume {volume}"));
        let mut leaderless = None;
        loop {
            let shard = self.only_shard(&mut trial, volume).await?;
            let body = || ShardBody::Inspect;
            match self.ask_shard(&mut trial, shard, Who::Anyone, &body).await {
                Ok(Reply::Reroute) => {}
                Ok(Reply::Result(ShardResult::Replica(status))) if status.leader.is_some() => {
                    return Ok(status);
                }
                // The next round goes to those that were not asked yet.
                Ok(Reply::Result(ShardResult::Replica(status))) => leaderless = Some(status),
                Ok(Reply::Result(other)) => return Err(strange_result(&trial, &other)),
                Err(error) => return leaderless.ok_or(error),
            }
        }
    }
}
