//! Transactions: compare, then do one thing or another, exactly once.

use cluster::{
    ids::ShardId,
    request::{ReadLevel, ShardBody, ShardResult},
    shard::{
        command::{Outcome, Refusal},
        transaction::{Transacted, Transaction},
    },
};

use super::{
    Client,
    ask::Reply,
    error::ClientError,
    read::who,
    trial::Trial,
    write::{refused, strange_result},
};

impl Client {
    /// Does a transaction, all of it at one version or nothing. All its keys
    /// must lie in one shard: those of a volume of kind *single* always do. One that
    /// changes nothing is a read.
    ///
    /// # Errors
    /// See [`ClientError`]; after [`ClientError::NoQuorum`] with doubt and
    /// [`ClientError::UnknownOutcome`] it may have been executed.
    pub async fn transact(
        &self,
        volume: &str,
        transaction: Transaction,
    ) -> Result<Transacted, ClientError> {
        if !transaction.writes() {
            return self.look(volume, transaction, ReadLevel::Strong).await;
        }
        transaction.check().map_err(ClientError::BadTransaction)?;
        let mut trial = self.trial(format!("volume {volume}"));
        loop {
            let shard = self.shard_of_all(&mut trial, volume, &transaction).await?;
            let body = |request| ShardBody::Transact { request, transaction: transaction.clone() };
            match self.once(&mut trial, shard, &body).await? {
                None => {}
                Some(ShardResult::Outcome(Outcome::Transacted(done))) => {
                    if done.results.is_some() {
                        return Ok(done);
                    }
                    // What changed nothing may be done again, under a new number.
                    if done.changed {
                        let Transacted { version, succeeded, .. } = done;
                        return Err(ClientError::AnswerLost { version, succeeded });
                    }
                }
                Some(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    /// Does a transaction that changes nothing, at a level of reading.
    ///
    /// # Errors
    /// As [`Self::transact`]; nothing is in doubt.
    pub async fn look(
        &self,
        volume: &str,
        transaction: Transaction,
        level: ReadLevel,
    ) -> Result<Transacted, ClientError> {
        transaction.check().map_err(ClientError::BadTransaction)?;
        let mut trial = self.trial(format!("volume {volume}"));
        let body = || ShardBody::Look { transaction: transaction.clone(), level };
        loop {
            let shard = self.shard_of_all(&mut trial, volume, &transaction).await?;
            match self.ask_shard(&mut trial, shard, who(level), &body).await? {
                Reply::Reroute => {}
                Reply::Result(ShardResult::Outcome(Outcome::Transacted(done))) => return Ok(done),
                Reply::Result(ShardResult::Outcome(Outcome::Refused(Refusal::WrongShard))) => {
                    trial.note(Refusal::WrongShard.to_string());
                    Box::pin(self.renew_map(&mut trial)).await?;
                }
                Reply::Result(ShardResult::Outcome(Outcome::Refused(refusal))) => {
                    return Err(refused(&trial, &refusal));
                }
                Reply::Result(other) => return Err(strange_result(&trial, &other)),
            }
        }
    }

    /// The one shard that owns all keys of a transaction.
    async fn shard_of_all(
        &self,
        trial: &mut Trial,
        volume: &str,
        transaction: &Transaction,
    ) -> Result<ShardId, ClientError> {
        loop {
            let (map, record) = self.volume(trial, volume).await?;
            let mut shards = map.shards_of(&record);
            if let Some(shard) = shards.find(|shard| transaction.lies_in(&shard.predicate)) {
                return Ok(shard.shard);
            }
            if map.shards_of(&record).count() == record.shards.len() {
                return Err(ClientError::SpansShards { volume: volume.to_owned() });
            }
            trial.note(format!("the shards of volume {volume} are not all known yet"));
            Box::pin(self.renew_map(trial)).await?;
        }
    }
}
