//! A client acts for one tenant: it reaches that tenant's shards only, and of
//! the catalog it sees what it needs to find them.

use cluster::{
    catalog::{
        encoding::{
            CLUSTER_KEY, NODE_PREFIX, SHARD_PREFIX, VOLUME_PREFIX, decode_record, encode_record,
        },
        record::{ClusterRecord, ShardRecord},
        view::CatalogView,
    },
    ids::{CATALOG_SHARD, CATALOG_VOLUME, ShardId, TenantId, VolumeId},
    request::Fault,
};

/// A changed catalog record; none was deleted.
type Change = (String, Option<Vec<u8>>);

/// Whose a volume is, as far as this node knows.
fn owner(view: &CatalogView, volume: VolumeId) -> Option<TenantId> {
    view.volume_by_id(volume).map(|record| record.tenant)
}

/// Whether a tenant's client may address a shard at all. What it may do there
/// is judged by [`authorise`](super::authorise()).
///
/// # Errors
/// A shard this node does not know (yet) is as good as none; one of another
/// tenant is answered alike, so that nobody can count the shards of others.
pub(super) fn check_shard(
    view: &CatalogView,
    tenant: TenantId,
    shard: ShardId,
) -> Result<(), Fault> {
    if shard == CATALOG_SHARD {
        return Ok(());
    }
    let volume = view.shard(shard).map(|record| record.descriptor.volume);
    match volume.and_then(|volume| owner(view, volume)) {
        Some(own) if own == tenant => Ok(()),
        Some(_) | None => Err(Fault::NoReplica(shard)),
    }
}

/// The catalog changes a tenant's client may see: the cluster without its
/// sealed key, the nodes, its own volumes and their shards. A shard whose
/// volume this node does not know yet passes, or the client would never hear
/// of it: a descriptor names no volume and no key of a hash volume.
pub(super) fn visible(view: &CatalogView, tenant: TenantId, changes: Vec<Change>) -> Vec<Change> {
    changes.into_iter().filter_map(|change| visible_one(view, tenant, change)).collect()
}

fn visible_one(view: &CatalogView, tenant: TenantId, (key, value): Change) -> Option<Change> {
    if key == CLUSTER_KEY {
        let value = match value {
            Some(bytes) => Some(without_key(&bytes)?),
            None => None,
        };
        return Some((key, value));
    }
    if let Some(path) = key.strip_prefix(VOLUME_PREFIX) {
        let own = path.split_once('/').is_some_and(|(owner, _)| owner.parse() == Ok(tenant.0));
        return own.then_some((key, value));
    }
    if key.starts_with(SHARD_PREFIX) {
        let volume = value
            .as_deref()
            .and_then(|bytes| decode_record::<ShardRecord>(bytes).ok())
            .map(|record| record.descriptor.volume);
        let of = volume.filter(|volume| *volume != CATALOG_VOLUME);
        let foreign =
            of.and_then(|volume| owner(view, volume)).is_some_and(|owner| owner != tenant);
        return (!foreign).then_some((key, value));
    }
    key.starts_with(NODE_PREFIX).then_some((key, value))
}

/// The cluster record without what only nodes need. One that cannot be read is
/// kept back.
fn without_key(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = decode_record::<ClusterRecord>(bytes).ok()?;
    Some(encode_record(&ClusterRecord { authority_key_sealed: Vec::new(), ..record }))
}

#[cfg(test)]
mod tests;
