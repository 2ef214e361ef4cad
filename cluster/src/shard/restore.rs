//! Restoring a volume of kind *single* from a saved snapshot, step by step.
//!
//! A restore is many entries of the log, for a snapshot is larger than one. It
//! begins with an entry that raises the newest and the compacted version above all
//! that was seen here or where the snapshot was saved, and marks the shard; until
//! the entry that ends it the shard answers nobody and takes nothing else. So
//! nobody sees half of it, whoever watched from a version below is told that it is
//! compacted, and a cache sees versions that it cannot take for the past.
//!
//! Keys keep what they were: when they were created and changed, how often, by
//! which lease. Their versions are all above those of this shard's own history
//! ([`Restore::base`]), so no record ever lies below one that it must hide, and
//! far below the new ones. They come in their order, so one key says how far a
//! restore has come ([`Restore::upto`]): a part that comes again is passed by, an
//! interrupted restore goes on, and a snapshot of the replica that was pinned
//! meanwhile knows which keys came after it.
//!
//! Leases come first; their time stands still until the end.
//!
//! Every step but the first names the restore that it is of ([`Begun`]), as the answer
//! to the first told it. A snapshot may be restored twice into one volume, by two
//! commands that know nothing of each other: without that the parts of one would be
//! taken for the other's, and what lies before them passed by.
//!
//! Source: etcd's `snapshot restore --bump-revision --mark-compacted`; argued in
//! `cluster/docs/decisions/2026-11-26-restore.md`.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    ids::{LeaseId, ShardId},
    mvcc::version::Version,
    request::Item,
};

/// What a restore adds to the versions at least: a watcher may stand one above
/// the newest, and must find itself below what is compacted.
pub const RESTORE_BUMP_MIN: u64 = 2;
/// What it adds usually, as etcd's documentation has it: ten thousand changes a
/// second for a day, since the snapshot was saved.
pub const RESTORE_BUMP: u64 = 1_000_000_000;

/// Names a saved snapshot: the first half of the SHA-256 of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SavedId(pub [u8; 16]);

/// Names one restore of all there ever were: a shard's versions rise with each begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Begun {
    /// In which shard: that of a volume that was created again begins as the first did.
    pub shard: ShardId,
    /// The version that its begin made the newest.
    pub version: Version,
}

/// A lease as it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SavedLease {
    /// Which.
    pub lease: LeaseId,
    /// Milliseconds it was granted for.
    pub ttl_ms: u64,
    /// Milliseconds it had left.
    pub remaining_ms: u64,
}

/// One step of a restore. Each may be done again.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RestoreCommand {
    /// Of which snapshot.
    pub saved: SavedId,
    /// What to do.
    pub step: RestoreStep,
}

/// What one step does.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum RestoreStep {
    /// Begins, in a shard without keys and leases; or tells how far it has come.
    Begin {
        /// The version that was saved.
        version: Version,
        /// What to add to the larger of both newest versions.
        bump: u64,
    },
    /// Brings leases.
    Leases(Begun, Vec<SavedLease>),
    /// Brings keys, in order, behind those that are there.
    Keys(Begun, Vec<Item>),
    /// Shows it all.
    End(Begun),
}

/// Where a restore stands after a step.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Restored {
    /// Which it is: what its next steps name.
    pub begun: Begun,
    /// The last key that is there; empty for none.
    pub upto: Vec<u8>,
    /// Whether it has ended.
    pub whole: bool,
    /// The newest version.
    pub version: Version,
}

/// The last restore of a shard: the mark that it is not whole, or was made so.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Restore {
    /// Of which snapshot.
    pub saved: SavedId,
    /// Which of them.
    pub begun: Begun,
    /// The version that was saved.
    pub version: Version,
    /// What is added to saved versions: the newest version of this shard if it
    /// has a history, else nothing.
    pub base: u64,
    /// The last key that is there; empty for none.
    pub upto: Vec<u8>,
    /// Shard time at its begin, at which the time of its leases stands still.
    pub began_ms: u64,
    /// How long it stood still, once it has ended.
    pub stood_ms: u64,
    /// Whether it has ended.
    pub whole: bool,
}

/// Why a step was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum RestoreError {
    /// The shard is not whole: it serves nobody.
    #[error("the volume is being restored and is not whole yet")]
    Underway,
    /// There are keys or leases, which a restore does not mix with its own.
    #[error("the volume is not empty: it holds keys or leases")]
    NotEmpty,
    /// The restore that is under way is of another snapshot.
    #[error("a restore of another snapshot ({0}) was begun and has not ended")]
    Another(SavedId),
    /// No restore of this snapshot is under way.
    #[error("no restore of this snapshot is under way")]
    NotBegun,
    /// The step is of a restore before the one that is under way, or was last.
    #[error(
        "this snapshot is restored anew since version {0}: the step is of a restore before that"
    )]
    BegunAnew(Version),
    /// Versions end somewhere.
    #[error("the versions of the snapshot leave no room for those to come")]
    TooFar,
    /// A part is none that a saved snapshot has.
    #[error("a part of the snapshot is not in order")]
    OutOfOrder,
    /// A key hangs on a lease that did not come before it.
    #[error("a key hangs on {0}, which the snapshot does not hold or which has too many")]
    Lease(LeaseId),
    /// More leases than a shard keeps.
    #[error("the snapshot holds more leases than a volume keeps")]
    TooManyLeases,
}

impl fmt::Display for SavedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl RestoreCommand {
    /// About the bytes it takes.
    pub fn bytes(&self) -> usize {
        match &self.step {
            RestoreStep::Begin { .. } | RestoreStep::End(_) => 0,
            RestoreStep::Leases(_, leases) => leases.len() * size_of::<SavedLease>(),
            RestoreStep::Keys(_, items) => {
                items.iter().map(|item| size_of::<Item>() + item.key.len() + item.value.len()).sum()
            }
        }
    }
}

impl Restore {
    /// Whether a key is yet to come.
    pub fn lacks(&self, key: &[u8]) -> bool {
        !self.whole && key > self.upto.as_slice()
    }

    /// The time that leases run on, at a point of shard time: it stands still while
    /// this goes on, and goes on behind by as much. All leases there are came with it
    /// or later, for it began in a shard without any.
    pub fn lease_time_ms(&self, shard_time_ms: u64) -> u64 {
        if self.whole { shard_time_ms.saturating_sub(self.stood_ms) } else { self.began_ms }
    }
}
