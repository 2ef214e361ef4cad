//! Writing a saved snapshot, piece by piece.
//!
//! Keys are those of one version; leases are read after them, as they are then.
//! One that ended in between is saved with the least time there is, so that its
//! keys go a moment after a restore.

use std::collections::BTreeSet;

use actors::client::{Client, ClientError};
use cluster::{
    ids::LeaseId,
    limits::{LEASE_TTL_MS_MIN, LEASES_PER_SHARD_MAX},
    mvcc::version::Version,
    request::ReadLevel,
    shard::{
        restore::SavedLease,
        saved::{BLOCK_BYTES, SavedRecord, write_header},
    },
};
use futures_util::future::try_join_all;
use sha2::{Digest, Sha256};

use super::walk::Walk;

/// Leases asked about at a time.
const LEASES_AT_ONCE: usize = 32;

/// A snapshot being saved.
pub(crate) struct Saving<'c> {
    client: &'c Client,
    volume: &'c str,
    walk: Walk<'c>,
    sum: Sha256,
    bytes: usize,
    keys: u64,
    leases: u64,
    /// The leases that keys hang on.
    named: BTreeSet<LeaseId>,
    next: Part,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Part {
    Keys,
    Leases,
    Sum,
    Nothing,
}

impl<'c> Saving<'c> {
    /// Of a volume of one shard, at its newest version.
    pub(crate) fn new(client: &'c Client, volume: &'c str) -> Self {
        Self {
            client,
            volume,
            walk: Walk::new(client, volume, ReadLevel::Strong, None),
            sum: Sha256::new(),
            bytes: 0,
            keys: 0,
            leases: 0,
            named: BTreeSet::new(),
            next: Part::Keys,
        }
    }

    /// The next bytes, a page of the store or less; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let piece = match self.next {
            Part::Keys => match self.keys().await? {
                Some(piece) => piece,
                None => self.end().await?,
            },
            Part::Leases => self.end().await?,
            Part::Sum => {
                self.next = Part::Nothing;
                return Ok(Some(std::mem::take(&mut self.sum).finalize().to_vec()));
            }
            Part::Nothing => return Ok(None),
        };
        self.sum.update(&piece);
        self.bytes += piece.len();
        Ok(Some(piece))
    }

    /// The version that is saved; zero before the first piece.
    pub(crate) fn version(&self) -> Version {
        self.walk.at.unwrap_or_default()
    }

    /// Keys and leases so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.keys, self.leases)
    }

    async fn keys(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let Some(items) = self.walk.next().await? else {
            self.next = Part::Leases;
            return Ok(None);
        };
        let mut piece = Vec::new();
        if self.bytes == 0 {
            piece.extend_from_slice(&write_header(self.version()));
        }
        for item in items {
            self.keys += 1;
            if item.lease != LeaseId(0) {
                self.named.insert(item.lease);
            }
            SavedRecord::Key(item).write(&mut piece);
        }
        Ok(Some(piece))
    }

    /// The leases, and what follows them.
    async fn end(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut piece = Vec::new();
        for lease in self.held().await? {
            self.leases += 1;
            SavedRecord::Lease(lease).write(&mut piece);
        }
        SavedRecord::End { keys: self.keys, leases: self.leases }.write(&mut piece);
        let whole = (self.bytes + piece.len()).next_multiple_of(BLOCK_BYTES);
        piece.resize(whole - self.bytes, 0);
        self.next = Part::Sum;
        Ok(piece)
    }

    /// The leases that keys hang on, and others as far as a volume takes them.
    async fn held(&self) -> Result<Vec<SavedLease>, ClientError> {
        let (listed, _) = self.client.list_leases(self.volume).await?;
        let (named, others): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|lease| self.named.contains(lease));
        let room = LEASES_PER_SHARD_MAX.saturating_sub(self.named.len());
        let wanted: Vec<LeaseId> = named.into_iter().chain(others.into_iter().take(room)).collect();
        let mut held = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(LEASES_AT_ONCE) {
            let shown = some.iter().map(|lease| self.client.show_lease(self.volume, *lease, false));
            let shown = try_join_all(shown).await?.into_iter().filter_map(|(lease, _)| lease);
            held.extend(shown.map(|view| SavedLease {
                lease: view.lease,
                ttl_ms: view.ttl_ms,
                remaining_ms: view.remaining_ms,
            }));
        }
        Ok(with_ended(held, &self.named))
    }
}

/// Those that live, and those that keys hang on though they have ended.
fn with_ended(mut held: Vec<SavedLease>, named: &BTreeSet<LeaseId>) -> Vec<SavedLease> {
    let live: BTreeSet<LeaseId> = held.iter().map(|held| held.lease).collect();
    held.extend(named.difference(&live).map(|lease| SavedLease {
        lease: *lease,
        ttl_ms: LEASE_TTL_MS_MIN,
        remaining_ms: LEASE_TTL_MS_MIN,
    }));
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leases are read after the keys, and one may end in between.
    #[test]
    fn a_snapshot_holds_every_lease_that_its_keys_hang_on() {
        let lease =
            |lease, ttl_ms| SavedLease { lease: LeaseId(lease), ttl_ms, remaining_ms: ttl_ms };
        let named = BTreeSet::from([LeaseId(7), LeaseId(8)]);
        let held = with_ended(vec![lease(5, 9_000), lease(7, 60_000)], &named);
        assert_eq!(held, [lease(5, 9_000), lease(7, 60_000), lease(8, LEASE_TTL_MS_MIN)]);
    }
}
