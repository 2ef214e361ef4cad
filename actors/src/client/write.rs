//! Writes: exactly once at the strong level, blind at the weaker ones.

use std::collections::BTreeMap;

use cluster::{
    catalog::command::{CatalogCommand, CatalogOutcome},
    ids::{CATALOG_SHARD, ShardId},
    limits::{BATCH_OPS_MAX, ENTRY_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    mvcc::version::Version,
    request::{Fault, ShardBody, ShardResult, WriteLevel},
    routing::{Reaction, refusal_reaction, shard_of},
    shard::{
        command::{Op, Outcome, Refusal, SessionRequest},
        restore::RestoreError,
    },
};
use tokio::time::timeout_at;

use super::{
    Client,
    ask::{Reply, Who},
    error::ClientError,
    pool::{Leased, Pick},
    trial::Trial,
};

/// Bytes an operation takes in an entry besides its key and value.
const OP_OVERHEAD_BYTES: usize = 32;

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its version; none at the weaker levels, which answer before there is one.
    pub version: Option<Version>,
    /// How many deletes found their key; not known at the weaker levels.
    pub deleted: u32,
}

/// A batch that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchWritten {
    /// What each shard it touched answered. The batch was atomic as a whole
    /// only if there is one.
    pub parts: BTreeMap<ShardId, Written>,
}

impl BatchWritten {
    /// Whether all of it happened at once.
    pub fn is_atomic(&self) -> bool {
        self.parts.len() <= 1
    }
}

impl Client {
    /// Writes a value.
    ///
    /// # Errors
    /// See [`ClientError`]; after [`ClientError::NoQuorum`] with doubt and
    /// [`ClientError::UnknownOutcome`] it may have been written.
    pub async fn put(
        &self,
        volume: &str,
        key: &str,
        value: impl Into<Vec<u8>>,
    ) -> Result<Written, ClientError> {
        let op = Op::Put { key: key.into(), value: value.into() };
        self.write(volume, vec![op], WriteLevel::Strong).await
    }

    /// Deletes a key; one that is not there is no error.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, volume: &str, key: &str) -> Result<Written, ClientError> {
        self.write(volume, vec![Op::Delete { key: key.into() }], WriteLevel::Strong).await
    }

    /// Changes keys of one shard, all or none. Below [`WriteLevel::Strong`] a
    /// retried write may take effect twice, with other writes in between.
    ///
    /// # Errors
    /// As [`Self::put`]; a batch over several shards is [`Self::batch`].
    pub async fn write(
        &self,
        volume: &str,
        ops: Vec<Op>,
        level: WriteLevel,
    ) -> Result<Written, ClientError> {
        check(&ops)?;
        let mut trial = self.trial(format!("volume {volume}"));
        let keys = ops.first().map(|op| op.key().to_vec()).ok_or(ClientError::EmptyKey)?;
        loop {
            let shard = self.shard_for(&mut trial, volume, &keys).await?;
            if let Some(written) = self.write_to(&mut trial, shard, &ops, level).await? {
                return Ok(written);
            }
        }
    }

    /// Changes keys of any shards: atomic per shard, one shard after another
    /// at the same time, *not* atomic over shards.
    ///
    /// # Errors
    /// As [`Self::put`]; [`ClientError::PartOfBatch`] when some shards were
    /// written and another was not.
    pub async fn batch(
        &self,
        volume: &str,
        ops: Vec<Op>,
        level: WriteLevel,
    ) -> Result<BatchWritten, ClientError> {
        for op in &ops {
            check(std::slice::from_ref(op))?;
        }
        let mut by_shard: BTreeMap<ShardId, Vec<Op>> = BTreeMap::new();
        let mut trial = self.trial(format!("volume {volume}"));
        for op in ops {
            let shard = self.shard_for(&mut trial, volume, op.key()).await?;
            by_shard.entry(shard).or_default().push(op);
        }
        for ops in by_shard.values() {
            check(ops)?;
        }
        let writes = by_shard
            .into_iter()
            .map(|(shard, ops)| async move { (shard, self.write(volume, ops, level).await) });
        let answers = futures_util::future::join_all(writes).await;
        let parts = answers.len();
        let mut batch = BatchWritten { parts: BTreeMap::new() };
        let mut failure = None;
        for (shard, answer) in answers {
            match answer {
                Ok(written) => {
                    batch.parts.insert(shard, written);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(batch),
            Some(error) if parts == 1 => Err(error),
            Some(error) => Err(ClientError::PartOfBatch {
                written: batch.parts.len(),
                parts,
                failure: Box::new(error),
            }),
        }
    }

    /// The shard that owns a key.
    pub(super) async fn shard_for(
        &self,
        trial: &mut Trial,
        volume: &str,
        key: &[u8],
    ) -> Result<ShardId, ClientError> {
        loop {
            let (map, record) = self.volume(trial, volume).await?;
            if let Some(shard) = shard_of(map.shards_of(&record), key) {
                return Ok(shard.shard);
            }
            trial.note(format!("the shards of volume {volume} are not all known yet"));
            self.renew_map(trial).await?;
        }
    }

    async fn write_to(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        ops: &[Op],
        level: WriteLevel,
    ) -> Result<Option<Written>, ClientError> {
        let body = |request| ShardBody::Write { request, level, ops: ops.to_vec() };
        let result = match level {
            WriteLevel::Strong => self.once(trial, shard, &|request| body(Some(request))).await?,
            WriteLevel::Memory | WriteLevel::Eventual => {
                match self.ask_shard(trial, shard, Who::Leader, &|| body(None)).await? {
                    Reply::Reroute => None,
                    Reply::Result(result) => Some(result),
                }
            }
        };
        match result {
            None => Ok(None),
            Some(ShardResult::Outcome(Outcome::Written { version, deleted })) => {
                Ok(Some(Written { version: Some(version), deleted }))
            }
            Some(ShardResult::Accepted) => Ok(Some(Written { version: None, deleted: 0 })),
            Some(other) => Err(strange_result(trial, &other)),
        }
    }

    /// Changes the catalog, exactly once.
    pub(super) async fn change_catalog(
        &self,
        trial: &mut Trial,
        command: &CatalogCommand,
    ) -> Result<CatalogOutcome, ClientError> {
        let body =
            |request| ShardBody::Catalog { request: Some(request), command: command.clone() };
        loop {
            match self.once(trial, CATALOG_SHARD, &body).await? {
                None => {}
                Some(ShardResult::Outcome(Outcome::Catalog(CatalogOutcome::Refused(refusal)))) => {
                    return Err(ClientError::Refused(refusal));
                }
                Some(ShardResult::Outcome(Outcome::Catalog(outcome))) => return Ok(outcome),
                Some(other) => return Err(strange_result(trial, &other)),
            }
        }
    }

    /// Asks a shard under a session number until it answers; none if the shard
    /// must be found again. The number stays the same over all tries in doubt.
    pub(super) async fn once(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        body: &(dyn Fn(SessionRequest) -> ShardBody + Send + Sync),
    ) -> Result<Option<ShardResult>, ClientError> {
        loop {
            let Some(leased) = self.lease(trial, shard).await? else { return Ok(None) };
            trial.clear_doubt();
            let refusal = match self.ask_under(trial, shard, &leased, body).await? {
                Reply::Reroute => return Ok(None),
                Reply::Result(ShardResult::Outcome(Outcome::Refused(refusal))) => refusal,
                Reply::Result(result) => return Ok(Some(result)),
            };
            let session = leased.forget_session();
            if trial.in_doubt() {
                let subject = trial.subject().to_owned();
                return Err(ClientError::UnknownOutcome { subject, session });
            }
            trial.note(refusal.to_string());
        }
    }

    /// One number, over all its tries and maps: a number in doubt must not be
    /// dropped for another one, so stale maps are mended here.
    async fn ask_under(
        &self,
        trial: &mut Trial,
        shard: ShardId,
        leased: &Leased,
        body: &(dyn Fn(SessionRequest) -> ShardBody + Send + Sync),
    ) -> Result<Reply, ClientError> {
        loop {
            let reply =
                self.ask_shard(trial, shard, Who::Leader, &|| body(leased.request())).await?;
            let refusal = match reply {
                // The same shard at a newer epoch keeps its sessions.
                Reply::Reroute if trial.in_doubt() => continue,
                Reply::Result(ShardResult::Outcome(Outcome::Refused(refusal))) => refusal,
                reply @ (Reply::Reroute | Reply::Result(_)) => return Ok(reply),
            };
            match refusal_reaction(&refusal) {
                Reaction::Renew => {
                    return Ok(Reply::Result(ShardResult::Outcome(Outcome::Refused(refusal))));
                }
                Reaction::SameAfter(ms) => {
                    trial.note(refusal.to_string());
                    let pause = std::time::Duration::from_millis(u64::from(ms));
                    Box::pin(trial.pause_for(pause)).await?;
                }
                Reaction::Refresh => {
                    trial.note(refusal.to_string());
                    Box::pin(self.renew_map(trial)).await?;
                    return Ok(Reply::Reroute);
                }
                Reaction::At(_)
                | Reaction::Elsewhere { .. }
                | Reaction::Learn(_)
                | Reaction::GiveUp => return Err(refused(trial, &refusal)),
            }
        }
    }

    async fn lease(
        &self,
        trial: &mut Trial,
        shard: ShardId,
    ) -> Result<Option<Leased>, ClientError> {
        loop {
            let pick = timeout_at(trial.ends(), self.shared.pools.pick(shard)).await;
            let opening = match pick {
                Err(_) => return Err(trial.ended()),
                Ok(Pick::Leased(leased)) => return Ok(Some(leased)),
                Ok(Pick::Open(opening)) => opening,
            };
            let open = || ShardBody::OpenSession;
            match Box::pin(self.ask_shard(trial, shard, Who::Leader, &open)).await? {
                Reply::Reroute => return Ok(None),
                Reply::Result(ShardResult::Outcome(Outcome::Session(session))) => {
                    opening.done(session);
                }
                Reply::Result(other) => return Err(strange_result(trial, &other)),
            }
        }
    }

    /// Ends this client's sessions, so that they take no room until they
    /// expire. What cannot be reached at once is left to expire.
    pub async fn close(&self) {
        let closes = self.shared.pools.drain().into_iter().map(|(shard, session)| async move {
            let mut trial = self.trial("closing a session");
            let body = || ShardBody::CloseSession(session);
            // Nothing is lost when it fails: the session expires by itself.
            drop(self.ask_shard(&mut trial, shard, Who::Leader, &body).await);
        });
        futures_util::future::join_all(closes).await;
    }
}

/// Refuses before sending what no shard takes.
fn check(ops: &[Op]) -> Result<(), ClientError> {
    let mut bytes = 0;
    for op in ops {
        check_key(op.key())?;
        bytes += op.key().len() + OP_OVERHEAD_BYTES;
        match op {
            Op::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
                return Err(ClientError::ValueTooLarge { bytes: value.len() });
            }
            Op::Put { value, .. } => bytes += value.len(),
            Op::Delete { .. } => {}
        }
    }
    if ops.len() > BATCH_OPS_MAX || bytes > ENTRY_BYTES_MAX {
        return Err(ClientError::BatchTooLarge { ops: ops.len(), bytes });
    }
    Ok(())
}

/// Refuses a key no shard takes.
pub(super) fn check_key(key: &[u8]) -> Result<(), ClientError> {
    match key.len() {
        0 => Err(ClientError::EmptyKey),
        bytes if bytes > KEY_BYTES_MAX => Err(ClientError::KeyTooLong { bytes }),
        _ => Ok(()),
    }
}

pub(super) fn refused(trial: &Trial, refusal: &Refusal) -> ClientError {
    let fault = match refusal {
        Refusal::Auth(error) => Fault::Denied(*error),
        Refusal::Restore(RestoreError::Underway) => Fault::Restoring,
        Refusal::Restore(error) => return ClientError::BadRestore(*error),
        Refusal::Transaction(error) => return ClientError::BadTransaction(error.clone()),
        Refusal::Lease(error) => return ClientError::BadLease(*error),
        Refusal::UnknownOutcome(_)
        | Refusal::TooManyInFlight { .. }
        | Refusal::WrongShard
        | Refusal::InvalidKey { .. }
        | Refusal::WrongKind => Fault::Invalid(refusal.to_string()),
    };
    ClientError::Fault { subject: trial.subject().to_owned(), fault }
}

/// A result of a kind that was not asked for.
pub(super) fn strange_result(trial: &Trial, result: &ShardResult) -> ClientError {
    let kind = match result {
        ShardResult::Outcome(_) => "the outcome of another command",
        ShardResult::Accepted => "an acceptance without a version",
        ShardResult::Value(_) => "a value",
        ShardResult::Page { .. } => "a page",
        ShardResult::Range { .. } => "a range",
        ShardResult::Events(_) => "events",
        ShardResult::Lease(..) => "a lease",
        ShardResult::Leases { .. } => "leases",
        ShardResult::Auth(..) => "accounts",
        ShardResult::Replica(_) => "a replica's state",
    };
    ClientError::BadAnswer {
        subject: trial.subject().to_owned(),
        cause: format!("{kind} came instead"),
    }
}
