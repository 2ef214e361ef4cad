//! What the catalog's leader should do next: policy → intent → observed → plan.
//!
//! The *policy* says how many replicas a volume wants and how many voters the
//! catalog should have; the *intent* (where each replica shall lie) is chosen
//! by `placement` and stored through a command; what is *observed* comes from
//! the shards' own logs and from gossip; the *plan* is what is missing. The
//! plan is a pure function: it is computed anew whenever something changed,
//! and carrying a step out twice does no harm. Only the catalog's leader acts
//! on it.
//!
//! Which observation is used for what:
//! - a shard waits for placement: epoch zero in the catalog;
//! - a volume is ready: every shard is placed. (That leaders are elected is
//!   not awaited; a client's deadline covers it.)
//! - a volume is gone: its nodes said that they destroyed their replicas
//!   (`ObserveDestroyed`), or were removed themselves;
//! - the voters of a shard, the catalog's among them: the descriptor its own
//!   leader has, never the copy in the catalog;
//! - a replica is lost: its node said so (`ReportLost`), and never unsaid;
//! - liveness: gossip, as a hint about where *new* replicas should go. Nothing
//!   is taken away because gossip misses a node.

mod heal;
mod place;
mod replicas;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

pub use heal::MENDING_MAX;
pub use replicas::{needs_look, next_step};

use super::{command::CatalogCommand, view::CatalogView};
use crate::{
    ids::{CATALOG_SHARD, NodeId, ReplicaId, ShardId},
    placement::walk::{Candidate, Load, PlacementError},
    raft::types::ConfigurationChange,
    shard::descriptor::ShardDescriptor,
};

/// Commands of one plan: what the log takes in a few batches, so that a volume
/// of a thousand shards delays nobody else's change of the catalog for long.
pub const PLAN_STEPS_MAX: usize = 128;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerStep {
    /// Propose this command to the catalog.
    Propose(CatalogCommand),
    /// Propose this change of the catalog's own voters and learners.
    ChangeCatalog(ConfigurationChange),
}

/// What the leader of a shard does next for its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardStep {
    /// Tell the catalog what the shard's log says.
    Observe(ShardDescriptor),
    /// Propose this change of the shard's own voters and learners.
    Change(ConfigurationChange),
}

/// A shard as its leading replica's own log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedShard {
    /// Its replicas and epoch.
    pub descriptor: ShardDescriptor,
    /// Whether a change is under way: a configuration is joint, or one is in
    /// the log and not applied.
    pub changing: bool,
    /// Learners that have (nearly) all of the leader's log.
    pub caught_up: BTreeSet<ReplicaId>,
}

/// What is to be done, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps in order.
    pub steps: Vec<ControllerStep>,
    /// Shards that wait for nodes, with the reason.
    pub waiting: Vec<(ShardId, PlacementError)>,
}

impl Plan {
    fn propose(&mut self, command: CatalogCommand) {
        self.steps.push(ControllerStep::Propose(command));
    }

    fn is_full(&self) -> bool {
        self.steps.len() >= PLAN_STEPS_MAX
    }
}

/// Plans what the catalog's leader does next. `live` are the nodes gossip
/// sees, the leader itself among them.
pub fn plan(view: &CatalogView, catalog: &ObservedShard, live: &BTreeSet<NodeId>) -> Plan {
    let mut plan = Plan::default();
    plan_catalog(view, catalog, live, &mut plan);
    volumes::plan(view, &mut plan);
    heal::plan(view, live, &mut plan);
    place::plan(view, live, &mut plan);
    plan
}

/// The catalog's own replicas: one voter grows to three, then to five.
fn plan_catalog(
    view: &CatalogView,
    catalog: &ObservedShard,
    live: &BTreeSet<NodeId>,
    plan: &mut Plan,
) {
    let Some(record) = view.shard(CATALOG_SHARD) else { return };
    if catalog.descriptor.epoch == record.descriptor.epoch {
        let replicas = &catalog.descriptor.replicas;
        for command in replicas::plan_intent(view, record, replicas, live, true) {
            plan.propose(command);
        }
    }
    match next_step(view, catalog, live) {
        Some(ShardStep::Observe(seen)) => plan.propose(CatalogCommand::ObserveShard(seen)),
        Some(ShardStep::Change(change)) => plan.steps.push(ControllerStep::ChangeCatalog(change)),
        None => {}
    }
}

/// The members as candidates, with what they hold by the catalog's intent.
fn candidates(view: &CatalogView) -> Vec<Candidate> {
    let mut loads: BTreeMap<NodeId, Load> = BTreeMap::new();
    for shard in view.shards() {
        for (at, held) in shard.descriptor.replicas.iter().enumerate() {
            let load = loads.entry(held.node).or_default();
            load.replicas += 1;
            load.first += u64::from(at == 0);
        }
    }
    view.active_nodes()
        .map(|node| Candidate {
            node: node.node,
            zone: node.zone.clone(),
            capacity_bytes: node.capacity_bytes,
            load: loads.get(&node.node).copied().unwrap_or_default(),
        })
        .collect()
}
