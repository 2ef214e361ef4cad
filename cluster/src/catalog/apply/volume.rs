//! Volumes: birth, readiness, death.

use std::time::Duration;

use super::{Ledger, Stop};
use crate::{
    catalog::{
        command::{CatalogOutcome, CatalogRefusal},
        record::{NodeState, ShardRecord, VolumeKind, VolumePolicy, VolumeRecord, VolumeState},
    },
    ids::{Epoch, ShardId, TenantId, VolumeId},
    limits::{HISTORY_AGE_MS_MAX, HISTORY_AGE_MS_MIN, HISTORY_VERSIONS_MAX, REPLICAS_PER_NODE_MAX},
    mvcc::compaction::HistoryPolicy,
    shard::descriptor::{Predicate, ShardDescriptor},
};

/// Bytes of a volume's name, as in DNS labels and S3 buckets.
pub const VOLUME_NAME_BYTES_MAX: usize = 63;
/// Shards a volume is created with: one entry of the log creates them all.
pub const SHARDS_MAX: u32 = 1_024;
/// Voters of a shard: seven bear three failures; more only cost latency.
pub const REPLICAS_MAX: u32 = 7;

/// Checks a volume's name.
///
/// # Errors
/// Says what names may look like.
pub fn check_volume_name(name: &str) -> Result<(), CatalogRefusal> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let starts_well = name.bytes().next().is_some_and(plain);
    let all_well = name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
    if starts_well && all_well && name.len() <= VOLUME_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(CatalogRefusal::Invalid(format!(
        "a volume's name has 1 to {VOLUME_NAME_BYTES_MAX} characters: a to z, 0 to 9, and after \
         the first also '.', '_' and '-'"
    )))
}

fn check_policy(policy: &VolumePolicy) -> Result<(), Stop> {
    if !(1..=SHARDS_MAX).contains(&policy.shards) {
        return Err(Stop::invalid(format!(
            "a volume has 1 to {SHARDS_MAX} shards, not {}",
            policy.shards
        )));
    }
    if !(1..=REPLICAS_MAX).contains(&policy.replicas) {
        return Err(Stop::invalid(format!(
            "a shard has 1 to {REPLICAS_MAX} replicas, not {}",
            policy.replicas
        )));
    }
    if policy.kind == VolumeKind::Single && policy.shards != 1 {
        return Err(Stop::invalid(format!(
            "a volume of kind single has one shard, not {}",
            policy.shards
        )));
    }
    check_history(policy.kind, policy.history)
}

fn check_history(kind: VolumeKind, history: HistoryPolicy) -> Result<(), Stop> {
    match history {
        HistoryPolicy::Usual => Ok(()),
        HistoryPolicy::Age(ms) if (HISTORY_AGE_MS_MIN..=HISTORY_AGE_MS_MAX).contains(&ms) => Ok(()),
        HistoryPolicy::Age(ms) => Err(Stop::invalid(format!(
            "a volume keeps {} seconds to {} days of its past, not {:?}",
            HISTORY_AGE_MS_MIN / 1_000,
            HISTORY_AGE_MS_MAX / 86_400_000,
            Duration::from_millis(ms)
        ))),
        HistoryPolicy::Versions(_) if kind != VolumeKind::Single => Err(Stop::invalid(
            "only a volume of kind single counts its versions: say how long the past is kept",
        )),
        HistoryPolicy::Versions(kept) if (1..=HISTORY_VERSIONS_MAX).contains(&kept) => Ok(()),
        HistoryPolicy::Versions(kept) => Err(Stop::invalid(format!(
            "a volume keeps 1 to {HISTORY_VERSIONS_MAX} versions before its newest, not {kept}"
        ))),
    }
}

/// Refuses what the nodes could never hold; a volume that waited for nodes
/// for ever would look created and serve nothing.
fn check_room(ledger: &Ledger<'_>, policy: &VolumePolicy) -> Result<(), Stop> {
    let active = ledger.nodes()?.iter().filter(|node| node.state == NodeState::Active).count();
    let replicas = usize::try_from(policy.replicas).unwrap_or(usize::MAX);
    if active < replicas {
        return Err(Stop::invalid(format!(
            "{replicas} replicas need {replicas} nodes, and the cluster has {active}: add nodes \
             or ask for fewer replicas"
        )));
    }
    let mut held = 0;
    for shard in ledger.shards()? {
        let waiting = shard.descriptor.epoch == Epoch(0);
        // A shard that waits for placement is rare and soon placed: count it
        // with the most it may take.
        let most = usize::try_from(REPLICAS_MAX).unwrap_or(usize::MAX);
        held += if waiting { most } else { shard.descriptor.replicas.len() };
    }
    let wanted = replicas * usize::try_from(policy.shards).unwrap_or(usize::MAX);
    let room = (active * REPLICAS_PER_NODE_MAX).saturating_sub(held);
    if wanted > room {
        return Err(Stop::invalid(format!(
            "{wanted} replicas are wanted and the nodes have room for {room}: add nodes or ask \
             for fewer shards"
        )));
    }
    Ok(())
}

pub(super) fn create(
    ledger: &mut Ledger<'_>,
    tenant: TenantId,
    name: &str,
    policy: &VolumePolicy,
) -> Result<CatalogOutcome, Stop> {
    let mut ids = ledger.ids()?;
    check_volume_name(name)?;
    check_policy(policy)?;
    if tenant.0 == 0 || tenant.0 >= ids.tenant {
        return Err(Stop::invalid(format!("there is no tenant {tenant}")));
    }
    match ledger.volume(tenant, name)?.map(|volume| volume.state) {
        Some(VolumeState::Deleting) => {
            return Err(Stop::invalid(format!(
                "the volume named {name} is still being deleted: try again in a moment"
            )));
        }
        Some(VolumeState::Creating | VolumeState::Ready) => {
            return Err(CatalogRefusal::VolumeExists(name.into()).into());
        }
        None => {}
    }
    check_room(ledger, policy)?;
    let volume = VolumeId(ids.volume);
    let mut shards = Vec::new();
    for predicate in predicates(policy) {
        let shard = ShardId(ids.shard + shards.len() as u64);
        let descriptor =
            ShardDescriptor { shard, volume, epoch: Epoch(0), predicate, replicas: Vec::new() };
        ledger.put_shard(&ShardRecord::new(descriptor));
        shards.push(shard);
    }
    ids.volume += 1;
    ids.shard += shards.len() as u64;
    ledger.put_ids(&ids);
    let (name, policy) = (name.to_owned(), policy.clone());
    let record =
        VolumeRecord { volume, tenant, name, policy, shards, state: VolumeState::Creating };
    ledger.put_volume(&record);
    Ok(CatalogOutcome::Volume(record))
}

fn predicates(policy: &VolumePolicy) -> Vec<Predicate> {
    match policy.kind {
        VolumeKind::Hash => Predicate::hash_parts(policy.shards),
        VolumeKind::Ordered => range_parts(policy.shards),
        VolumeKind::Single => vec![Predicate::all()],
    }
}

/// First printable character of ASCII, and how many there are.
const PRINTABLE: (u8, u32) = (b' ', 95);

/// Splits the key space by the first two bytes, evenly over printable ASCII:
/// keys are text, and evenly over all bytes would leave most shards of a
/// volume with plain names empty. Other bytes fall to the first and last shard.
fn range_parts(count: u32) -> Vec<Predicate> {
    let (first, width) = PRINTABLE;
    let digit = |value: u32| first + u8::try_from(value).unwrap_or(u8::MAX - first);
    let bound = |part: u32| {
        let at = part * width * width / count;
        match (at / width, at % width) {
            (_, _) if part == 0 || part == count => Vec::new(),
            (high, 0) => vec![digit(high)],
            (high, low) => vec![digit(high), digit(low)],
        }
    };
    (0..count).map(|part| Predicate::Range { from: bound(part), to: bound(part + 1) }).collect()
}

pub(super) fn mark_ready(
    ledger: &mut Ledger<'_>,
    volume: VolumeId,
) -> Result<CatalogOutcome, Stop> {
    let mut record = found(ledger, volume)?;
    match record.state {
        VolumeState::Ready => {}
        VolumeState::Deleting => {
            return Err(Stop::invalid(format!(
                "the volume named {} is being deleted",
                record.name
            )));
        }
        VolumeState::Creating => {
            for shard in &record.shards {
                if ledger.shard(*shard)?.descriptor.epoch == Epoch(0) {
                    return Err(Stop::invalid(format!("{shard} still waits for placement")));
                }
            }
            record.state = VolumeState::Ready;
            ledger.put_volume(&record);
        }
    }
    Ok(CatalogOutcome::Volume(record))
}

pub(super) fn set_history(
    ledger: &mut Ledger<'_>,
    tenant: TenantId,
    name: &str,
    history: HistoryPolicy,
) -> Result<CatalogOutcome, Stop> {
    let mut record = named(ledger, tenant, name)?;
    if record.state == VolumeState::Deleting {
        return Err(Stop::invalid(format!("the volume named {name} is being deleted")));
    }
    check_history(record.policy.kind, history)?;
    if record.policy.history != history {
        record.policy.history = history;
        ledger.put_volume(&record);
    }
    Ok(CatalogOutcome::Volume(record))
}

pub(super) fn delete(
    ledger: &mut Ledger<'_>,
    tenant: TenantId,
    name: &str,
) -> Result<CatalogOutcome, Stop> {
    let mut record = named(ledger, tenant, name)?;
    if record.state != VolumeState::Deleting {
        for shard in &record.shards {
            let shard = ledger.shard(*shard)?;
            ledger.put_shard(&ShardRecord { deleting: true, ..shard });
        }
        record.state = VolumeState::Deleting;
        ledger.put_volume(&record);
    }
    Ok(CatalogOutcome::Volume(record))
}

pub(super) fn forget(ledger: &mut Ledger<'_>, volume: VolumeId) -> Result<CatalogOutcome, Stop> {
    let Some(record) = ledger.volume_by_id(volume)? else { return Ok(CatalogOutcome::Done) };
    if record.state != VolumeState::Deleting {
        return Err(Stop::invalid(format!("the volume named {} is not deleted", record.name)));
    }
    for shard in &record.shards {
        let shard = ledger.shard(*shard)?;
        for held in shard.descriptor.replicas.iter().chain(&shard.joining) {
            let node = ledger.node(held.node)?;
            if node.is_some_and(|node| node.state == NodeState::Active) {
                return Err(Stop::invalid(format!("{} still has a replica", record.name)));
            }
        }
    }
    for shard in &record.shards {
        ledger.delete_shard(*shard);
    }
    ledger.delete_volume(&record);
    Ok(CatalogOutcome::Done)
}

fn named(ledger: &Ledger<'_>, tenant: TenantId, name: &str) -> Result<VolumeRecord, Stop> {
    let found = ledger.volume(tenant, name)?;
    Ok(found.ok_or_else(|| CatalogRefusal::UnknownVolume(name.to_owned()))?)
}

fn found(ledger: &Ledger<'_>, volume: VolumeId) -> Result<VolumeRecord, Stop> {
    let found = ledger.volume_by_id(volume)?;
    Ok(found.ok_or_else(|| CatalogRefusal::UnknownVolume(volume.to_string()))?)
}
