//! What a client knows of the cluster: the catalog's view, and descriptors
//! shards showed it since.
//!
//! The catalog's shard map is an observation that may lag behind a shard's own
//! log, so a descriptor learnt from a shard wins while its epoch is higher.

use std::{collections::BTreeMap, sync::Arc};

use cluster::{
    catalog::{record::VolumeRecord, view::CatalogView},
    ids::{CATALOG_SHARD, NodeId, ShardId, TenantId},
    shard::descriptor::ShardDescriptor,
};

/// One state of a client's knowledge; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    pub(super) view: Arc<CatalogView>,
    learnt: Arc<BTreeMap<ShardId, ShardDescriptor>>,
}

impl Map {
    /// The same with another view. What the view has caught up with is dropped.
    pub(super) fn with_view(&self, view: CatalogView) -> Self {
        let newer = |descriptor: &ShardDescriptor| {
            view.shard(descriptor.shard)
                .is_some_and(|record| record.descriptor.epoch < descriptor.epoch)
        };
        let learnt: BTreeMap<_, _> = self
            .learnt
            .iter()
            .filter(|(_, descriptor)| newer(descriptor))
            .map(|(shard, descriptor)| (*shard, descriptor.clone()))
            .collect();
        Self { view: Arc::new(view), learnt: Arc::new(learnt) }
    }

    /// The same with a descriptor a shard showed, if it is newer.
    pub(super) fn with_descriptor(&self, descriptor: ShardDescriptor) -> Self {
        if self.shard(descriptor.shard).is_some_and(|known| known.epoch >= descriptor.epoch) {
            return self.clone();
        }
        let mut learnt = (*self.learnt).clone();
        learnt.insert(descriptor.shard, descriptor);
        Self { view: self.view.clone(), learnt: Arc::new(learnt) }
    }

    /// The newest descriptor known of a shard.
    pub(super) fn shard(&self, shard: ShardId) -> Option<&ShardDescriptor> {
        self.learnt.get(&shard).or_else(|| self.view.shard(shard).map(|record| &record.descriptor))
    }

    /// The newest descriptors known of a volume's shards.
    pub(super) fn shards_of<'a>(
        &'a self,
        volume: &'a VolumeRecord,
    ) -> impl Iterator<Item = &'a ShardDescriptor> {
        volume.shards.iter().filter_map(|shard| self.shard(*shard))
    }

    /// A volume by name.
    pub(super) fn volume(&self, tenant: TenantId, name: &str) -> Option<&VolumeRecord> {
        self.view.volume(tenant, name)
    }

    /// Nodes that know the catalog first: its own replicas, else all members.
    pub(super) fn catalog_nodes(&self) -> Vec<NodeId> {
        match self.shard(CATALOG_SHARD) {
            Some(catalog) => catalog.replicas.iter().map(|replica| replica.node).collect(),
            None => self.view.active_nodes().map(|node| node.node).collect(),
        }
    }

    /// Where the members are reached.
    pub(super) fn addresses(&self) -> Vec<(NodeId, Vec<String>)> {
        self.view.active_nodes().map(|node| (node.node, node.addresses.clone())).collect()
    }
}
