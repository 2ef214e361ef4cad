//! Shards: placement, what their logs say, replicas that come and go.

use super::{Ledger, Stop};
use crate::{
    catalog::{
        command::{CatalogOutcome, CatalogRefusal},
        record::{Loss, LostReplica, ShardRecord},
    },
    ids::{Epoch, NodeId, ReplicaId, ShardId},
    shard::descriptor::{ReplicaDescriptor, ReplicaRole, ShardDescriptor},
};

use super::volume::REPLICAS_MAX;

/// Replicas a shard may have while one moves: the old and the new voters.
const REPLICAS_MOVING_MAX: u32 = 2 * REPLICAS_MAX;

pub(super) fn place(
    ledger: &mut Ledger<'_>,
    shard: ShardId,
    nodes: &[NodeId],
) -> Result<CatalogOutcome, Stop> {
    let mut ids = ledger.ids()?;
    let mut record = living(ledger, shard)?;
    if record.descriptor.epoch > Epoch(0) {
        let mut wanted = nodes.to_vec();
        let mut present: Vec<_> = record.descriptor.replicas.iter().map(|r| r.node).collect();
        wanted.sort_unstable();
        present.sort_unstable();
        return if wanted == present {
            Ok(CatalogOutcome::Shard(record.descriptor))
        } else {
            Err(CatalogRefusal::AlreadyPlaced.into())
        };
    }
    check_nodes(ledger, &record, nodes)?;
    for node in nodes {
        let replica = ReplicaId(ids.replica);
        record.descriptor.replicas.push(ReplicaDescriptor {
            replica,
            node: *node,
            role: ReplicaRole::Voter,
        });
        ids.replica += 1;
    }
    record.descriptor.epoch = Epoch(1);
    ledger.put_ids(&ids);
    ledger.put_shard(&record);
    Ok(CatalogOutcome::Shard(record.descriptor))
}

/// As many distinct members as the policy wants.
fn check_nodes(ledger: &Ledger<'_>, record: &ShardRecord, nodes: &[NodeId]) -> Result<(), Stop> {
    let volume = ledger
        .volume_by_id(record.descriptor.volume)?
        .ok_or_else(|| CatalogRefusal::UnknownVolume(record.descriptor.volume.to_string()))?;
    let mut distinct = nodes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let wanted = usize::try_from(volume.policy.replicas).unwrap_or(usize::MAX);
    if distinct.len() != nodes.len() || nodes.len() != wanted {
        return Err(Stop::invalid(format!(
            "a shard of {} lies on {wanted} different nodes",
            volume.name
        )));
    }
    for node in nodes {
        ledger.active_node(*node)?;
    }
    Ok(())
}

/// A shard that is not being deleted.
fn living(ledger: &Ledger<'_>, shard: ShardId) -> Result<ShardRecord, Stop> {
    let record = ledger.shard(shard)?;
    if record.deleting {
        return Err(Stop::invalid(format!("{shard} is being deleted")));
    }
    Ok(record)
}

pub(super) fn observe(
    ledger: &mut Ledger<'_>,
    seen: &ShardDescriptor,
) -> Result<CatalogOutcome, Stop> {
    let mut record = ledger.shard(seen.shard)?;
    if record.deleting || seen.epoch <= record.descriptor.epoch {
        return Ok(CatalogOutcome::Shard(record.descriptor));
    }
    let next = ledger.ids()?.replica;
    let strange = seen.replicas.iter().any(|held| held.replica.0 == 0 || held.replica.0 >= next);
    let placed = record.descriptor.epoch > Epoch(0);
    if seen.volume != record.descriptor.volume || strange || !placed || seen.replicas.is_empty() {
        return Err(Stop::invalid(format!(
            "what was seen of {} does not fit what the catalog handed out",
            seen.shard
        )));
    }
    // Whoever missed a state of the shard cannot tell an allotted replica that
    // has not entered the log from one that has entered and left it: none of
    // them may enter again, so all are taken back. New ones get new ids.
    let missed_a_state = seen.epoch.0 > record.descriptor.epoch.0 + 1;
    record.descriptor = seen.clone();
    record.descriptor.replicas.sort_unstable_by_key(|held| held.replica);
    let here = &record.descriptor.replicas;
    record.joining.retain(|joining| {
        !missed_a_state && here.iter().all(|held| held.replica != joining.replica)
    });
    record.forget_losses();
    ledger.put_shard(&record);
    Ok(CatalogOutcome::Shard(record.descriptor))
}

pub(super) fn allot(
    ledger: &mut Ledger<'_>,
    shard: ShardId,
    node: NodeId,
) -> Result<CatalogOutcome, Stop> {
    let mut ids = ledger.ids()?;
    let mut record = living(ledger, shard)?;
    if record.descriptor.epoch == Epoch(0) {
        return Err(Stop::invalid(format!("{shard} still waits for placement")));
    }
    ledger.active_node(node)?;
    let usable = |held: &&ReplicaDescriptor| record.loss(held.replica).is_none();
    if let Some(present) = record.named().filter(usable).find(|held| held.node == node) {
        return Ok(CatalogOutcome::Replica(*present));
    }
    let held = record.descriptor.replicas.len() + record.joining.len();
    if held >= usize::try_from(REPLICAS_MOVING_MAX).unwrap_or(usize::MAX) {
        return Err(Stop::invalid(format!("{shard} has {held} replicas, the most it takes")));
    }
    let replica = ReplicaId(ids.replica);
    let joining = ReplicaDescriptor { replica, node, role: ReplicaRole::Learner };
    record.joining.push(joining);
    ids.replica += 1;
    ledger.put_ids(&ids);
    ledger.put_shard(&record);
    Ok(CatalogOutcome::Replica(joining))
}

pub(super) fn withdraw(
    ledger: &mut Ledger<'_>,
    shard: ShardId,
    replica: ReplicaId,
) -> Result<CatalogOutcome, Stop> {
    let mut record = ledger.shard(shard)?;
    let before = record.joining.len();
    record.joining.retain(|joining| joining.replica != replica);
    if record.joining.len() < before {
        record.forget_losses();
        ledger.put_shard(&record);
    }
    Ok(CatalogOutcome::Done)
}

/// What is no longer named is no longer of interest: the same answer.
pub(super) fn report_lost(
    ledger: &mut Ledger<'_>,
    shard: ShardId,
    replica: ReplicaId,
    loss: Loss,
) -> Result<CatalogOutcome, Stop> {
    let mut record = match ledger.shard(shard) {
        Ok(record) => record,
        Err(Stop::Refused(CatalogRefusal::UnknownShard(_))) => return Ok(CatalogOutcome::Done),
        Err(stop) => return Err(stop),
    };
    let named = record.named().any(|held| held.replica == replica);
    if named && record.loss(replica).is_none() {
        record.lost.push(LostReplica { replica, loss });
        record.lost.sort_unstable_by_key(|lost| lost.replica);
        ledger.put_shard(&record);
    }
    Ok(CatalogOutcome::Done)
}

pub(super) fn observe_destroyed(
    ledger: &mut Ledger<'_>,
    shard: ShardId,
    replica: ReplicaId,
) -> Result<CatalogOutcome, Stop> {
    let mut record = match ledger.shard(shard) {
        Ok(record) => record,
        // Forgotten: every replica was gone before.
        Err(Stop::Refused(CatalogRefusal::UnknownShard(_))) => return Ok(CatalogOutcome::Done),
        Err(stop) => return Err(stop),
    };
    if !record.deleting {
        return Err(Stop::invalid(format!("{shard} is not being deleted")));
    }
    record.descriptor.replicas.retain(|held| held.replica != replica);
    record.joining.retain(|held| held.replica != replica);
    record.forget_losses();
    ledger.put_shard(&record);
    Ok(CatalogOutcome::Done)
}
