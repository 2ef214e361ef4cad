//! Which replicas a shard should have: the intent, and the next change.
//!
//! One rule for every shard, the catalog's own among them. A voter is *gone*
//! when its replica is lost or its node removed; for each that is gone or that
//! was never there: allot an id → the node creates an empty replica → learner
//! → caught up → one joint change makes it a voter and removes the one that is
//! gone. The catalog's leader decides the intent ([`plan_intent`]); the leader
//! of the shard takes the next step of the shard's own log ([`next_step`]),
//! for that log alone decides who votes.
//!
//! Invariants:
//! - one change at a time, and none on an intent older or newer than the log;
//! - nothing is taken away from a node that is merely not seen;
//! - a gone voter leaves in the change that brings its replacement; alone it
//!   leaves only when none can come;
//! - without a majority of whole voters in sight nothing is begun: it could
//!   not end.

use std::collections::BTreeSet;

use super::{ObservedShard, ShardStep, candidates};
use crate::{
    catalog::{
        command::CatalogCommand,
        record::{ShardRecord, VolumeState},
        view::CatalogView,
    },
    ids::{CATALOG_SHARD, Epoch, NodeId, ReplicaId},
    placement::{
        policy::{PlacementPolicy, catalog_voters},
        walk::Field,
    },
    raft::types::{ConfigurationChange, ConfigurationStep},
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
};

/// The next step of a shard by its own leader's eyes; none if all is well, or
/// nothing can be done now.
pub fn next_step(
    view: &CatalogView,
    observed: &ObservedShard,
    live: &BTreeSet<NodeId>,
) -> Option<ShardStep> {
    let record = view.shard(observed.descriptor.shard).filter(|record| !record.deleting)?;
    let (seen, known) = (observed.descriptor.epoch, record.descriptor.epoch);
    if seen != known {
        // Nothing is decided on an intent older than the log: a replica that
        // came and went since must not be added again, and observing may take
        // allotted ones back.
        return (seen > known).then(|| ShardStep::Observe(observed.descriptor.clone()));
    }
    let members = Members::new(view, record, &observed.descriptor.replicas, live)?;
    let steps = members.change(&observed.caught_up);
    let free = !observed.changing && !steps.is_empty();
    free.then(|| ShardStep::Change(ConfigurationChange { epoch: Epoch(seen.0 + 1), steps }))
}

/// Whether a shard's leader may have something to do for its replicas: the
/// cheap question before [`next_step`].
pub fn needs_look(view: &CatalogView, record: &ShardRecord) -> bool {
    let odd =
        |held: &ReplicaDescriptor| held.role == ReplicaRole::Learner || !view.is_active(held.node);
    let replicas = &record.descriptor.replicas;
    !record.deleting
        && (!record.joining.is_empty() || !record.lost.is_empty() || replicas.iter().any(odd))
}

/// Replicas to allot for a shard, and allotted ones to take back. `replicas`
/// are those of its log, as far as the decider knows.
pub(super) fn plan_intent(
    view: &CatalogView,
    record: &ShardRecord,
    replicas: &[ReplicaDescriptor],
    live: &BTreeSet<NodeId>,
    may_begin: bool,
) -> Vec<CatalogCommand> {
    match Members::new(view, record, replicas, live) {
        Some(members) => members.intent(may_begin),
        None => Vec::new(),
    }
}

/// Whether a shard's replicas are not all they should be, and a majority is in
/// sight that can change that: what the controller bounds.
pub(super) fn is_mending(
    view: &CatalogView,
    record: &ShardRecord,
    live: &BTreeSet<NodeId>,
) -> bool {
    let learner = |held: &ReplicaDescriptor| held.role == ReplicaRole::Learner;
    let begun = !record.joining.is_empty() || record.descriptor.replicas.iter().any(learner);
    begun
        && Members::new(view, record, &record.descriptor.replicas, live)
            .is_some_and(|members| members.has_majority())
}

/// Voters a shard should have.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// On the members that are seen.
    now: usize,
    /// On all members.
    in_all: usize,
    /// Whether an even number is avoided while it grows.
    odd: bool,
}

impl Wanted {
    fn of(view: &CatalogView, record: &ShardRecord, live: &BTreeSet<NodeId>) -> Option<Self> {
        if record.descriptor.shard == CATALOG_SHARD {
            let seen = view.active_nodes().filter(|node| live.contains(&node.node)).count();
            let in_all = catalog_voters(view.active_nodes().count());
            return Some(Self { now: catalog_voters(seen), in_all, odd: true });
        }
        let volume = view.volume_by_id(record.descriptor.volume)?;
        let deleting = volume.state == VolumeState::Deleting;
        let replicas = PlacementPolicy::of(&volume.policy).replicas;
        (!deleting).then_some(Self { now: replicas, in_all: replicas, odd: false })
    }
}

/// Everything the decisions need.
struct Members<'a> {
    view: &'a CatalogView,
    record: &'a ShardRecord,
    /// What the shard's log names.
    replicas: &'a [ReplicaDescriptor],
    live: &'a BTreeSet<NodeId>,
    wanted: Wanted,
}

impl<'a> Members<'a> {
    fn new(
        view: &'a CatalogView,
        record: &'a ShardRecord,
        replicas: &'a [ReplicaDescriptor],
        live: &'a BTreeSet<NodeId>,
    ) -> Option<Self> {
        let wanted = Wanted::of(view, record, live)?;
        Some(Self { view, record, replicas, live, wanted })
    }

    fn of_role(&self, role: ReplicaRole) -> impl Iterator<Item = &'a ReplicaDescriptor> {
        self.replicas.iter().filter(move |held| held.role == role)
    }

    fn is_gone(&self, held: &ReplicaDescriptor) -> bool {
        self.record.loss(held.replica).is_some() || !self.view.is_active(held.node)
    }

    fn is_usable(&self, held: &ReplicaDescriptor) -> bool {
        self.live.contains(&held.node) && !self.is_gone(held)
    }

    fn whole_voters(&self) -> impl Iterator<Item = &'a ReplicaDescriptor> {
        self.of_role(ReplicaRole::Voter).filter(|held| !self.is_gone(held))
    }

    fn gone_voters(&self) -> impl Iterator<Item = &'a ReplicaDescriptor> {
        self.of_role(ReplicaRole::Voter).filter(|held| self.is_gone(held))
    }

    /// Allotted, and not in the log yet.
    fn joining(&self) -> impl Iterator<Item = &'a ReplicaDescriptor> {
        let new = |allotted: &&ReplicaDescriptor| {
            self.replicas.iter().all(|present| present.replica != allotted.replica)
        };
        self.record.joining.iter().filter(new)
    }

    /// Replicas that will be voters when they have caught up.
    fn coming(&self) -> impl Iterator<Item = &'a ReplicaDescriptor> {
        let learners = self.of_role(ReplicaRole::Learner);
        self.joining().chain(learners).filter(|held| self.is_usable(held))
    }

    /// Whether the shard has all the whole voters its members allow.
    fn complete(&self) -> bool {
        self.whole_voters().count() >= self.wanted.in_all
    }

    /// Whether whole voters that are seen can agree on a change.
    fn has_majority(&self) -> bool {
        let able = self.whole_voters().filter(|held| self.live.contains(&held.node)).count();
        able * 2 > self.of_role(ReplicaRole::Voter).count()
    }

    /// Replicas to allot, and allotted ones to take back because their nodes
    /// went before they came, because they are lost themselves, or because
    /// nobody needs them now.
    fn intent(&self, may_begin: bool) -> Vec<CatalogCommand> {
        let (shard, complete) = (self.record.descriptor.shard, self.complete());
        let vain = self.joining().filter(|joining| complete || !self.is_usable(joining));
        let mut commands: Vec<_> = vain
            .map(|joining| CatalogCommand::WithdrawReplica { shard, replica: joining.replica })
            .collect();
        if may_begin && self.has_majority() {
            let nodes = self.more_nodes().into_iter();
            commands.extend(nodes.map(|node| CatalogCommand::AllotReplica { shard, node }));
        }
        commands
    }

    /// Nodes for the replicas that are missing: first those whose own replica
    /// is lost and whose disk is sound, for they have the room; then others.
    fn more_nodes(&self) -> Vec<NodeId> {
        let mut keep: Vec<_> =
            self.whole_voters().chain(self.coming()).map(|held| held.node).collect();
        let missing = self.wanted.now.saturating_sub(keep.len());
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in self.lost_nodes(true) {
            let fits = self.live.contains(&node) && self.view.is_active(node);
            if nodes.len() < missing && fits && !keep.contains(&node) && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        if nodes.len() == missing {
            return nodes;
        }
        keep.extend(&nodes);
        let unsound: Vec<_> = self.lost_nodes(false).collect();
        let mut seen = candidates(self.view);
        seen.retain(|candidate| {
            let node = &candidate.node;
            keep.contains(node) || (self.live.contains(node) && !unsound.contains(node))
        });
        let others = seen.iter().filter(|candidate| !keep.contains(&candidate.node)).count();
        let policy = PlacementPolicy::replicas(self.wanted.now.min(keep.len() + others));
        // Too few nodes: the shard stays as it is until more are seen.
        let shard = self.record.descriptor.shard;
        nodes.extend(Field::new(seen).choose(shard, policy, &keep).unwrap_or_default());
        nodes
    }

    /// Nodes of lost replicas whose disk is sound, or is not.
    fn lost_nodes(&self, sound: bool) -> impl Iterator<Item = NodeId> {
        let lost = self.record.lost.iter().filter(move |l| l.loss.leaves_disk_sound() == sound);
        let named = || self.replicas.iter().chain(&self.record.joining);
        lost.filter_map(move |lost| named().find(|held| held.replica == lost.replica))
            .map(|held| held.node)
    }

    /// The next change of the configuration; empty for none.
    fn change(&self, caught_up: &BTreeSet<ReplicaId>) -> Vec<ConfigurationStep> {
        let ready: Vec<_> = self
            .of_role(ReplicaRole::Learner)
            .filter(|learner| self.is_usable(learner) && caught_up.contains(&learner.replica))
            .collect();
        let choices = [
            self.spare_learners(),
            self.new_learners(),
            self.promotions(&ready),
            self.dismissals(),
        ];
        choices.into_iter().find(|steps| !steps.is_empty()).unwrap_or_default()
    }

    /// Learners that are gone or that there is no use for.
    fn spare_learners(&self) -> Vec<ConfigurationStep> {
        let complete = self.complete();
        let spare = self.of_role(ReplicaRole::Learner).filter(|l| complete || self.is_gone(l));
        spare.map(|held| ConfigurationStep::Remove(held.replica)).collect()
    }

    fn new_learners(&self) -> Vec<ConfigurationStep> {
        let complete = self.complete();
        let coming = self.joining().filter(|joining| !complete && self.is_usable(joining));
        coming.map(|joining| ConfigurationStep::Learner(joining.replica, joining.node)).collect()
    }

    /// Learners that become voters: each that is gone gives its place to one,
    /// and more fill what is missing.
    fn promotions(&self, ready: &[&ReplicaDescriptor]) -> Vec<ConfigurationStep> {
        let (gone, whole) = (self.gone_voters().count(), self.whole_voters().count());
        let swapped = gone.min(ready.len());
        let missing = self.wanted.now.saturating_sub(whole + swapped);
        let most = missing.min(ready.len() - swapped);
        let fits = |more: &usize| !self.wanted.odd || (gone + whole + more) % 2 == 1;
        let more = (0..=most).rev().find(fits).unwrap_or(0);
        let promoted = ready.iter().take(swapped + more);
        let leaving = self.gone_voters().take(swapped);
        promoted
            .map(|learner| ConfigurationStep::Voter(learner.replica, learner.node))
            .chain(leaving.map(|held| ConfigurationStep::Remove(held.replica)))
            .collect()
    }

    /// Gone voters that nothing will replace: their number is not wanted, or
    /// their node was removed and no other can take them.
    fn dismissals(&self) -> Vec<ConfigurationStep> {
        if self.coming().next().is_some() || !self.more_nodes().is_empty() {
            return Vec::new();
        }
        let complete = self.complete();
        let alone = self.gone_voters().filter(|held| complete || !self.view.is_active(held.node));
        alone.map(|held| ConfigurationStep::Remove(held.replica)).collect()
    }
}
