//! What a store asks its node. The store waits for it on its caller's thread, services
//! over it in a task.

use actors::client::{Client, ClientError};
use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::Range,
        transaction::{Keys, Put, Step, StepResult, Transaction},
        watch::Watch,
    },
};

use super::{
    error::{StorageError, StorageResult},
    kinds::{Event, KeyValue, signed},
    store::VOLUME,
};

/// Writes a key; its revision, and the key as it is then, without a value that the put
/// leaves as it is.
pub(super) async fn put(client: Client, put: Put) -> StorageResult<(i64, KeyValue)> {
    // What was written is known here: an answer has no room for the largest value.
    let value = put.value.clone().unwrap_or_default();
    let head = Step::Read(Range::of(put.key.clone()).heads());
    let transaction = Transaction::new().then(Step::Put(put)).then(head);
    let done = client.transact(VOLUME, transaction).await?;
    let written = done.results.into_iter().flatten().find_map(|result| match result {
        StepResult::Read(read) => read.items.into_iter().next(),
        StepResult::Put { .. } | StepResult::Deleted { .. } | StepResult::Nested { .. } => None,
    });
    let written = Item { value, ..written.ok_or(StorageError::NotFound)? };
    Ok((signed(done.version.0), written.into()))
}

/// Deletes keys, in as many transactions as it takes; the last revision, and what they were.
pub(super) async fn delete(client: Client, keys: Keys) -> StorageResult<(i64, Vec<KeyValue>)> {
    let deleted = client.delete_range_in_parts(VOLUME, keys, true).await?;
    let previous = deleted.previous.into_iter().map(KeyValue::from).collect();
    Ok((signed(deleted.version.0), previous))
}

/// The newest version.
pub(super) async fn now(client: Client) -> Result<Version, ClientError> {
    let first = Range::of(Keys::range("", "")).limit(1).heads();
    Ok(client.range(VOLUME, first, ReadLevel::Strong).await?.now)
}

/// What happened to keys from a revision on until now.
pub(super) async fn events(
    client: Client,
    keys: Keys,
    start_revision: i64,
) -> Result<Vec<Event>, ClientError> {
    let from = Version(u64::try_from(start_revision).unwrap_or(0).max(1));
    let now = now(client.clone()).await?;
    if from > now {
        return Ok(Vec::new());
    }
    let watch = Watch::of(keys).with_previous();
    let mut watching = client.watch(VOLUME, watch, Some(from)).await?;
    let mut events = Vec::new();
    loop {
        let happened = watching.next().await?;
        events.extend(happened.events.into_iter().map(Event::from));
        if happened.upto.is_whole() && happened.upto.version >= now {
            return Ok(events);
        }
    }
}

/// What happened to a key at a revision that changed it.
pub(super) async fn event_at(
    client: Client,
    key: Keys,
    revision: i64,
) -> Result<Option<Event>, ClientError> {
    let from = Version(u64::try_from(revision).unwrap_or(0));
    let mut watching = client.watch(VOLUME, Watch::of(key), Some(from)).await?;
    loop {
        let happened = watching.next().await?;
        if let Some(first) = happened.events.into_iter().next() {
            return Ok(Some(Event::from(first)));
        }
        if happened.upto.is_whole() && happened.upto.version >= from {
            return Ok(None);
        }
    }
}

/// Grants a lease for so many seconds.
pub(super) async fn grant(client: Client, lease_id: i64, ttl: i64) -> Result<(), ClientError> {
    let ttl_ms = u64::try_from(ttl).unwrap_or(0).saturating_mul(1_000);
    client.grant_lease(VOLUME, Some(id_of(lease_id)), ttl_ms).await.map(drop)
}

/// Begins a lease's time anew.
pub(super) async fn keep_alive(client: Client, lease_id: i64) -> Result<(), ClientError> {
    client.keep_lease_alive(VOLUME, id_of(lease_id)).await.map(drop)
}

/// Ends a lease with its keys, at one revision.
pub(super) async fn revoke(client: Client, lease_id: i64) -> Result<(), ClientError> {
    client.revoke_lease(VOLUME, id_of(lease_id)).await.map(drop)
}

/// Hangs a key on a lease and leaves its value as it is.
pub(super) async fn associate(client: Client, key: Vec<u8>, lease_id: i64) -> StorageResult<()> {
    let as_it_is = Put { value: None, ..Put::new(key, "").under(id_of(lease_id)) };
    put(client, as_it_is).await.map(drop)
}

/// A lease as etcd numbers it.
pub(super) fn id_of(lease_id: i64) -> LeaseId {
    LeaseId(lease_id.cast_unsigned())
}
