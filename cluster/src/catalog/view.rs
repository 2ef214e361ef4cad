//! The catalog as a node knows it: an immutable typed snapshot.
//!
//! A node follows the catalog by changed records ([`CatalogView::updated`])
//! and keeps the last view on disk ([`CatalogView::encode`]), so that it finds
//! its peers and routes requests without a catalog quorum. Maps are persistent:
//! a new view shares all it can with the one before.
//!
//! Invariants: a view's version never falls by an update; records of kinds it
//! does not know (tokens, those of a newer release) are passed over.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};
use rpds::RedBlackTreeMapSync;

use super::{
    encoding::{
        CLUSTER_KEY, IDS_KEY, NODE_PREFIX, SHARD_PREFIX, VOLUME_PREFIX, decode_record,
        encode_record, node_key, shard_key, volume_key,
    },
    record::{ClusterRecord, IdsRecord, NodeRecord, NodeState, ShardRecord, VolumeRecord},
};
use crate::{
    formats::{
        FrameError, FrameKind, InvalidRecord, decode_frame, encode_frame, from_bytes, to_bytes,
    },
    ids::{NodeId, ReplicaId, ShardId, TenantId, VolumeId},
    mvcc::version::Version,
};

/// Version of the view's form on disk.
pub const VIEW_VERSION: u16 = 1;
/// Largest view read from disk: 1,024 nodes and 65,536 shards of seven
/// replicas take about 20 MiB.
pub const VIEW_BYTES_MAX: usize = 64 << 20;

/// One state of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogView {
    version: Version,
    cluster: Option<Arc<ClusterRecord>>,
    ids: Option<IdsRecord>,
    nodes: RedBlackTreeMapSync<NodeId, Arc<NodeRecord>>,
    volumes: RedBlackTreeMapSync<(TenantId, String), Arc<VolumeRecord>>,
    names: RedBlackTreeMapSync<VolumeId, (TenantId, String)>,
    shards: RedBlackTreeMapSync<ShardId, Arc<ShardRecord>>,
}

/// Why a stored view cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The bytes are not a whole frame.
    #[error("the stored catalog view is damaged: {0}")]
    Frame(#[from] FrameError),
    /// Not a view, or one of its records is none.
    #[error("the stored catalog view is damaged: {0}")]
    Record(#[from] InvalidRecord),
    /// Written by a newer release.
    #[error(
        "the stored catalog view has format {found}, this release reads up to {VIEW_VERSION}: \
         start the newer release"
    )]
    NewerFormat {
        /// Format found.
        found: u16,
    },
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredView {
    version: Version,
    records: Vec<(String, Vec<u8>)>,
}

impl CatalogView {
    /// The version it reaches; ask for changes after it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cluster, once it is bootstrapped.
    pub fn cluster(&self) -> Option<&ClusterRecord> {
        self.cluster.as_deref()
    }

    /// Whether this view is young enough to know what became of a replica: it
    /// was handed out before the view's time. An older view that does not name
    /// it proves nothing.
    pub fn knows_of(&self, replica: ReplicaId) -> bool {
        self.ids.is_some_and(|ids| replica.0 < ids.replica)
    }

    /// One node, also a removed one.
    pub fn node(&self, node: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&node).map(Arc::as_ref)
    }

    /// All nodes in order of id, removed ones too.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// The nodes that take part, in order of id.
    pub fn active_nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes().filter(|node| node.state == NodeState::Active)
    }

    /// Whether a node is a member.
    pub fn is_active(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|node| node.state == NodeState::Active)
    }

    /// A volume by name.
    pub fn volume(&self, tenant: TenantId, name: &str) -> Option<&VolumeRecord> {
        self.volumes.get(&(tenant, name.to_owned())).map(Arc::as_ref)
    }

    /// A volume by id.
    pub fn volume_by_id(&self, volume: VolumeId) -> Option<&VolumeRecord> {
        self.volumes.get(self.names.get(&volume)?).map(Arc::as_ref)
    }

    /// All volumes in order of tenant and name.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.volumes.values().map(Arc::as_ref)
    }

    /// One shard.
    pub fn shard(&self, shard: ShardId) -> Option<&ShardRecord> {
        self.shards.get(&shard).map(Arc::as_ref)
    }

    /// All shards in order of id.
    pub fn shards(&self) -> impl Iterator<Item = &ShardRecord> {
        self.shards.values().map(Arc::as_ref)
    }

    /// The view after changed records; `None` deletes. A change that brings an
    /// older version than this view has is ignored as a whole.
    ///
    /// # Errors
    /// If a record is none; the old view stays good.
    pub fn updated<'a>(
        &self,
        version: Version,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, InvalidRecord> {
        let mut next = self.clone();
        if version < self.version {
            return Ok(next);
        }
        next.version = version;
        for (key, value) in changes {
            next.change(key, value)?;
        }
        Ok(next)
    }

    fn change(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), InvalidRecord> {
        if key == CLUSTER_KEY {
            self.cluster = value.map(decode_record).transpose()?.map(Arc::new);
        } else if key == IDS_KEY {
            self.ids = value.map(decode_record).transpose()?;
        } else if let Some(hex) = key.strip_prefix(NODE_PREFIX) {
            let node = NodeId::from_hex(hex).ok_or_else(|| strange_key(key))?;
            set(&mut self.nodes, node, value)?;
        } else if let Some(digits) = key.strip_prefix(SHARD_PREFIX) {
            let shard = digits.parse().map(ShardId).map_err(|_| strange_key(key))?;
            set(&mut self.shards, shard, value)?;
        } else if let Some(path) = key.strip_prefix(VOLUME_PREFIX) {
            let (tenant, name) = path.split_once('/').ok_or_else(|| strange_key(key))?;
            let tenant = tenant.parse().map(TenantId).map_err(|_| strange_key(key))?;
            self.change_volume((tenant, name.to_owned()), value)?;
        }
        Ok(())
    }

    fn change_volume(
        &mut self,
        at: (TenantId, String),
        value: Option<&[u8]>,
    ) -> Result<(), InvalidRecord> {
        if let Some(before) = self.volumes.get(&at).map(|before| before.volume) {
            self.names.remove_mut(&before);
        }
        set(&mut self.volumes, at.clone(), value)?;
        if let Some(now) = self.volumes.get(&at).map(|now| now.volume) {
            self.names.insert_mut(now, at);
        }
        Ok(())
    }

    /// The view as records, in key order: what a node answers that knows it
    /// to one that knows nothing.
    pub fn records(&self) -> Vec<(String, Vec<u8>)> {
        let cluster = self.cluster.iter().map(|c| (CLUSTER_KEY.to_owned(), encode_record(&**c)));
        let ids = self.ids.iter().map(|ids| (IDS_KEY.to_owned(), encode_record(ids)));
        let nodes = self.nodes().map(|node| (node_key(node.node), encode_record(node)));
        let shards = self.shards().map(|s| (shard_key(s.descriptor.shard), encode_record(s)));
        let volumes = self.volumes().map(|v| (volume_key(v.tenant, &v.name), encode_record(v)));
        cluster.chain(ids).chain(nodes).chain(shards).chain(volumes).collect()
    }

    /// The view as bytes for a small state file, in a checked frame.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredView { version: self.version, records: self.records() };
        encode_frame(FrameKind::NodeState, VIEW_VERSION, &to_bytes(&stored))
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer release. The node can then ask
    /// the catalog anew.
    pub fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let (header, payload) = decode_frame(bytes, VIEW_BYTES_MAX)?;
        if header.kind != FrameKind::NodeState {
            return Err(FrameError::Kind(header.kind as u16).into());
        }
        if header.version != VIEW_VERSION {
            return Err(ViewError::NewerFormat { found: header.version });
        }
        let stored: StoredView = from_bytes(payload)?;
        let records = stored.records.iter();
        let changes = records.map(|(key, value)| (key.as_str(), Some(value.as_slice())));
        Ok(Self::default().updated(stored.version, changes)?)
    }
}

fn set<K: Ord, T>(
    map: &mut RedBlackTreeMapSync<K, Arc<T>>,
    key: K,
    value: Option<&[u8]>,
) -> Result<(), InvalidRecord>
where
    T: Archive,
    T::Archived: for<'b> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'b, rkyv::rancor::Error>>
        + Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    match value {
        Some(bytes) => map.insert_mut(key, Arc::new(decode_record(bytes)?)),
        None => {
            map.remove_mut(&key);
        }
    }
    Ok(())
}

fn strange_key(key: &str) -> InvalidRecord {
    InvalidRecord(format!("strange catalog key {key}"))
}
