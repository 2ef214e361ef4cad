//! What the catalog stores, and under which keys.
//!
//! | key | record |
//! |---|---|
//! | `cluster` | [`ClusterRecord`] |
//! | `ids` | [`IdsRecord`] |
//! | `node/<32 hex>` | [`NodeRecord`] |
//! | `volume/<tenant>/<name>` | [`VolumeRecord`] |
//! | `shard/<20 digits>` | [`ShardRecord`] |
//! | `token/<64 hex>` | [`TokenRecord`] |
//!
//! Values are rkyv bytes with a leading `u16` version, like commands.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    ids::{ClusterId, NodeId, ReplicaId, ShardId, TenantId, VolumeId},
    membership::Boot,
    mvcc::compaction::HistoryPolicy,
    shard::descriptor::{ReplicaDescriptor, ShardDescriptor},
    units::WallTime,
};

/// The cluster itself.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its id.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: String,
    /// Certificate of its authority (DER).
    pub authority: Vec<u8>,
    /// The authority's private key, sealed; nodes hold the key to open it.
    pub authority_key_sealed: Vec<u8>,
    /// Kinds of entries every node understands.
    pub feature_level: u16,
}

/// Next ids to hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct IdsRecord {
    /// Next node number (`n1`, `n2`, …).
    pub node_number: u64,
    /// Next volume.
    pub volume: u64,
    /// Next shard.
    pub shard: u64,
    /// Next replica.
    pub replica: u64,
    /// Next tenant.
    pub tenant: u64,
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum NodeState {
    /// Takes part.
    Active,
    /// Gone for good; its id is never let in again.
    Removed,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id.
    pub node: NodeId,
    /// Its number for people: 2 for `n2`.
    pub number: u64,
    /// Where its QUIC port is reached (`host:port`).
    pub addresses: Vec<String>,
    /// Where its HTTP port is reached, if it has one.
    pub http_address: String,
    /// Failure domain.
    pub zone: String,
    /// Bytes it offers; its weight in placement.
    pub capacity_bytes: u64,
    /// Where it stands.
    pub state: NodeState,
    /// Its last registered start.
    pub boot: Boot,
}

/// How a volume spreads its keys.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// By hash of the key.
    Hash,
    /// By range of keys.
    Ordered,
    /// One shard that never splits.
    Single,
}

/// A volume's policy.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct VolumePolicy {
    /// How keys are spread.
    pub kind: VolumeKind,
    /// Voters per shard.
    pub replicas: u32,
    /// Shards it is created with.
    pub shards: u32,
    /// How much of the past it keeps.
    pub history: HistoryPolicy,
}

impl VolumePolicy {
    /// One that keeps as much of the past as is usual.
    pub fn new(kind: VolumeKind, replicas: u32, shards: u32) -> Self {
        Self { kind, replicas, shards, history: HistoryPolicy::Usual }
    }
}

/// Where a volume stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum VolumeState {
    /// Its shards are being placed.
    Creating,
    /// It serves.
    Ready,
    /// Its replicas are being destroyed.
    Deleting,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its id.
    pub volume: VolumeId,
    /// Its owner.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// Its policy.
    pub policy: VolumePolicy,
    /// Its shards.
    pub shards: Vec<ShardId>,
    /// Where it stands.
    pub state: VolumeState,
}

/// What happened to a replica that must never vote or acknowledge again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Loss {
    /// Records of it lie in a damaged extent of its log, or the log is that of
    /// a restored old image of its disk.
    Log,
    /// Its store is damaged, gone or somebody else's.
    Store,
    /// Its log cannot tell whether it lived here before, and so does not give
    /// birth to it.
    Forgotten,
    /// Its device fails to read or write: the disk is not sound.
    Device,
}

impl Loss {
    /// Whether the disk under it may hold the replica that takes its place.
    pub fn leaves_disk_sound(self) -> bool {
        match self {
            Self::Log | Self::Store | Self::Forgotten => true,
            Self::Device => false,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "its log is damaged or an old image",
            Self::Store => "its store is damaged",
            Self::Forgotten => "its log may have forgotten it",
            Self::Device => "its disk fails",
        })
    }
}

/// A replica that its node has reported lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LostReplica {
    /// Which.
    pub replica: ReplicaId,
    /// What happened.
    pub loss: Loss,
}

/// One shard: what is wanted. Replicas are created by this intent only.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The last descriptor observed from the shard's own log; at creation the
    /// first intent. At epoch zero it has no replicas and waits for placement.
    pub descriptor: ShardDescriptor,
    /// Replicas allotted to it that its log does not name yet, sorted by id.
    /// Their nodes create them empty.
    pub joining: Vec<ReplicaDescriptor>,
    /// Those of `descriptor` and `joining` that are lost, sorted by id. A lost
    /// replica is never used again; it leaves this list with the shard.
    pub lost: Vec<LostReplica>,
    /// Whether its replicas are to be destroyed. Those that are leave
    /// `descriptor` and `joining`.
    pub deleting: bool,
}

impl ShardRecord {
    /// A shard without losses or replicas on their way.
    pub fn new(descriptor: ShardDescriptor) -> Self {
        Self { descriptor, joining: Vec::new(), lost: Vec::new(), deleting: false }
    }

    /// Every replica the catalog has a place for, in the log or allotted.
    pub fn named(&self) -> impl Iterator<Item = &ReplicaDescriptor> {
        self.descriptor.replicas.iter().chain(&self.joining)
    }

    /// What happened to a replica, if it is lost.
    pub fn loss(&self, replica: ReplicaId) -> Option<Loss> {
        self.lost.iter().find(|lost| lost.replica == replica).map(|lost| lost.loss)
    }

    /// Forgets losses of replicas that are no longer named.
    pub(super) fn forget_losses(&mut self) {
        let mut lost = std::mem::take(&mut self.lost);
        lost.retain(|lost| self.named().any(|held| held.replica == lost.replica));
        self.lost = lost;
    }
}

/// A join token, stored by its hash only.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TokenRecord {
    /// End of its life.
    pub expires: WallTime,
    /// The node that used it up.
    pub used_by: Option<NodeId>,
}
