//! Typed reading and writing of the catalog's records.

use super::{CatalogRecords, Stop};
use crate::{
    catalog::{
        command::CatalogRefusal,
        encoding::{
            CLUSTER_KEY, IDS_KEY, NODE_PREFIX, SHARD_PREFIX, TOKEN_PREFIX, VOLUME_PREFIX,
            decode_record, encode_record, node_key, shard_key, token_key, volume_key,
        },
        record::{
            ClusterRecord, IdsRecord, NodeRecord, NodeState, ShardRecord, TokenRecord, VolumeRecord,
        },
    },
    ids::{NodeId, ShardId, TenantId, VolumeId},
};

/// The records, typed.
pub(super) struct Ledger<'a> {
    records: &'a mut dyn CatalogRecords,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(records: &'a mut dyn CatalogRecords) -> Self {
        Self { records }
    }

    pub(super) fn cluster(&self) -> Result<Option<ClusterRecord>, Stop> {
        let bytes = self.records.get(CLUSTER_KEY)?;
        Ok(bytes.map(|bytes| decode_record(&bytes)).transpose()?)
    }

    pub(super) fn put_cluster(&mut self, record: &ClusterRecord) {
        self.records.put(CLUSTER_KEY.into(), encode_record(record));
    }

    /// Next ids; refused before bootstrap, when there are none.
    pub(super) fn ids(&self) -> Result<IdsRecord, Stop> {
        match self.records.get(IDS_KEY)? {
            Some(bytes) => Ok(decode_record(&bytes)?),
            None => Err(Stop::invalid("the cluster is not bootstrapped yet")),
        }
    }

    pub(super) fn put_ids(&mut self, record: &IdsRecord) {
        self.records.put(IDS_KEY.into(), encode_record(record));
    }

    pub(super) fn node(&self, node: NodeId) -> Result<Option<NodeRecord>, Stop> {
        let bytes = self.records.get(&node_key(node))?;
        Ok(bytes.map(|bytes| decode_record(&bytes)).transpose()?)
    }

    /// A node that takes part.
    pub(super) fn active_node(&self, node: NodeId) -> Result<NodeRecord, Stop> {
        let record = self.node(node)?.ok_or(CatalogRefusal::UnknownNode(node))?;
        match record.state {
            NodeState::Active => Ok(record),
            NodeState::Removed => Err(CatalogRefusal::RemovedNode(node).into()),
        }
    }

    pub(super) fn nodes(&self) -> Result<Vec<NodeRecord>, Stop> {
        let found = self.records.list(NODE_PREFIX)?;
        found.iter().map(|(_, bytes)| Ok(decode_record(bytes)?)).collect()
    }

    pub(super) fn put_node(&mut self, record: &NodeRecord) {
        self.records.put(node_key(record.node), encode_record(record));
    }

    pub(super) fn token(&self, hash: &[u8; 32]) -> Result<Option<TokenRecord>, Stop> {
        let bytes = self.records.get(&token_key(hash))?;
        Ok(bytes.map(|bytes| decode_record(&bytes)).transpose()?)
    }

    pub(super) fn tokens(&self) -> Result<Vec<(String, TokenRecord)>, Stop> {
        let found = self.records.list(TOKEN_PREFIX)?;
        found.into_iter().map(|(key, bytes)| Ok((key, decode_record(&bytes)?))).collect()
    }

    pub(super) fn put_token(&mut self, hash: &[u8; 32], record: &TokenRecord) {
        self.records.put(token_key(hash), encode_record(record));
    }

    pub(super) fn delete_key(&mut self, key: String) {
        self.records.delete(key);
    }

    pub(super) fn volume(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> Result<Option<VolumeRecord>, Stop> {
        let bytes = self.records.get(&volume_key(tenant, name))?;
        Ok(bytes.map(|bytes| decode_record(&bytes)).transpose()?)
    }

    pub(super) fn volume_by_id(&self, volume: VolumeId) -> Result<Option<VolumeRecord>, Stop> {
        for (_, bytes) in self.records.list(VOLUME_PREFIX)? {
            let record: VolumeRecord = decode_record(&bytes)?;
            if record.volume == volume {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    pub(super) fn put_volume(&mut self, record: &VolumeRecord) {
        self.records.put(volume_key(record.tenant, &record.name), encode_record(record));
    }

    pub(super) fn delete_volume(&mut self, record: &VolumeRecord) {
        self.records.delete(volume_key(record.tenant, &record.name));
    }

    pub(super) fn shard(&self, shard: ShardId) -> Result<ShardRecord, Stop> {
        match self.records.get(&shard_key(shard))? {
            Some(bytes) => Ok(decode_record(&bytes)?),
            None => Err(CatalogRefusal::UnknownShard(shard).into()),
        }
    }

    pub(super) fn shards(&self) -> Result<Vec<ShardRecord>, Stop> {
        let found = self.records.list(SHARD_PREFIX)?;
        found.iter().map(|(_, bytes)| Ok(decode_record(bytes)?)).collect()
    }

    pub(super) fn put_shard(&mut self, record: &ShardRecord) {
        self.records.put(shard_key(record.descriptor.shard), encode_record(record));
    }

    pub(super) fn delete_shard(&mut self, shard: ShardId) {
        self.records.delete(shard_key(shard));
    }
}
