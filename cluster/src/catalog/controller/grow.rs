//! The catalog's own replicas: one voter grows to three, then to five.
//!
//! Allot ids → nodes create empty replicas → learners → voters, once enough
//! have caught up to keep the number of voters odd. One change at a time, and
//! none while one is under way. Voters of removed nodes go first. Nothing is
//! taken away from a node that is merely not seen.

use std::collections::BTreeSet;

use super::{ObservedCatalog, Plan, candidates};
use crate::{
    catalog::{command::CatalogCommand, controller::ControllerStep, view::CatalogView},
    ids::{CATALOG_SHARD, Epoch, NodeId, ReplicaId},
    placement::{
        policy::{PlacementPolicy, catalog_voters},
        walk::Field,
    },
    raft::types::{ConfigurationChange, ConfigurationStep},
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
};

/// Plans the catalog's own growth.
pub(super) fn plan(
    view: &CatalogView,
    catalog: &ObservedCatalog,
    live: &BTreeSet<NodeId>,
    plan: &mut Plan,
) {
    let Some(record) = view.shard(CATALOG_SHARD) else { return };
    if catalog.descriptor.epoch != record.descriptor.epoch {
        // Nothing is decided on an intent older than the log: a replica that
        // came and went since must not be added again, and observing may take
        // allotted ones back.
        if catalog.descriptor.epoch > record.descriptor.epoch {
            plan.propose(CatalogCommand::ObserveShard(catalog.descriptor.clone()));
        }
        return;
    }
    let growth = Growth::new(view, catalog, live, &record.joining);
    for command in growth.intent() {
        plan.propose(command);
    }
    let steps = growth.change();
    if !catalog.changing && !steps.is_empty() {
        let epoch = Epoch(catalog.descriptor.epoch.0 + 1);
        plan.steps.push(ControllerStep::ChangeCatalog(ConfigurationChange { epoch, steps }));
    }
}

/// Everything the two decisions need.
struct Growth<'a> {
    view: &'a CatalogView,
    catalog: &'a ObservedCatalog,
    live: &'a BTreeSet<NodeId>,
    /// Allotted, and not in the log yet.
    joining: Vec<ReplicaDescriptor>,
    /// Voters there should be on the members that are seen.
    wanted: usize,
}

impl<'a> Growth<'a> {
    fn new(
        view: &'a CatalogView,
        catalog: &'a ObservedCatalog,
        live: &'a BTreeSet<NodeId>,
        joining: &[ReplicaDescriptor],
    ) -> Self {
        let held = &catalog.descriptor.replicas;
        let new = |allotted: &&ReplicaDescriptor| {
            held.iter().all(|present| present.replica != allotted.replica)
        };
        let joining = joining.iter().filter(new).copied().collect();
        let seen = view.active_nodes().filter(|node| live.contains(&node.node)).count();
        Self { view, catalog, live, joining, wanted: catalog_voters(seen) }
    }

    fn of_role(&self, role: ReplicaRole) -> impl Iterator<Item = &ReplicaDescriptor> {
        self.catalog.descriptor.replicas.iter().filter(move |held| held.role == role)
    }

    fn voters(&self) -> usize {
        self.of_role(ReplicaRole::Voter).count()
    }

    /// Whether the catalog has all the voters its members allow.
    fn complete(&self) -> bool {
        self.voters() >= catalog_voters(self.view.active_nodes().count())
    }

    fn usable(&self, held: &ReplicaDescriptor) -> bool {
        self.live.contains(&held.node) && self.view.is_active(held.node)
    }

    /// Replicas to allot on more nodes, and allotted ones to take back because
    /// their nodes went before they came, or because nobody needs them now.
    fn intent(&self) -> Vec<CatalogCommand> {
        let shard = CATALOG_SHARD;
        let complete = self.complete();
        let lost = self.joining.iter().filter(|joining| complete || !self.usable(joining));
        let mut commands: Vec<_> = lost
            .map(|joining| CatalogCommand::WithdrawReplica { shard, replica: joining.replica })
            .collect();
        if self.voters() < self.wanted {
            let nodes = self.more_nodes();
            commands
                .extend(nodes.into_iter().map(|node| CatalogCommand::AllotReplica { shard, node }));
        }
        commands
    }

    fn more_nodes(&self) -> Vec<NodeId> {
        let all = self.catalog.descriptor.replicas.iter().chain(&self.joining);
        let voter = |held: &ReplicaDescriptor| held.role == ReplicaRole::Voter;
        let keep: Vec<_> =
            all.filter(|held| voter(held) || self.usable(held)).map(|held| held.node).collect();
        let mut seen = candidates(self.view);
        seen.retain(|candidate| {
            self.live.contains(&candidate.node) || keep.contains(&candidate.node)
        });
        let policy = PlacementPolicy::replicas(self.wanted);
        // Too few nodes: the catalog stays as it is until more are seen.
        Field::new(seen).choose(CATALOG_SHARD, policy, &keep).unwrap_or_default()
    }

    /// The next change of the configuration; empty for none.
    fn change(&self) -> Vec<ConfigurationStep> {
        let removals = self.removals();
        if !removals.is_empty() {
            return removals;
        }
        let learners = self.new_learners();
        if learners.is_empty() { self.promotions() } else { learners }
    }

    /// Replicas of removed nodes; and learners there is no use for, once the
    /// catalog has all voters its members allow.
    fn removals(&self) -> Vec<ConfigurationStep> {
        let complete = self.complete();
        let held = self.catalog.descriptor.replicas.iter();
        held.filter(|held| {
            let spare = complete && held.role == ReplicaRole::Learner;
            spare || !self.view.is_active(held.node)
        })
        .map(|held| ConfigurationStep::Remove(held.replica))
        .collect()
    }

    fn new_learners(&self) -> Vec<ConfigurationStep> {
        let complete = self.complete();
        let coming = self.joining.iter().filter(|joining| !complete && self.usable(joining));
        coming.map(|joining| ConfigurationStep::Learner(joining.replica, joining.node)).collect()
    }

    fn promotions(&self) -> Vec<ConfigurationStep> {
        let caught_up = |replica: &ReplicaId| self.catalog.caught_up.contains(replica);
        let ready: Vec<_> = self
            .of_role(ReplicaRole::Learner)
            .filter(|learner| self.usable(learner) && caught_up(&learner.replica))
            .collect();
        let voters = self.voters();
        let most = ready.len().min(self.wanted.saturating_sub(voters));
        let odd = (0..=most).rev().find(|more| (voters + more) % 2 == 1).unwrap_or(0);
        let chosen = ready.into_iter().take(odd);
        chosen.map(|learner| ConfigurationStep::Voter(learner.replica, learner.node)).collect()
    }
}
