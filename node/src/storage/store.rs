//! The versioned store: ranges, changes, transactions, what happened, snapshots.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use actors::client::{Client, ClientError};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    codes::ErrorCode,
    formats,
    ids::LeaseId,
    limits::LEASE_TTL_MS_MIN,
    mvcc::version::Version,
    request::{Fault, Item, ReadLevel},
    shard::{
        leases::LeaseError,
        range::{self, Range},
        transaction::{Block, Compare, Keys, Put, Step, StepResult, Transaction, TransactionError},
        watch::Watch,
    },
};

use super::{
    backend::Backend,
    error::{StorageError, StorageResult},
    kinds::{Event, KeyValue, RangeResult, Revision, StorageMetrics, TxnResult, keys_of, signed},
};

/// The volume of an embedded store.
pub(super) const VOLUME: &str = "store";
/// Version of the bytes of a snapshot.
const SNAPSHOT_VERSION: u16 = 1;
/// What a restore adds to the larger of both revisions, so that a cache that saw
/// either store sees that this is a later one.
const RESTORE_BUMP: u64 = 1_000_000;
/// Keys of one transaction of a restore, and bytes of their values.
const RESTORE_KEYS: usize = 512;
const RESTORE_BYTES: usize = 1 << 20;

/// All of a store at a revision: it, the leases with their milliseconds, the keys.
type Dump = (Version, Vec<(LeaseId, u64)>, Vec<Item>);

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
    pub(super) fn run<T, F>(&self, ask: impl FnOnce(Client) -> F) -> StorageResult<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        Ok(self.backend.runtime().run(ask(self.client.clone()))??)
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
        self.read(range).map(|(result, _)| result.into())
    }

    /// A range as it was read, and the newest version then.
    fn read(&self, range: Range) -> StorageResult<(range::RangeResult, Version)> {
        let read =
            self.run(|client| async move { client.range(VOLUME, range, ReadLevel::Strong).await })?;
        Ok((read.result, read.now))
    }

    /// Writes a key, under a lease unless that is zero; its revision, and the key
    /// as it is then. A value has 4 MiB at most, as in a transaction.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] if there is no such lease;
    /// [`StorageError::InvalidArgument`] if the value is too large.
    pub fn put(&self, key: &[u8], value: &[u8], lease: i64) -> StorageResult<(i64, KeyValue)> {
        let put = Put::new(key, value).under(LeaseId(lease.cast_unsigned()));
        self.put_as(key, put)
    }

    /// The same as a put says; the key comes without a value that it leaves as it is.
    pub(super) fn put_as(&self, key: &[u8], put: Put) -> StorageResult<(i64, KeyValue)> {
        // What was written is known here: an answer has no room for the largest value.
        let value = put.value.clone();
        let head = Step::Read(Range::of(key.to_vec()).heads());
        let transaction = Transaction::new().then(Step::Put(put)).then(head);
        let done = self.run(|client| async move { client.transact(VOLUME, transaction).await })?;
        let written = done.results.into_iter().flatten().find_map(|result| match result {
            StepResult::Read(read) => read.items.into_iter().next(),
            StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Nested { .. } => None,
        });
        let written = written.ok_or(StorageError::NotFound)?;
        let written = Item { value: value.unwrap_or_default(), ..written };
        Ok((signed(done.version.0), written.into()))
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
        let deleted = self
            .run(|client| async move { client.delete_range_in_parts(VOLUME, keys, true).await })?;
        let previous = deleted.previous.into_iter().map(KeyValue::from).collect();
        Ok((signed(deleted.version.0), previous))
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
        let from = Version(u64::try_from(start_revision).unwrap_or(0).max(1));
        let now = self.now()?;
        if from > now {
            return Ok(Vec::new());
        }
        self.run(|client| async move {
            let watch = Watch::of(Keys::range("", "")).with_previous();
            let mut watching = client.watch(VOLUME, watch, Some(from)).await?;
            let mut events = Vec::new();
            loop {
                let happened = watching.next().await?;
                events.extend(happened.events.into_iter().map(Event::from));
                if happened.upto.is_whole() && happened.upto.version >= now {
                    return Ok(events);
                }
            }
        })
    }

    fn now(&self) -> StorageResult<Version> {
        Ok(self.read(Range::of(Keys::range("", "")).limit(1).heads())?.1)
    }

    /// The newest revision; zero if the node does not serve.
    pub fn current_revision(&self) -> i64 {
        self.now().map_or(0, |now| signed(now.0))
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
        let (all, now) = self.read(Range::of(Keys::range("", "")))?;
        let leases = self.run(|client| async move {
            let (mut leases, mut after) = (Vec::new(), Some(LeaseId(0)));
            while let Some(last) = after {
                let page = client.leases_after(VOLUME, last).await?;
                leases.extend(page.leases.iter().map(|shown| (shown.lease, shown.ttl_ms)));
                after = page.next();
            }
            Ok(leases)
        })?;
        let leases = with_ended(leases, &all.items);
        let dump: Dump = (now, leases, all.items);
        let body = formats::to_versioned_bytes(SNAPSHOT_VERSION, &dump);
        Ok([&crc32c::crc32c(&body).to_le_bytes()[..], &body].concat())
    }

    /// Puts what a snapshot holds in the place of what is here. The revision rises
    /// well above both, so that nobody who saw either takes this for the past:
    /// what was here is told as deletes, what comes as puts. It happens in several
    /// transactions; a store that fails on the way is to be restored again.
    ///
    /// # Errors
    /// [`StorageError::Snapshot`] if the bytes are none.
    pub fn restore(&self, snapshot: &[u8]) -> StorageResult<()> {
        let (version, leases, items) = read_dump(snapshot)?;
        let now = self.now()?;
        let bump = Version(version.0.max(now.0).saturating_add(RESTORE_BUMP));
        self.run(|client| async move {
            client.delete_range_in_parts(VOLUME, Keys::range("", ""), false).await?;
            client.advance(VOLUME, bump).await?;
            let leases: BTreeMap<_, _> = leases.into_iter().collect();
            for (lease, ttl_ms) in &leases {
                grant(&client, *lease, *ttl_ms).await?;
            }
            for part in parts(items) {
                put_part(&client, part, &leases).await?;
            }
            Ok(())
        })
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
        let counted = self.0.read(all).map(|(result, _)| result.count);
        counted.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision that changed a key last, as of a revision; zero for the newest.
    ///
    /// # Errors
    /// As [`MvccStore::range`].
    pub fn get(&self, key: &[u8], at_revision: i64) -> StorageResult<Option<Revision>> {
        let found = self.0.range(key, &[], at_revision, 1, false)?;
        let first = found.kvs.into_iter().next();
        Ok(first.map(|kv| Revision { main: kv.mod_revision, sub: 0 }))
    }
}

/// The leases of a snapshot, and those that ended between its keys and them: they
/// get the least there is, so that their keys end a moment after a restore.
fn with_ended(mut leases: Vec<(LeaseId, u64)>, items: &[Item]) -> Vec<(LeaseId, u64)> {
    let known: BTreeSet<_> = leases.iter().map(|(lease, _)| *lease).collect();
    let named: BTreeSet<_> = items.iter().map(|item| item.lease).collect();
    let ended = named.difference(&known).filter(|lease| lease.0 != 0);
    leases.extend(ended.map(|lease| (*lease, LEASE_TTL_MS_MIN)));
    leases
}

/// Grants a lease, unless it is there.
async fn grant(client: &Client, lease: LeaseId, ttl_ms: u64) -> Result<(), ClientError> {
    match client.grant_lease(VOLUME, Some(lease), ttl_ms).await {
        Err(error) if error.code() != ErrorCode::LeaseExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes part of a restore. Leases that end meanwhile, a long restore or a short
/// lease, are granted again: each of a part's keys may hang on another one.
async fn put_part(
    client: &Client,
    part: Transaction,
    leases: &BTreeMap<LeaseId, u64>,
) -> Result<(), ClientError> {
    for _ in 0..RESTORE_KEYS {
        match client.transact(VOLUME, part.clone()).await {
            Err(ClientError::BadTransaction(TransactionError::Lease(LeaseError::Unknown(
                lease,
            )))) => {
                let ttl_ms = leases.get(&lease).copied().unwrap_or(LEASE_TTL_MS_MIN);
                grant(client, lease, ttl_ms).await?;
            }
            other => return other.map(drop),
        }
    }
    client.transact(VOLUME, part).await.map(drop)
}

fn read_dump(snapshot: &[u8]) -> StorageResult<Dump> {
    let bad = |cause: &str| StorageError::Snapshot(cause.to_owned());
    let (crc, body) = snapshot.split_first_chunk::<4>().ok_or_else(|| bad("it is cut short"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(bad("its checksum does not fit"));
    }
    match body.split_first_chunk::<2>() {
        Some((version, dump)) if u16::from_le_bytes(*version) == SNAPSHOT_VERSION => {
            formats::from_bytes(dump).map_err(|error| StorageError::Snapshot(error.0))
        }
        Some(_) | None => Err(bad("it was written by another release")),
    }
}

/// Keys as transactions that the log takes.
fn parts(items: Vec<Item>) -> Vec<Transaction> {
    let mut parts = Vec::new();
    let (mut part, mut keys, mut bytes) = (Transaction::new(), 0, 0);
    for item in items {
        // Before, not after: one value more may be as large as a request.
        if keys >= RESTORE_KEYS || (keys > 0 && bytes + item.value.len() > RESTORE_BYTES) {
            parts.push(std::mem::take(&mut part));
            (keys, bytes) = (0, 0);
        }
        bytes += item.value.len();
        keys += 1;
        part = part.then(Step::Put(Put::new(item.key, item.value).under(item.lease)));
    }
    parts.extend((keys > 0).then_some(part));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: u32, bytes: usize) -> Item {
        Item {
            key: number.to_be_bytes().to_vec(),
            value: vec![7; bytes],
            value_bytes: bytes as u64,
            created: Version(2),
            modified: Version(2),
            changes: 1,
            modified_ms: 0,
            lease: LeaseId(0),
        }
    }

    /// Leases are read after the keys, and one may end in between.
    #[test]
    fn a_snapshot_names_every_lease_that_its_keys_hang_on() {
        let under = |lease| Item { lease: LeaseId(lease), ..item(1, 1) };
        let (lives, ended) = ((LeaseId(7), 60_000), (LeaseId(8), LEASE_TTL_MS_MIN));
        let leases = with_ended(vec![lives], &[under(0), under(8), under(7), under(8)]);
        assert_eq!(leases, [lives, ended]);
    }

    /// What was there before is deleted by then: a part too large is data lost.
    #[test]
    fn the_log_takes_every_part_of_a_restore() {
        let large = 4 << 20;
        let items = vec![item(1, RESTORE_BYTES - 1), item(2, large), item(3, large), item(4, 9)];
        let restored = parts(items);
        assert!(restored.iter().all(|part| part.check().is_ok()), "{}", restored.len());
        assert_eq!(restored.len(), 4);
        let many =
            parts((0..=u32::try_from(RESTORE_KEYS).unwrap_or(0)).map(|n| item(n, 1)).collect());
        assert_eq!(many.len(), 2, "no more keys than one transaction takes");
        assert!(parts(Vec::new()).is_empty());
    }
}
