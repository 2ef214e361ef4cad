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
        leases::LeaseView,
        restore::SavedLease,
        saved::{BLOCK_BYTES, SavedRecord, write_header},
    },
};
use sha2::{Digest, Sha256};

use super::walk::Walk;

/// A snapshot being saved.
pub(crate) struct Saving<'c> {
    client: &'c Client,
    volume: &'c str,
    walk: Walk<'c>,
    sum: Sha256,
    bytes: usize,
    keys: u64,
    leases: u64,
    wanted: Wanted,
    next: Part,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Part {
    Keys,
    /// Leases behind one.
    Leases(LeaseId),
    End,
    Sum,
    Nothing,
}

/// Leases to be saved: those that keys hang on, and others as far as a volume takes them.
#[derive(Default)]
struct Wanted {
    /// Those that keys hang on, of which no time is known yet.
    named: BTreeSet<LeaseId>,
    /// How many all were.
    all_named: usize,
    /// How many others were saved.
    others: usize,
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
            wanted: Wanted::default(),
            next: Part::Keys,
        }
    }

    /// The next bytes, a page of the store or less; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            let piece = match self.next {
                Part::Keys => self.keys().await?,
                Part::Leases(after) => self.leases(after).await?,
                Part::End => self.end(),
                Part::Sum => {
                    self.next = Part::Nothing;
                    return Ok(Some(std::mem::take(&mut self.sum).finalize().to_vec()));
                }
                Part::Nothing => return Ok(None),
            };
            if !piece.is_empty() {
                self.sum.update(&piece);
                self.bytes += piece.len();
                return Ok(Some(piece));
            }
        }
    }

    /// The version that is saved; zero before the first piece.
    pub(crate) fn version(&self) -> Version {
        self.walk.at.unwrap_or_default()
    }

    /// Keys and leases so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.keys, self.leases)
    }

    async fn keys(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut piece = Vec::new();
        let Some(items) = self.walk.next().await? else {
            self.next = Part::Leases(LeaseId(0));
            return Ok(piece);
        };
        if self.bytes == 0 {
            piece.extend_from_slice(&write_header(self.version()));
        }
        for item in items {
            self.keys += 1;
            self.wanted.name(item.lease);
            SavedRecord::Key(item).write(&mut piece);
        }
        Ok(piece)
    }

    async fn leases(&mut self, after: LeaseId) -> Result<Vec<u8>, ClientError> {
        let page = self.client.leases_after(self.volume, after).await?;
        self.next = page.next().map_or(Part::End, Part::Leases);
        let mut piece = Vec::new();
        for lease in page.leases.iter().filter_map(|shown| self.wanted.take(shown)) {
            self.leases += 1;
            SavedRecord::Lease(lease).write(&mut piece);
        }
        Ok(piece)
    }

    /// What follows the leases that live.
    fn end(&mut self) -> Vec<u8> {
        let mut piece = Vec::new();
        for lease in self.wanted.ended() {
            self.leases += 1;
            SavedRecord::Lease(lease).write(&mut piece);
        }
        SavedRecord::End { keys: self.keys, leases: self.leases }.write(&mut piece);
        let whole = (self.bytes + piece.len()).next_multiple_of(BLOCK_BYTES);
        piece.resize(whole - self.bytes, 0);
        self.next = Part::Sum;
        piece
    }
}

impl Wanted {
    /// A key hangs on it, unless it is none.
    fn name(&mut self, lease: LeaseId) {
        if lease != LeaseId(0) && self.named.insert(lease) {
            self.all_named += 1;
        }
    }

    /// A lease that lives, as it is to be saved.
    fn take(&mut self, shown: &LeaseView) -> Option<SavedLease> {
        if !self.named.remove(&shown.lease) {
            if self.all_named + self.others >= LEASES_PER_SHARD_MAX {
                return None;
            }
            self.others += 1;
        }
        let LeaseView { lease, ttl_ms, remaining_ms, .. } = *shown;
        Some(SavedLease { lease, ttl_ms, remaining_ms })
    }

    /// Those that keys hang on though they have ended.
    fn ended(&mut self) -> impl Iterator<Item = SavedLease> + use<> {
        let (ttl_ms, remaining_ms) = (LEASE_TTL_MS_MIN, LEASE_TTL_MS_MIN);
        let ended = std::mem::take(&mut self.named).into_iter();
        ended.map(move |lease| SavedLease { lease, ttl_ms, remaining_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leases are read after the keys, and one may end in between.
    #[test]
    fn a_snapshot_holds_every_lease_that_its_keys_hang_on() {
        let lease =
            |lease, ttl_ms| SavedLease { lease: LeaseId(lease), ttl_ms, remaining_ms: ttl_ms };
        let mut wanted = Wanted::default();
        for lease in [7, 0, 8, 7] {
            wanted.name(LeaseId(lease));
        }
        let lives = [lease(5, 9_000), lease(7, 60_000)];
        let shown = lives.map(|SavedLease { lease, ttl_ms, remaining_ms }| LeaseView {
            lease,
            ttl_ms,
            remaining_ms,
            keys: Vec::new(),
        });
        assert_eq!(shown.map(|shown| wanted.take(&shown)), lives.map(Some));
        assert_eq!(wanted.ended().collect::<Vec<_>>(), [lease(8, LEASE_TTL_MS_MIN)]);
    }
}
