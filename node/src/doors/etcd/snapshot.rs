//! All of a volume in the order of its keys: to hash it, and to save it.
//!
//! What `Snapshot` sends is no database file of etcd's, but
//! [`cluster::shard::saved`], as `cdb volume snapshot` writes it and `cdb volume
//! restore` reads it.

use actors::client::{Client, ClientError};
use cluster::{
    mvcc::version::Version,
    request::{Fault, ReadLevel},
    shard::{range::Range, transaction::Keys},
};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::{faults::EtcdFault, proto::etcdserverpb::SnapshotResponse, translate::key_value};
use crate::saved::{Saving, Walk};

/// Bytes of one message: an answer of the store has as many, or one largest value,
/// and a client with gRPC's own limit takes four times that.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 20;

/// What a member's keys hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashed {
    /// CRC-32C over all keys in order.
    pub(super) hash: u32,
    /// The version it was taken at.
    pub(super) at: Version,
    /// The newest version of the member.
    pub(super) now: Version,
    /// The compacted version, if anything was compacted.
    pub(super) compacted: Option<Version>,
}

/// Hashes what this member has at a version; at its newest if none is named.
/// Equal on all members at one version, whatever each has swept.
pub(super) async fn hash(
    client: &Client,
    volume: &str,
    at: Option<Version>,
) -> Result<Hashed, EtcdFault> {
    let mut walk = Walk::new(client, volume, ReadLevel::Eventual, at);
    let mut hash = 0;
    while let Some(items) = walk.next().await? {
        for item in items {
            hash = crc32c::crc32c_append(hash, &key_value(item).encode_length_delimited_to_vec());
        }
    }
    let (at, now) = (walk.at.unwrap_or_default(), walk.now);
    Ok(Hashed { hash, at, now, compacted: compacted(client, volume).await })
}

/// The compacted version: what a read of version zero is refused with.
async fn compacted(client: &Client, volume: &str) -> Option<Version> {
    let range = Range::of(Keys::One(vec![0])).at(Version(0)).heads();
    match client.range(volume, range, ReadLevel::Eventual).await {
        Err(ClientError::Fault { fault: Fault::Compacted { compacted, .. }, .. }) => {
            Some(compacted)
        }
        Ok(_) | Err(_) => None,
    }
}

/// Sends all of a volume to whoever saves it; ends early once that one is gone.
pub(super) async fn write_snapshot(
    client: &Client,
    volume: &str,
    pieces: &mpsc::Sender<Result<SnapshotResponse, Status>>,
) -> Result<(), EtcdFault> {
    let mut saving = Saving::new(client, volume);
    while let Some(piece) = saving.next().await? {
        if !send(pieces, piece).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether somebody still takes them.
async fn send(pieces: &mpsc::Sender<Result<SnapshotResponse, Status>>, bytes: Vec<u8>) -> bool {
    for blob in bytes.chunks(PIECE_BYTES_MAX) {
        // How much is to come is not known; etcdctl does not ask.
        let piece = SnapshotResponse { blob: blob.to_vec(), ..SnapshotResponse::default() };
        if pieces.send(Ok(piece)).await.is_err() {
            return false;
        }
    }
    true
}
