//! Locks, and the queue that they and elections stand in.
//!
//! Whoever wants something puts a key under its prefix, hanging on a lease. The
//! version that creates the key is its place: the oldest key is first, the others
//! wait until all older ones are gone. A holder that dies loses its lease, its key
//! and its turn, in that order. It is the layout of etcd's locks and elections, so
//! holders of all doors stand in one queue.
//!
//! **A lock alone protects nothing.** A holder that was stopped for longer than its
//! lease lives goes on without knowing that another one holds by now, whoever made
//! the lock. The place in the queue is therefore a *fencing token*: it rises with
//! every holder. What the lock protects must be shown it and refuse one below the
//! highest it has seen; inside the same volume [`Lock::fence`] does that, as a
//! compare of every transaction of the holder.
//!
//! Source: etcd's concurrency package and its key layout; Jepsen's report on etcd
//! 3.4.3 about locks without a token.

use std::{future::Future, pin::pin, time::Duration};

use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::ReadLevel,
    shard::{
        leases::LeaseError,
        range::{Range, SortBy, Span},
        transaction::{Compare, Keys, Put, Relation, Step, StepResult, Target, Transaction},
        watch::{EventKind, Watch},
    },
};
use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::{Client, error::ClientError};

/// Pause after a question in a line that nobody answered.
const PAUSE: Duration = Duration::from_millis(200);

/// A place in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The key that stands for it: prefix, `/`, and the lease in hexadecimal.
    pub key: Vec<u8>,
    /// The version that created it. Rises from holder to holder: a fencing token.
    pub token: Version,
    /// The version by which this request took it: whoever takes it over by a later
    /// request under the same lease writes it anew, so the place has one owner.
    pub version: Version,
    /// Its value, if the lease stood there before.
    pub found: Option<Vec<u8>>,
}

impl Queued {
    /// The key of a lease's place under a prefix.
    pub fn place(prefix: &[u8], lease: LeaseId) -> Vec<u8> {
        [prefix, format!("/{:x}", lease.0).as_bytes()].concat()
    }

    /// All places under a prefix.
    pub fn places(prefix: &[u8]) -> Keys {
        Keys::prefix([prefix, b"/"].concat())
    }

    /// Leaves the line, unless a later request has taken the place over.
    pub fn leave(&self) -> Transaction {
        let own = Target::Modified(self.version);
        let own = Compare::new(self.key.clone(), Relation::Equal, own);
        Transaction::new().when(own).then(Step::delete(self.key.clone()))
    }
}

impl Client {
    /// Stands in line under a prefix, with a value for others to see. Whoever
    /// stands there already keeps its place, and takes it over from the request
    /// that stood there: it is written again, with the value it had.
    ///
    /// Departs from etcd, which writes nothing then: so whoever gives up an earlier
    /// request deletes the place of the later one, and two hold.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn queue_up(
        &self,
        volume: &str,
        prefix: &[u8],
        lease: LeaseId,
        value: &[u8],
    ) -> Result<Queued, ClientError> {
        let key = Queued::place(prefix, lease);
        let take_over = Put { key: key.clone(), value: None, lease: None, previous: false };
        let transaction = Transaction::new()
            .when(Compare::absent(key.clone()))
            .then(Step::Put(Put::new(key.clone(), value).under(lease)))
            .otherwise(Step::Put(take_over))
            .otherwise(Step::get(key.clone()));
        let done = self.transact(volume, transaction).await?;
        let version = done.version;
        if done.succeeded {
            return Ok(Queued { key, token: version, version, found: None });
        }
        let found = done.results.into_iter().flatten().find_map(|result| match result {
            StepResult::Read(read) => read.items.into_iter().next(),
            StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Nested { .. } => None,
        });
        let item = found.ok_or(ClientError::BadLease(LeaseError::Unknown(lease)))?;
        Ok(Queued { key, token: item.created, version, found: Some(item.value) })
    }

    /// Waits until nobody under the prefix stands before `token`; the newest
    /// version then. Nobody who could say so, a change of leader, is waited out:
    /// whoever cannot wait drops this. That the own place is still there must be
    /// asked for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn await_turn(
        &self,
        volume: &str,
        prefix: &[u8],
        token: Version,
    ) -> Result<Version, ClientError> {
        loop {
            match self.next_turn(volume, prefix, token).await {
                Ok(Some(now)) => return Ok(now),
                Ok(None) => {}
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until whoever stands next before `token` is gone; the newest version
    /// if nobody does.
    async fn next_turn(
        &self,
        volume: &str,
        prefix: &[u8],
        token: Version,
    ) -> Result<Option<Version>, ClientError> {
        let before = Span { from: Version(0), to: Version(token.0.saturating_sub(1)) };
        let last = Range { created: before, ..Range::of(Queued::places(prefix)) };
        let last = last.sorted(SortBy::Created, true).limit(1).heads();
        let found = self.range(volume, last, ReadLevel::Strong).await?;
        let Some(ahead) = found.result.items.into_iter().next() else {
            return Ok(Some(found.now));
        };
        // Only the next one ahead is watched: its end wakes one, not all.
        let watch = Watch { keys: ahead.key.into(), puts: false, deletes: true, previous: false };
        let from = Version(found.now.0 + 1);
        let mut watching = self.watch(volume, watch, Some(from)).await?;
        let gone = |kind| kind == EventKind::Delete;
        while !watching.next().await?.events.iter().any(|event| gone(event.kind)) {}
        Ok(None)
    }

    /// Takes a lock, waiting for its turn; it is lost `ttl` after it was last
    /// kept. The volume has one shard. What is dropped while it waits leaves the
    /// queue after `ttl`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lock(&self, volume: &str, name: &str, ttl: Duration) -> Result<Lock, ClientError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let granted = self.grant_lease(volume, None, ttl_ms).await?;
        let lock = Lock {
            client: self.clone(),
            volume: volume.to_owned(),
            key: Vec::new(),
            lease: granted.lease,
            token: Version(0),
            ttl: Duration::from_millis(granted.ttl_ms),
        };
        let lease = lock.lease;
        let entered = lock.enter(name.as_bytes()).await;
        if entered.is_err() {
            // At worst it ends by itself.
            drop(self.revoke_lease(volume, lease).await);
        }
        entered
    }
}

/// A lock that was held when it was returned.
#[derive(Clone, Debug)]
pub struct Lock {
    client: Client,
    volume: String,
    key: Vec<u8>,
    lease: LeaseId,
    token: Version,
    ttl: Duration,
}

impl Lock {
    async fn enter(self, name: &[u8]) -> Result<Self, ClientError> {
        let Queued { key, token, .. } =
            self.client.queue_up(&self.volume, name, self.lease, b"").await?;
        self.hold(self.client.await_turn(&self.volume, name, token)).await??;
        let lock = Self { key, token, ..self };
        if lock.is_held().await? {
            Ok(lock)
        } else {
            Err(ClientError::BadLease(LeaseError::Unknown(lock.lease)))
        }
    }

    /// The fencing token: higher than that of every holder before.
    pub fn token(&self) -> Version {
        self.token
    }

    /// The lease it hangs on.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Holds exactly while this lock is held: for transactions in its volume.
    pub fn fence(&self) -> Compare {
        Compare::new(self.key.clone(), Relation::Equal, Target::Created(self.token))
    }

    /// Whether it is held still, linearizable; it may be lost the moment after.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn is_held(&self) -> Result<bool, ClientError> {
        let range = Range::of(self.key.clone()).heads();
        let found = self.client.range(&self.volume, range, ReadLevel::Strong).await?;
        Ok(found.result.items.first().is_some_and(|item| item.created == self.token))
    }

    /// Begins its time anew.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::BadLease`] if it is lost.
    pub async fn keep(&self) -> Result<(), ClientError> {
        self.client.keep_lease_alive(&self.volume, self.lease).await.map(drop)
    }

    /// Does something and keeps the lock meanwhile. Ends early, with an error,
    /// when the lock is lost or nobody could be asked for as long as it lives.
    ///
    /// # Errors
    /// What lost it.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, ClientError> {
        match select(pin!(work), pin!(self.keep_on())).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((error, _)) => Err(error),
        }
    }

    /// Keeps it until that fails.
    async fn keep_on(&self) -> ClientError {
        let third = self.ttl / 3;
        let client = self.client.with_deadline(third);
        // Nobody knows how long ago it was kept: at once, then on.
        let mut kept = Instant::now();
        loop {
            let (asked, lives) = (Instant::now(), kept + self.ttl);
            let keep = client.keep_lease_alive(&self.volume, self.lease);
            match tokio::time::timeout_at(lives, keep).await {
                Ok(Ok(_)) => kept = asked,
                Ok(Err(error)) if error.is_retryable() => {}
                Ok(Err(error)) => return error,
                // It may have ended, and nobody could say so.
                Err(_) => return ClientError::BadLease(LeaseError::Unknown(self.lease)),
            }
            tokio::time::sleep_until((asked + third).min(kept + self.ttl)).await;
        }
    }

    /// Gives it back, with its lease.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::BadLease`] if it was lost before.
    pub async fn release(self) -> Result<(), ClientError> {
        self.client.revoke_lease(&self.volume, self.lease).await.map(drop)
    }
}
