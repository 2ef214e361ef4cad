//! The versioned store: ranges, changes, transactions, what happened, snapshots.

use std::{future::Future, time::Duration};

use actors::client::{Client, ClientError, Ranged};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    codes::ErrorCode,
    ids::LeaseId,
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{
        range::Range,
        transaction::{Block, Compare, Keys, Put, Step, Transaction},
    },
};

use super::{
    asked,
    backend::Backend,
    error::{StorageError, StorageResult},
    kinds::{Event, KeyValue, RangeResult, Revision, StorageMetrics, TxnResult, keys_of, signed},
    snapshot::{self, Snapshot},
};

/// The volume of an embedded store.
pub(super) const VOLUME: &str = "store";

/// A store with the history of its keys. It is shared by `Arc`.
#[derive(Clone, Debug)]
pub struct MvccStore {
    backend: Backend,
    client: Client,
}

/// Where the keys of a store stand in its history.
///
/// There is no index in memory to be shown: these are reads.
#[derive(Clone, Debug)]
pub struct KeyIndex(MvccStore);

impl MvccStore {
    /// The store in a backend; made if there is none yet.
    ///
    /// # Errors
    /// If the node does not serve.
    pub fn new(backend: Backend) -> StorageResult<Self> {
        let client = backend.client()?;
        let store = Self { backend, client };
        store.run(|client| async move {
            let policy = VolumePolicy::new(VolumeKind::Single, 1, 1);
            match client.create_volume(VOLUME, policy).await {
                Err(error) if error.code() == ErrorCode::VolumeExists => Ok(()),
                made => made.map(drop),
            }
        })?;
        Ok(store)
    }

    /// Asks the node, and waits for the answer on this thread.
    pub(super) fn run<T, E, F>(&self, ask: impl FnOnce(Client) -> F) -> StorageResult<T>
    where
        T: Send + 'static,
        E: Into<StorageError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.backend.runtime().run(ask(self.client.clone()))?.map_err(Into::into)
    }

    /// The same for a task, of any runtime. What was begun goes on if nobody waits any more.
    pub(super) async fn ask<T, E, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let answer = self.backend.runtime().ask(ask(self.client.clone()));
        answer.await.map_err(StorageError::from)?
    }

    /// Begins a task in the node's runtime.
    pub(super) fn begin(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.backend.runtime().begin(task)
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    #[cfg(feature = "etcd")]
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Reads keys at a revision; zero for the newest, a limit of zero for none.
    ///
    /// # Errors
    /// [`StorageError::Mvcc`] if the revision is compacted or yet to come.
    pub fn range(
        &self,
        key: &[u8],
        range_end: &[u8],
        revision: i64,
        limit: i64,
        count_only: bool,
    ) -> StorageResult<RangeResult> {
        let range = Range::of(keys_of(key, range_end)).counted();
        let range = if count_only { range.count_only() } else { range };
        let range = range.limit(u32::try_from(limit.max(0)).unwrap_or(u32::MAX));
        let range = match u64::try_from(revision) {
            Ok(0) | Err(_) => range,
            Ok(at) => range.at(Version(at)),
        };
        self.read(range).map(|read| read.result.into())
    }

    fn read(&self, range: Range) -> StorageResult<Ranged> {
        self.run(|client| async move { client.range(VOLUME, range, ReadLevel::Strong).await })
    }

    /// Writes a key, under a lease unless that is zero; its revision, and the key
    /// as it is then. A value has 4 MiB at most, as in a transaction.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] if there is no such lease;
    /// [`StorageError::InvalidArgument`] if the value is too large.
    pub fn put(&self, key: &[u8], value: &[u8], lease: i64) -> StorageResult<(i64, KeyValue)> {
        let put = Put::new(key, value).under(LeaseId(lease.cast_unsigned()));
        self.run(|client| asked::put(client, put))
    }

    /// Deletes keys; the revision, and what they were. More than one entry of the
    /// log takes go in several, each at a revision of its own.
    ///
    /// # Errors
    /// If a bound is too long, or the node does not serve.
    pub fn delete_range(
        &self,
        key: &[u8],
        range_end: &[u8],
    ) -> StorageResult<(i64, Vec<KeyValue>)> {
        let keys = keys_of(key, range_end);
        self.run(|client| asked::delete(client, keys))
    }

    /// If all compares hold, does the first steps, else the second; at one
    /// revision, or not at all.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if a branch changes a key twice;
    /// [`StorageError::InvalidArgument`] if it is too large.
    pub fn txn(
        &self,
        compares: Vec<Compare>,
        success: Vec<Step>,
        failure: Vec<Step>,
    ) -> StorageResult<TxnResult> {
        let root = Block { compares, then: success, otherwise: failure };
        let transaction = Transaction { blocks: vec![root] };
        let done = self.run(|client| async move { client.transact(VOLUME, transaction).await })?;
        Ok(done.into())
    }

    /// All that happened from a revision on, that one included, until now, held at once;
    /// [`Self::watch`] tells it as a stream.
    ///
    /// # Errors
    /// [`StorageError::Mvcc`] if some of it is compacted.
    pub fn watch_events(&self, start_revision: i64) -> StorageResult<Vec<Event>> {
        let all = Keys::range("", "");
        self.run(|client| asked::events(client, all, start_revision))
    }

    /// The newest revision; zero if the node does not serve.
    pub fn current_revision(&self) -> i64 {
        self.run(asked::now).map_or(0, |now| signed(now.0))
    }

    /// The oldest revision that can be read; zero if nothing was compacted.
    pub fn compact_revision(&self) -> i64 {
        let first = Range::of(Keys::range("", "")).limit(1).heads().at(Version(1));
        let read = self.run(|client| async move {
            match client.range(VOLUME, first, ReadLevel::Strong).await {
                Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
                    Ok(compacted)
                }
                other => other.map(|_| Version(0)),
            }
        });
        read.map_or(0, |compacted| signed(compacted.0))
    }

    /// Lets go of the history below a revision.
    ///
    /// # Errors
    /// [`StorageError::Mvcc`] if it is compacted already, or yet to come.
    pub fn compact(&self, revision: i64) -> StorageResult<()> {
        let version = Version(u64::try_from(revision).unwrap_or(0));
        self.run(|client| async move { client.compact(VOLUME, version).await }).map(drop)
    }

    /// The store in numbers. Counting the keys walks over all of them.
    pub fn metrics(&self) -> StorageMetrics {
        StorageMetrics {
            current_revision: self.current_revision(),
            compact_revision: self.compact_revision(),
            key_count: self.key_index().len(),
            db_size_bytes: self.backend.size(),
        }
    }

    /// Where its keys stand.
    pub fn key_index(&self) -> KeyIndex {
        KeyIndex(self.clone())
    }

    /// All of it at one revision, as bytes: keys, leases, the revision. Holds it
    /// in memory: at most 256 MiB.
    ///
    /// # Errors
    /// If it is larger, or the node does not serve.
    pub fn snapshot(&self) -> StorageResult<Vec<u8>> {
        self.run(snapshot::take)
    }

    /// Puts what a snapshot holds in the place of what is here. The revision rises
    /// well above both, so that nobody who saw either takes this for the past:
    /// what was here is told as deletes, what comes as puts. It happens in several
    /// transactions; a store that fails on the way is to be restored again.
    ///
    /// # Errors
    /// [`StorageError::Snapshot`] if the bytes are none.
    pub fn restore(&self, snapshot: &[u8]) -> StorageResult<()> {
        let snapshot = Snapshot::read(snapshot)?;
        self.run(|client| snapshot.restore(client))
    }

    /// How long calls wait at most for the node.
    pub fn deadline(&self) -> Duration {
        self.client.deadline()
    }
}

impl KeyIndex {
    /// Keys at the newest revision; zero if the node does not serve.
    pub fn len(&self) -> usize {
        let all = Range::of(Keys::range("", "")).count_only();
        let counted = self.0.read(all).map(|read| read.result.count);
        counted.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision that changed a key last, as of a revision; zero for the newest. Which
    /// of its changes it was is told by the history: zero once that is compacted.
    ///
    /// # Errors
    /// As [`MvccStore::range`].
    pub fn get(&self, key: &[u8], at_revision: i64) -> StorageResult<Option<Revision>> {
        let found = self.0.range(key, &[], at_revision, 1, false)?;
        let Some(kv) = found.kvs.into_iter().next() else { return Ok(None) };
        let (keys, main) = (Keys::One(kv.key), kv.mod_revision);
        match self.0.run(|client| asked::event_at(client, keys, main)) {
            Ok(event) => Ok(event.map(|event| event.revision)),
            Err(StorageError::Mvcc(_)) => Ok(Some(Revision { main, sub: 0 })),
            Err(error) => Err(error),
        }
    }
}
