//! Birth of the cluster; tokens; nodes that join, start and go.

use super::{Ledger, Stop};
use crate::{
    catalog::{
        command::{CatalogOutcome, CatalogRefusal},
        record::{ClusterRecord, IdsRecord, NodeRecord, NodeState, ShardRecord, TokenRecord},
    },
    ids::{CATALOG_SHARD, CATALOG_VOLUME, FIRST_TENANT, NodeId, ReplicaId},
    membership::{
        Boot,
        identity::{BootVerdict, judge_boot},
    },
    shard::descriptor::{ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    units::WallTime,
};

/// Addresses one node may have: a few interfaces in two families.
pub const ADDRESSES_MAX: usize = 8;
/// Bytes of one address or zone: a full domain name (253) and its port.
pub const ADDRESS_BYTES_MAX: usize = 260;
/// Active nodes of a cluster: what one gossip group and one catalog are meant
/// for, with room; each costs about a kilobyte of catalog.
pub const NODES_MAX: usize = 1_024;
/// Tokens kept at once; old ones go when new ones come.
pub const TOKENS_MAX: usize = 1_024;
/// How long an expired token is still known, so that a late one hears
/// "expired" and a node that repeats its admission is recognised.
const TOKEN_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

pub(super) fn bootstrap(
    ledger: &mut Ledger<'_>,
    cluster: &ClusterRecord,
    node: &NodeRecord,
    catalog: &ShardDescriptor,
) -> Result<CatalogOutcome, Stop> {
    if let Some(present) = ledger.cluster()? {
        let first = ledger.node(node.node)?.filter(|first| first.number == 1);
        return match first {
            Some(first) if present.cluster == cluster.cluster => Ok(CatalogOutcome::Node(first)),
            Some(_) | None => Err(CatalogRefusal::AlreadyBootstrapped.into()),
        };
    }
    if catalog.shard != CATALOG_SHARD || catalog.volume != CATALOG_VOLUME {
        return Err(Stop::invalid("the catalog shard must be shard 1 of volume 1"));
    }
    check_node(&Shown::of(node))?;
    let replica = catalog.replicas.iter().map(|held| held.replica.0).max().unwrap_or(0) + 1;
    ledger.put_cluster(cluster);
    ledger.put_ids(&IdsRecord {
        node_number: 2,
        volume: CATALOG_VOLUME.0 + 1,
        shard: CATALOG_SHARD.0 + 1,
        replica,
        tenant: FIRST_TENANT.0 + 1,
    });
    let first = NodeRecord { number: 1, state: NodeState::Active, ..node.clone() };
    ledger.put_node(&first);
    ledger.put_shard(&ShardRecord::new(catalog.clone()));
    Ok(CatalogOutcome::Node(first))
}

pub(super) fn add_token(
    ledger: &mut Ledger<'_>,
    hash: &[u8; 32],
    expires: WallTime,
) -> Result<CatalogOutcome, Stop> {
    if ledger.token(hash)?.is_some() {
        return Ok(CatalogOutcome::Done);
    }
    let tokens = ledger.tokens()?;
    let mut kept = tokens.len();
    for (key, token) in tokens {
        if token.expires.0.saturating_add(TOKEN_KEPT_MS) < expires.0 {
            ledger.delete_key(key);
            kept -= 1;
        }
    }
    if kept >= TOKENS_MAX {
        return Err(Stop::invalid(format!(
            "{kept} join tokens were made within a day, and no more are kept: try again later"
        )));
    }
    ledger.put_token(hash, &TokenRecord { expires, used_by: None });
    Ok(CatalogOutcome::Done)
}

pub(super) fn admit(
    ledger: &mut Ledger<'_>,
    hash: &[u8; 32],
    now: WallTime,
    node: &NodeRecord,
) -> Result<CatalogOutcome, Stop> {
    let mut token = ledger.token(hash)?.ok_or(CatalogRefusal::UnknownToken)?;
    check_node(&Shown::of(node))?;
    let present = ledger.node(node.node)?;
    if present.as_ref().is_some_and(|present| present.state == NodeState::Removed) {
        return Err(CatalogRefusal::RemovedNode(node.node).into());
    }
    match token.used_by {
        Some(user) if user == node.node => {}
        Some(_) => return Err(CatalogRefusal::UsedToken.into()),
        None if now >= token.expires => return Err(CatalogRefusal::ExpiredToken.into()),
        None => {}
    }
    let record = match present {
        Some(present) => started(ledger, &present, &Shown::of(node))?,
        None => numbered(ledger, node)?,
    };
    token.used_by = Some(node.node);
    ledger.put_token(hash, &token);
    ledger.put_node(&record);
    Ok(CatalogOutcome::Node(record))
}

/// A new member with the next number.
fn numbered(ledger: &mut Ledger<'_>, node: &NodeRecord) -> Result<NodeRecord, Stop> {
    let mut ids = ledger.ids()?;
    let active = ledger.nodes()?.iter().filter(|node| node.state == NodeState::Active).count();
    if active >= NODES_MAX {
        return Err(Stop::invalid(format!("the cluster has {NODES_MAX} nodes, the most it takes")));
    }
    let record = NodeRecord { number: ids.node_number, state: NodeState::Active, ..node.clone() };
    ids.node_number += 1;
    ledger.put_ids(&ids);
    Ok(record)
}

/// What a node shows of itself at its start.
pub(super) struct Shown<'a> {
    pub(super) boot: Boot,
    pub(super) addresses: &'a [String],
    pub(super) http_address: &'a str,
    pub(super) zone: &'a str,
    pub(super) capacity_bytes: u64,
}

impl<'a> Shown<'a> {
    fn of(node: &'a NodeRecord) -> Self {
        Self {
            boot: node.boot,
            addresses: &node.addresses,
            http_address: &node.http_address,
            zone: &node.zone,
            capacity_bytes: node.capacity_bytes,
        }
    }
}

pub(super) fn register_boot(
    ledger: &mut Ledger<'_>,
    node: NodeId,
    shown: &Shown<'_>,
) -> Result<CatalogOutcome, Stop> {
    let present = ledger.active_node(node)?;
    check_node(shown)?;
    let record = started(ledger, &present, shown)?;
    if record != present {
        ledger.put_node(&record);
    }
    Ok(CatalogOutcome::Node(record))
}

/// A member after a start it may show.
fn started(
    ledger: &Ledger<'_>,
    present: &NodeRecord,
    shown: &Shown<'_>,
) -> Result<NodeRecord, Stop> {
    match judge_boot(present.boot, shown.boot) {
        BootVerdict::OldImage => {
            let born_up_to = ReplicaId(ledger.ids()?.replica.saturating_sub(1));
            let (node, seen) = (present.node, present.boot);
            Err(CatalogRefusal::OldBoot { node, seen, born_up_to }.into())
        }
        BootVerdict::Accept => Ok(NodeRecord {
            boot: shown.boot,
            addresses: shown.addresses.to_vec(),
            http_address: shown.http_address.to_owned(),
            zone: shown.zone.to_owned(),
            capacity_bytes: shown.capacity_bytes,
            ..present.clone()
        }),
    }
}

fn check_node(shown: &Shown<'_>) -> Result<(), Stop> {
    let names = shown.addresses.iter().map(String::as_str);
    let longest = names.chain([shown.http_address, shown.zone]).map(str::len).max();
    if longest > Some(ADDRESS_BYTES_MAX) {
        return Err(Stop::invalid(format!(
            "an address or zone is longer than {ADDRESS_BYTES_MAX} bytes"
        )));
    }
    if shown.addresses.is_empty() || shown.addresses.len() > ADDRESSES_MAX {
        return Err(Stop::invalid(format!("a node has 1 to {ADDRESSES_MAX} addresses")));
    }
    Ok(())
}

/// Removes a node, unless a shard would lose its majority by it.
pub(super) fn remove(ledger: &mut Ledger<'_>, node: NodeId) -> Result<CatalogOutcome, Stop> {
    let present = ledger.node(node)?.ok_or(CatalogRefusal::UnknownNode(node))?;
    if present.state == NodeState::Removed {
        return Ok(CatalogOutcome::Done);
    }
    let mut staying: Vec<NodeId> = ledger
        .nodes()?
        .iter()
        .filter(|other| other.state == NodeState::Active && other.node != node)
        .map(|other| other.node)
        .collect();
    staying.sort_unstable();
    let shards = ledger.shards()?;
    for shard in &shards {
        check_majority(shard, node, &staying)?;
    }
    for mut shard in shards {
        if shard.joining.iter().any(|joining| joining.node == node) {
            shard.joining.retain(|joining| joining.node != node);
            shard.forget_losses();
            ledger.put_shard(&shard);
        }
    }
    ledger.put_node(&NodeRecord { state: NodeState::Removed, ..present });
    Ok(CatalogOutcome::Done)
}

/// Checks that a shard keeps a majority without a node: lost voters count
/// among the voters and not among those who stay.
fn check_majority(shard: &ShardRecord, node: NodeId, staying: &[NodeId]) -> Result<(), Stop> {
    let replicas = &shard.descriptor.replicas;
    let voters = || replicas.iter().filter(|held| held.role == ReplicaRole::Voter);
    let stays = |held: &&ReplicaDescriptor| {
        staying.binary_search(&held.node).is_ok() && shard.loss(held.replica).is_none()
    };
    let left = voters().filter(stays).count();
    let touched = voters().any(|held| held.node == node);
    if touched && !shard.deleting && left * 2 <= voters().count() {
        return Err(Stop::invalid(format!(
            "{} would lose its majority with that node: wait until its other replicas are whole \
             (cdb status --wait healthy), or let a new node join first (cdb cluster token)",
            shard.descriptor.shard
        )));
    }
    Ok(())
}
