//! What should be on this node, against what is: a pure comparison.
//!
//! The catalog forgets a deleted shard only after each of its nodes confirmed
//! that its replica is gone, so a shard without a record is merely not known
//! to this view, and its replica stays. A view that is older than a replica
//! (a node that starts has only the copy it last wrote) does not know it
//! either, and decides nothing about it.
//!
//! Nor does it decide what is born: a replica that was destroyed here since that
//! view would come to life again under its old id, without the votes and
//! acknowledgements it gave. So a node gives birth only by a view that shows the
//! catalog to know of this start: that is newer than all this node did before it.

use std::collections::BTreeMap;

use cluster::{
    catalog::{
        record::{Loss, ShardRecord},
        view::CatalogView,
    },
    ids::{Epoch, NodeId, ReplicaId, ShardId},
    membership::Boot,
    shard::descriptor::{ReplicaRole, ShardDescriptor},
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
    /// End the part of a replica that the catalog holds for lost.
    Retire(ShardId, ReplicaId, Loss),
    /// Tell the catalog that a replica is lost.
    Report(ShardId, ReplicaId),
    /// Tell the catalog that a replica of a deleted shard is gone from here.
    Confirm(ShardId, ReplicaId),
}

/// Epoch a shard begins with.
pub(super) const FIRST_EPOCH: Epoch = Epoch(1);

/// Compares the catalog with the replicas that run here, by this start of the
/// node, and those that are lost here.
pub(super) fn plan(
    view: &CatalogView,
    (node, boot): (NodeId, Boot),
    running: &BTreeMap<ShardId, ReplicaId>,
    lost: &BTreeMap<ReplicaId, ShardId>,
) -> Vec<Step> {
    let known_start = view.node(node).is_some_and(|seen| seen.boot == boot);
    // A shard is forgotten only after all its nodes were done with it, so what
    // is lost of one comes from an old image.
    let forgotten = |(replica, shard): &(&ReplicaId, &ShardId)| {
        view.shard(**shard).is_none() && view.knows_of(**replica)
    };
    let old = lost.iter().filter(forgotten);
    let mut steps: Vec<_> = old.map(|(replica, shard)| Step::Destroy(*shard, *replica)).collect();
    for record in view.shards() {
        let shard = record.descriptor.shard;
        let named: Vec<ReplicaId> =
            record.named().filter(|held| held.node == node).map(|held| held.replica).collect();
        let of_shard = lost.iter().filter(|(_, at)| **at == shard).map(|(replica, _)| *replica);
        steps.extend(of_shard.filter_map(|replica| bury(view, record, &named, replica)));
        let usable =
            |replica: &&ReplicaId| !lost.contains_key(replica) && record.loss(**replica).is_none();
        let wanted = named.iter().find(usable).copied().filter(|_| !record.deleting);
        let present = running.get(&shard).copied();
        match (wanted, present) {
            (Some(replica), None) if known_start => steps.push(begin(record, replica)),
            (Some(replica), Some(present)) if replica == present => {}
            (_, Some(present)) if view.knows_of(present) => {
                steps.extend(end(record, &named, wanted, present));
            }
            (None, None) if record.deleting => {
                let gone = named.into_iter().filter(|replica| !lost.contains_key(replica));
                steps.extend(gone.map(|replica| Step::Confirm(shard, replica)));
            }
            // Newer than this view, or perhaps destroyed since, or nobody wants
            // anything here.
            (Some(_) | None, Some(_) | None) => {}
        }
    }
    steps
}

/// What is to be done about a replica that is lost here.
fn bury(
    view: &CatalogView,
    record: &ShardRecord,
    named: &[ReplicaId],
    replica: ReplicaId,
) -> Option<Step> {
    let shard = record.descriptor.shard;
    if record.deleting || !named.contains(&replica) {
        return view.knows_of(replica).then_some(Step::Destroy(shard, replica));
    }
    record.loss(replica).is_none().then_some(Step::Report(shard, replica))
}

/// What is to be done about a replica that runs here and should not: one that
/// was reported lost once and runs again (its bytes could be read after all)
/// goes on until another takes its place here, or a majority can do without.
fn end(
    record: &ShardRecord,
    named: &[ReplicaId],
    wanted: Option<ReplicaId>,
    present: ReplicaId,
) -> Option<Step> {
    let shard = record.descriptor.shard;
    match record.loss(present).filter(|_| named.contains(&present) && !record.deleting) {
        None => Some(Step::Destroy(shard, present)),
        Some(loss) => {
            let voters = record.descriptor.replicas.iter();
            let voters: Vec<_> = voters.filter(|held| held.role == ReplicaRole::Voter).collect();
            let whole = voters.iter().filter(|held| record.loss(held.replica).is_none()).count();
            let spared = wanted.is_some() || whole * 2 > voters.len();
            spared.then_some(Step::Retire(shard, present, loss))
        }
    }
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
