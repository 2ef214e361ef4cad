//! What a shard is: its predicate, its epoch, its replicas.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::ids::{Epoch, NodeId, ReplicaId, ShardId, VolumeId};

/// Which keys a shard owns.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Predicate {
    /// Keys whose [`key_hash`] lies in `from..=to`.
    Hash {
        /// First hash owned.
        from: u64,
        /// Last hash owned.
        to: u64,
    },
    /// Keys in `from..to`; an empty `to` means to the end.
    Range {
        /// First key owned.
        from: Vec<u8>,
        /// First key not owned; empty for none.
        to: Vec<u8>,
    },
}

/// The pinned hash that spreads keys over the shards of a *hash* volume
/// (XXH3, 64 bits). It is part of the stored format.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

impl Predicate {
    /// Every key.
    pub fn all() -> Self {
        Self::Range { from: Vec::new(), to: Vec::new() }
    }

    /// Whether `key` belongs to the shard.
    pub fn owns(&self, key: &[u8]) -> bool {
        match self {
            Self::Hash { from, to } => (*from..=*to).contains(&key_hash(key)),
            Self::Range { from, to } => {
                key >= from.as_slice() && (to.is_empty() || key < to.as_slice())
            }
        }
    }

    /// Whether every key in `from..to` belongs to the shard; an empty `to`
    /// means to the end.
    pub fn covers(&self, first: &[u8], end: &[u8]) -> bool {
        match self {
            // Hashes of a range lie anywhere.
            Self::Hash { from, to } => (*from, *to) == (0, u64::MAX),
            Self::Range { from, to } => {
                let ends = to.is_empty() || (!end.is_empty() && end <= to.as_slice());
                ends && first >= from.as_slice()
            }
        }
    }

    /// Splits the whole hash space into `count` nearly equal parts.
    ///
    /// # Panics
    /// If `count` is zero.
    pub fn hash_parts(count: u32) -> Vec<Self> {
        let span = (u128::from(u64::MAX) + 1) / u128::from(count);
        let start = |part: u32| u64::try_from(span * u128::from(part)).unwrap_or(u64::MAX);
        (0..count)
            .map(|part| Self::Hash {
                from: start(part),
                to: if part + 1 == count { u64::MAX } else { start(part + 1) - 1 },
            })
            .collect()
    }
}

/// Part a replica plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ReplicaRole {
    /// Votes and counts for commit.
    Voter,
    /// Follows without a vote.
    Learner,
}

/// One replica of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ReplicaDescriptor {
    /// Its id.
    pub replica: ReplicaId,
    /// Where it lies.
    pub node: NodeId,
    /// Its part.
    pub role: ReplicaRole,
}

/// One shard at one epoch. The shard's own log decides it; copies of it
/// elsewhere are observations that only move forward by epoch.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ShardDescriptor {
    /// The shard.
    pub shard: ShardId,
    /// Its volume.
    pub volume: VolumeId,
    /// Number of this state.
    pub epoch: Epoch,
    /// Keys it owns.
    pub predicate: Predicate,
    /// Its replicas, sorted by id.
    pub replicas: Vec<ReplicaDescriptor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_parts_cover_every_hash_once() {
        for count in [1, 2, 3, 7, 8, 64] {
            let parts = Predicate::hash_parts(count);
            let mut next = 0u128;
            for part in &parts {
                let Predicate::Hash { from, to } = part else { panic!("not a hash part") };
                assert_eq!(u128::from(*from), next);
                next = u128::from(*to) + 1;
            }
            assert_eq!(next, 1 << 64);
        }
    }

    #[test]
    fn the_key_hash_is_pinned() {
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
    }
}
