//! The walk: from a shard's order of nodes to the nodes of its replicas.
//!
//! Along the order, the walk takes each node once; while there is a zone with
//! fewer replicas than the others, only there; and while a node below its
//! share is left, no node above it. A share is what the node's weight entitles
//! it to of all replicas, plus a slack: no slack would tear placements from
//! their ring order at every turn, a large one would let chance pile them up.
//!
//! The first node is the one that should lead: of those chosen, the one that
//! comes first in fewest shards for its weight.
//!
//! Invariants: nodes are distinct; the replicas of zones differ by more than
//! one only when the smaller zone has no node left.
//!
//! Source: Mirrokni et al., "Consistent Hashing with Bounded Loads" (2016).

use std::collections::BTreeMap;

use super::{
    policy::PlacementPolicy,
    ring::{Ring, Weight, weights},
};
use crate::ids::{NodeId, ShardId};

/// How much more than its share a node may take before the walk passes it by.
const SLACK_PERCENT: u64 = 10;

/// A node that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its failure domain.
    pub zone: String,
    /// Bytes it offers.
    pub capacity_bytes: u64,
    /// What it holds already.
    pub load: Load,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Replicas.
    pub replicas: u64,
    /// Those of them that come first in their shard.
    pub first: u64,
}

/// Why a shard cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Fewer nodes than replicas.
    #[error("{replicas} replicas need {replicas} nodes, and {nodes} can be used")]
    TooFewNodes {
        /// Wanted.
        replicas: usize,
        /// Usable.
        nodes: usize,
    },
    /// Fewer zones than the policy demands.
    #[error("the replicas must span {zones_min} zones, and there are {zones}")]
    TooFewZones {
        /// Wanted.
        zones_min: usize,
        /// There.
        zones: usize,
    },
}

/// Nodes to choose from, with their ring.
#[derive(Debug)]
pub struct Field {
    ring: Ring,
    members: BTreeMap<NodeId, Member>,
    /// Sum of all weights.
    weight: u64,
    /// Sum of all replicas.
    replicas: u64,
}

#[derive(Debug)]
struct Member {
    zone: String,
    weight: u64,
    load: Load,
}

impl Field {
    /// The field of these nodes.
    pub fn new(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let candidates: Vec<_> = candidates.into_iter().collect();
        let capacities: Vec<_> = candidates.iter().map(|c| (c.node, c.capacity_bytes)).collect();
        let weights = weights(&capacities);
        let ring = Ring::new(&weights);
        let member = |(candidate, weight): (Candidate, &Weight)| {
            let Candidate { node, zone, load, .. } = candidate;
            (node, Member { zone, weight: weight.virtual_nodes, load })
        };
        let members: BTreeMap<_, _> = candidates.into_iter().zip(&weights).map(member).collect();
        let weight = members.values().map(|member| member.weight).sum();
        let replicas = members.values().map(|member| member.load.replicas).sum();
        Self { ring, members, weight, replicas }
    }

    /// Chooses nodes for a shard beside those in `keep`, until there are as
    /// many as the policy wants. The answer holds the new ones only.
    ///
    /// # Errors
    /// If there are too few nodes or zones.
    pub fn choose(
        &self,
        shard: ShardId,
        policy: PlacementPolicy,
        keep: &[NodeId],
    ) -> Result<Vec<NodeId>, PlacementError> {
        let order = self.ring.order(shard);
        let mut by_load = order.clone();
        by_load.sort_by(|a, b| self.compare_load(*a, *b));
        let mut walk = Walk::new(self, policy, keep);
        for level in 1..=policy.replicas {
            walk.take(&order, level, |node| self.below_share(node, policy.replicas));
            walk.take(&by_load, level, |_| true);
        }
        walk.finish(policy)
    }

    /// Chooses the nodes of a new shard, the one that should lead first, and
    /// counts them as loaded.
    ///
    /// # Errors
    /// If there are too few nodes or zones.
    pub fn place(
        &mut self,
        shard: ShardId,
        policy: PlacementPolicy,
        keep: &[NodeId],
    ) -> Result<Vec<NodeId>, PlacementError> {
        let mut nodes = keep.to_vec();
        nodes.extend(self.choose(shard, policy, keep)?);
        let firsts = |node: &NodeId| self.members.get(node).map_or((0, 1), Member::firsts);
        let least = (0..nodes.len()).min_by(|a, b| {
            let load = |at: &usize| nodes.get(*at).map_or((0, 1), firsts);
            compare_ratio(load(a), load(b))
        });
        nodes.swap(0, least.unwrap_or(0));
        self.count(&nodes);
        Ok(nodes)
    }

    /// Counts a shard placed on these nodes, the one that should lead first.
    pub fn count(&mut self, nodes: &[NodeId]) {
        for (at, node) in nodes.iter().enumerate() {
            if let Some(member) = self.members.get_mut(node) {
                member.load.replicas += 1;
                member.load.first += u64::from(at == 0);
                self.replicas += 1;
            }
        }
    }

    /// Whether a node may take one more within its share of all replicas.
    fn below_share(&self, node: NodeId, adding: usize) -> bool {
        let Some(member) = self.members.get(&node) else { return false };
        let all = u128::from(self.replicas) + adding as u128;
        let share = all * u128::from(member.weight) * u128::from(100 + SLACK_PERCENT);
        let share = share.div_ceil(100 * u128::from(self.weight.max(1)));
        u128::from(member.load.replicas) < share
    }

    fn compare_load(&self, a: NodeId, b: NodeId) -> std::cmp::Ordering {
        let load = |node| self.members.get(&node).map_or((0, 1), |m| (m.load.replicas, m.weight));
        compare_ratio(load(a), load(b))
    }

    fn zones(&self) -> usize {
        let mut zones: Vec<_> = self.members.values().map(|member| &member.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len()
    }
}

impl Member {
    fn firsts(&self) -> (u64, u64) {
        (self.load.first, self.weight)
    }
}

/// Compares `a.0 / a.1` with `b.0 / b.1`.
fn compare_ratio(a: (u64, u64), b: (u64, u64)) -> std::cmp::Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

/// One walk under way.
struct Walk<'a> {
    field: &'a Field,
    wanted: usize,
    /// Kept and chosen.
    held: Vec<NodeId>,
    kept: usize,
    zones: BTreeMap<&'a str, usize>,
}

impl<'a> Walk<'a> {
    fn new(field: &'a Field, policy: PlacementPolicy, keep: &[NodeId]) -> Self {
        let mut zones = BTreeMap::new();
        for member in keep.iter().filter_map(|node| field.members.get(node)) {
            *zones.entry(member.zone.as_str()).or_default() += 1;
        }
        Self { field, wanted: policy.replicas, held: keep.to_vec(), kept: keep.len(), zones }
    }

    /// Takes nodes of zones that hold fewer than `level`, if `fits` agrees.
    fn take(&mut self, order: &[NodeId], level: usize, fits: impl Fn(NodeId) -> bool) {
        for &node in order {
            if self.held.len() >= self.wanted {
                return;
            }
            let Some(member) = self.field.members.get(&node) else { continue };
            let in_zone = self.zones.entry(member.zone.as_str()).or_default();
            if *in_zone < level && !self.held.contains(&node) && fits(node) {
                *in_zone += 1;
                self.held.push(node);
            }
        }
    }

    fn finish(mut self, policy: PlacementPolicy) -> Result<Vec<NodeId>, PlacementError> {
        if self.held.len() < policy.replicas {
            let (replicas, nodes) = (policy.replicas, self.held.len());
            return Err(PlacementError::TooFewNodes { replicas, nodes });
        }
        if self.zones.values().filter(|held| **held > 0).count() < policy.zones_min {
            let (zones_min, zones) = (policy.zones_min, self.field.zones());
            return Err(PlacementError::TooFewZones { zones_min, zones });
        }
        Ok(self.held.split_off(self.kept))
    }
}
