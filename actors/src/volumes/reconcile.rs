//! What should be on this node, against what is: a pure comparison.
//!
//! The catalog forgets a deleted shard only after each of its nodes confirmed
//! that its replica is gone, so a shard without a record is merely not known
//! to this view, and its replica stays. A view that is older than a replica
//! (a node that starts has only the copy it last wrote) does not know it
//! either, and decides nothing about it.

use std::collections::BTreeMap;

use cluster::{
    catalog::{record::ShardRecord, view::CatalogView},
    ids::{Epoch, NodeId, ReplicaId, ShardId},
    shard::descriptor::ShardDescriptor,
};

/// One step towards what the catalog wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Found a new shard: this node is one of its first voters.
    Found(ShardDescriptor, ReplicaId),
    /// Join a shard that runs elsewhere; a snapshot will fill the replica.
    Join(ShardDescriptor, ReplicaId),
    /// Destroy a replica that is no longer wanted.
    Destroy(ShardId, ReplicaId),
    /// Tell the catalog that a replica of a deleted shard is gone from here.
    Confirm(ShardId, ReplicaId),
}

/// Epoch a shard begins with.
pub(super) const FIRST_EPOCH: Epoch = Epoch(1);

/// Compares the catalog with the replicas that run here.
pub(super) fn plan(
    view: &CatalogView,
    node: NodeId,
    running: &BTreeMap<ShardId, ReplicaId>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for record in view.shards() {
        let named = named_here(record, node);
        let wanted = named.filter(|_| !record.deleting);
        let shard = record.descriptor.shard;
        let present = running.get(&shard).copied();
        match (wanted, present) {
            (Some(replica), None) => steps.push(begin(record, replica)),
            (Some(replica), Some(present)) if replica != present && view.knows_of(present) => {
                steps.push(Step::Destroy(shard, present));
            }
            (None, Some(present)) if view.knows_of(present) => {
                steps.push(Step::Destroy(shard, present));
            }
            (None, None) => steps.extend(named.map(|replica| Step::Confirm(shard, replica))),
            // As it should be, or newer than this view.
            (Some(_) | None, Some(_)) => {}
        }
    }
    steps
}

/// The replica the catalog names on this node, if any.
fn named_here(record: &ShardRecord, node: NodeId) -> Option<ReplicaId> {
    let placed = record.descriptor.replicas.iter().find(|replica| replica.node == node);
    let joining = record.joining.iter().find(|replica| replica.node == node);
    placed.or(joining).map(|replica| replica.replica)
}

/// Founders begin alike, from the first epoch's descriptor; whoever comes
/// later waits for a snapshot.
fn begin(record: &ShardRecord, replica: ReplicaId) -> Step {
    let descriptor = record.descriptor.clone();
    let founder = descriptor.epoch == FIRST_EPOCH
        && descriptor.replicas.iter().any(|placed| placed.replica == replica);
    if founder { Step::Found(descriptor, replica) } else { Step::Join(descriptor, replica) }
}

#[cfg(test)]
mod tests;
