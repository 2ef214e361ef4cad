//! Snapshots as they are fetched, piece by piece.

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    ids::{ReplicaId, ShardId},
    mvcc::version::Version,
    shard::leases::LeaseRecord,
};

/// Asks for a piece of a pinned snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotPieceRequest {
    /// The shard.
    pub shard: ShardId,
    /// The replica that asks.
    pub replica: ReplicaId,
    /// The offer.
    pub id: u64,
    /// Last position received; empty at the beginning.
    pub after: Vec<u8>,
    /// At most about so many bytes.
    pub bytes_max: u32,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotPiece {
    /// Root record of the snapshot, in every piece.
    pub root: Vec<u8>,
    /// History below this version is not all among the records; in every piece.
    pub kept_from: Version,
    /// Records in order: key, version, sub, record bytes.
    pub records: Vec<SnapshotRecord>,
    /// Leases in order; they follow the last record.
    pub leases: Vec<LeaseRecord>,
    /// Position to continue after.
    pub position: Vec<u8>,
    /// Whether this was the last piece.
    pub last: bool,
    /// Bytes sent so far and in all (estimate), for progress.
    pub progress: (u64, u64),
}

/// One version of one key inside a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: Version,
    /// Its place within that version.
    pub sub: u32,
    /// The stored record.
    pub record: Vec<u8>,
}
