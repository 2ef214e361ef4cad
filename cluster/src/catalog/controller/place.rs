//! Shards that wait: where their replicas shall lie.

use std::collections::BTreeSet;

use super::{Plan, candidates};
use crate::{
    catalog::{command::CatalogCommand, record::ShardRecord, view::CatalogView},
    ids::{Epoch, NodeId, ShardId},
    placement::{
        policy::PlacementPolicy,
        walk::{Field, PlacementError},
    },
};

/// Places shards that wait, as many as the plan has room for.
pub(super) fn plan(view: &CatalogView, live: &BTreeSet<NodeId>, plan: &mut Plan) {
    let mut waiting = view.shards().filter(|shard| waits(shard)).peekable();
    if waiting.peek().is_none() || plan.is_full() {
        return;
    }
    let mut fields = Fields::new(view, live);
    for shard in waiting {
        let Some(volume) = view.volume_by_id(shard.descriptor.volume) else { continue };
        let policy = PlacementPolicy::of(&volume.policy);
        let shard = shard.descriptor.shard;
        match fields.place(shard, policy) {
            Ok(nodes) => plan.propose(CatalogCommand::PlaceShard { shard, nodes }),
            Err(why) => plan.waiting.push((shard, why)),
        }
        if plan.is_full() {
            return;
        }
    }
}

fn waits(shard: &ShardRecord) -> bool {
    shard.descriptor.epoch == Epoch(0) && !shard.deleting
}

/// The nodes to choose from: those seen, and all of them.
struct Fields {
    live: Field,
    live_nodes: usize,
    all: Field,
}

impl Fields {
    fn new(view: &CatalogView, live: &BTreeSet<NodeId>) -> Self {
        let all = candidates(view);
        let seen: Vec<_> = all.iter().filter(|c| live.contains(&c.node)).cloned().collect();
        let live_nodes = seen.len();
        Self { live: Field::new(seen), live_nodes, all: Field::new(all) }
    }

    /// Nodes that are seen, if there are enough; else the seen ones and others
    /// that will catch up, as long as a majority is seen.
    fn place(
        &mut self,
        shard: ShardId,
        policy: PlacementPolicy,
    ) -> Result<Vec<NodeId>, PlacementError> {
        let seen = self.live_nodes.min(policy.replicas);
        if seen * 2 <= policy.replicas {
            return Err(PlacementError::TooFewNodes {
                replicas: policy.replicas,
                nodes: self.live_nodes,
            });
        }
        // Enough zones may only be had with nodes that are not seen now.
        let some = PlacementPolicy { replicas: seen, zones_min: 1 };
        let mut nodes = self.live.place(shard, some, &[])?;
        nodes.extend(self.all.choose(shard, policy, &nodes)?);
        self.all.count(&nodes);
        Ok(nodes)
    }
}
