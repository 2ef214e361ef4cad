//! All of a store at one revision, as bytes, and back.

use std::collections::{BTreeMap, BTreeSet};

use actors::client::{Client, ClientError};
use cluster::{
    codes::ErrorCode,
    formats,
    ids::LeaseId,
    limits::LEASE_TTL_MS_MIN,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        leases::LeaseError,
        range::Range,
        transaction::{Keys, Put, Step, Transaction, TransactionError},
    },
};

use super::{
    asked,
    error::{StorageError, StorageResult},
    store::VOLUME,
};

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

/// What the bytes of a snapshot hold.
#[derive(Debug)]
pub(super) struct Snapshot {
    version: Version,
    leases: BTreeMap<LeaseId, u64>,
    items: Vec<Item>,
}

/// Reads all of a store.
pub(super) async fn take(client: Client) -> Result<Vec<u8>, ClientError> {
    let all = Range::of(Keys::range("", ""));
    let all = client.range(VOLUME, all, ReadLevel::Strong).await?;
    let (mut leases, mut after) = (Vec::new(), Some(LeaseId(0)));
    while let Some(last) = after {
        let page = client.leases_after(VOLUME, last).await?;
        leases.extend(page.leases.iter().map(|shown| (shown.lease, shown.ttl_ms)));
        after = page.next();
    }
    let leases = with_ended(leases, &all.result.items);
    let dump: Dump = (all.now, leases, all.result.items);
    let body = formats::to_versioned_bytes(SNAPSHOT_VERSION, &dump);
    Ok([&crc32c::crc32c(&body).to_le_bytes()[..], &body].concat())
}

impl Snapshot {
    /// Reads the bytes of one.
    pub(super) fn read(bytes: &[u8]) -> StorageResult<Self> {
        let bad = |cause: &str| StorageError::Snapshot(cause.to_owned());
        let (crc, body) = bytes.split_first_chunk::<4>().ok_or_else(|| bad("it is cut short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(bad("its checksum does not fit"));
        }
        let (version, leases, items): Dump = match body.split_first_chunk::<2>() {
            Some((version, dump)) if u16::from_le_bytes(*version) == SNAPSHOT_VERSION => {
                formats::from_bytes(dump).map_err(|error| StorageError::Snapshot(error.0))?
            }
            Some(_) | None => return Err(bad("it was written by another release")),
        };
        Ok(Self { version, leases: leases.into_iter().collect(), items })
    }

    /// Puts it in the place of what a store holds.
    pub(super) async fn restore(self, client: Client) -> Result<(), ClientError> {
        let now = asked::now(client.clone()).await?;
        let bump = Version(self.version.max(now).0.saturating_add(RESTORE_BUMP));
        client.delete_range_in_parts(VOLUME, Keys::range("", ""), false).await?;
        client.advance(VOLUME, bump).await?;
        for (lease, ttl_ms) in &self.leases {
            grant(&client, *lease, *ttl_ms).await?;
        }
        for part in parts(self.items) {
            put_part(&client, part, &self.leases).await?;
        }
        Ok(())
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
