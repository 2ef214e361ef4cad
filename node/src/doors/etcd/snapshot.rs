//! All of a volume in the order of its keys: to hash it, and to save it.
//!
//! A saved snapshot is *not* etcd's database file. It is
//! ```text
//! "CDBETCD1"  revision u64  { length u32, KeyValue }*  0 u32  zeros to 512 bytes
//! SHA-256 of all before
//! ```
//! numbers little-endian, keys as etcd's protocol buffers encode them: the state
//! at one revision, without history and leases. The sum at the end lies where
//! `etcdctl snapshot save` looks for one.

use actors::client::{Client, ClientError};
use cluster::{
    mvcc::version::Version,
    request::{Fault, Item, ReadLevel},
    shard::{range::Range, transaction::Keys},
};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::Status;

use super::{faults::EtcdFault, proto::etcdserverpb::SnapshotResponse, translate::key_value};

/// First bytes of a saved snapshot.
const MAGIC: &[u8; 8] = b"CDBETCD1";
/// Its length, without the sum, is a multiple of this.
const BLOCK: usize = 512;
/// Bytes of one message: an answer of the store has as many, or one largest value,
/// and a client with gRPC's own limit takes four times that.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// All keys at one version, page by page.
struct Walk<'c> {
    client: &'c Client,
    volume: &'c str,
    level: ReadLevel,
    from: Vec<u8>,
    at: Option<Version>,
    now: Version,
    done: bool,
}

impl<'c> Walk<'c> {
    fn new(client: &'c Client, volume: &'c str, level: ReadLevel, at: Option<Version>) -> Self {
        let (from, now) = (Vec::new(), Version(0));
        Self { client, volume, level, from, at, now, done: false }
    }

    /// The next keys; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Item>>, ClientError> {
        if self.done {
            return Ok(None);
        }
        let keys = Keys::range(self.from.clone(), "");
        let range = Range { at: self.at, ..Range::of(keys) };
        let read = self.client.range_page(self.volume, &range, self.level).await?;
        self.at = Some(read.at);
        self.now = self.now.max(read.now);
        match read.result.items.last() {
            Some(last) if read.result.more => self.from = [&last.key[..], &[0]].concat(),
            Some(_) | None => self.done = true,
        }
        Ok(Some(read.result.items))
    }
}

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
    let mut walk = Walk::new(client, volume, ReadLevel::Strong, None);
    let (mut sum, mut bytes) = (Sha256::new(), 0_usize);
    let mut first = true;
    while let Some(items) = walk.next().await? {
        let mut piece = Vec::new();
        if std::mem::take(&mut first) {
            piece.extend_from_slice(MAGIC);
            piece.extend_from_slice(&walk.at.unwrap_or_default().0.to_le_bytes());
        }
        for item in items {
            let record = key_value(item).encode_to_vec();
            piece.extend_from_slice(&u32::try_from(record.len()).unwrap_or(0).to_le_bytes());
            piece.extend_from_slice(&record);
        }
        if walk.done {
            piece.extend_from_slice(&0_u32.to_le_bytes());
            let whole = (bytes + piece.len()).next_multiple_of(BLOCK);
            piece.resize(whole - bytes, 0);
        }
        sum.update(&piece);
        bytes += piece.len();
        if !send(pieces, piece).await {
            return Ok(());
        }
    }
    send(pieces, sum.finalize().to_vec()).await;
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
