//! Reads of single keys, as fresh as the caller asks.

use cluster::{
    mvcc::version::Version,
    request::{Item, ReadLevel, ShardBody, ShardResult},
};

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    write::{check_key, strange_result},
};

impl Client {
    /// Reads a key, linearizable; none if it is not there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, volume: &str, key: &str) -> Result<Option<Item>, ClientError> {
        self.read(volume, key, ReadLevel::Strong, None, false).await
    }

    /// As [`Self::get`], without the value.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn stat(&self, volume: &str, key: &str) -> Result<Option<Item>, ClientError> {
        self.read(volume, key, ReadLevel::Strong, None, true).await
    }

    /// Reads a key at a level, as of a version, with or without its value.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn read(
        &self,
        volume: &str,
        key: &str,
        level: ReadLevel,
        at: Option<Version>,
        head_only: bool,
    ) -> Result<Option<Item>, ClientError> {
        check_key(key.as_bytes())?;
        let mut trial = self.trial(format!("volume {volume}"));
        let body = || ShardBody::Get { key: key.into(), level, at, head_only };
        loop {
            let shard = self.shard_for(&mut trial, volume, key.as_bytes()).await?;
            match self.ask_shard(&mut trial, shard, who(level), &body).await? {
                Reply::Reroute => {}
                Reply::Result(ShardResult::Value(item)) => return Ok(item),
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }
}

/// Who may answer a read of a level.
pub(super) fn who(level: ReadLevel) -> Who {
    match level {
        ReadLevel::Strong => Who::Leader,
        ReadLevel::Bounded { .. } | ReadLevel::Eventual => Who::Anyone,
    }
}
