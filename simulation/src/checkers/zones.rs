//! Placement honours zones: the first replicas of a shard lie in as many
//! failure domains as there are to choose from.
//!
//! To choose from is who every running node saw up, now and at the look before:
//! whoever placed the shard between the two knew at least these. What was proposed
//! by who saw fewer may be agreed upon later, after all that went is back: nothing
//! is judged for a while after anybody went. Where replicas lie later is another
//! matter: a node of the right zone may be gone by then.
//! Sources: design.md §7; the bug catalogue's G5.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    catalog::view::CatalogView,
    ids::{CATALOG_SHARD, NodeId, ShardId},
    shard::descriptor::ShardDescriptor,
};

/// Looks after anybody went in which a proposal of before may be agreed upon: ten
/// seconds of them, as long as a client waits for what it asked.
const UNJUDGED_LOOKS: u32 = 40;

/// What was placed, and where it could be.
#[derive(Debug, Default)]
pub(super) struct Zones {
    placed: BTreeSet<ShardId>,
    /// Looks to come that judge nothing.
    unjudged: u32,
    /// Whom all saw up at the last look.
    before: BTreeSet<NodeId>,
}

impl Zones {
    /// Judges shards that were not placed at the last look; `up` is whom all
    /// running nodes see. How many it judged.
    pub(super) fn catalog(
        &mut self,
        view: &CatalogView,
        up: &BTreeSet<NodeId>,
    ) -> Result<u32, String> {
        let mut judged = 0;
        let zone = |node: NodeId| view.node(node).map_or("", |record| record.zone.as_str());
        let zones: BTreeMap<NodeId, &str> = view
            .active_nodes()
            .map(|record| record.node)
            .filter(|node| up.contains(node) && self.before.contains(node))
            .map(|node| (node, zone(node)))
            .collect();
        for record in view.shards() {
            let placed = !record.descriptor.replicas.is_empty();
            let first = placed && self.placed.insert(record.descriptor.shard);
            // The catalog's own shard grows as nodes come.
            if first && self.unjudged == 0 && record.descriptor.shard != CATALOG_SHARD {
                judge(&record.descriptor, &zones, zone)?;
                judged += 1;
            }
        }
        Ok(judged)
    }

    /// Remembers whom all see up.
    pub(super) fn seen(&mut self, up: BTreeSet<NodeId>) {
        self.unjudged = self.unjudged.saturating_sub(1);
        if !self.before.is_subset(&up) {
            self.unjudged = UNJUDGED_LOOKS;
        }
        self.before = up;
    }
}

fn judge<'a>(
    shard: &ShardDescriptor,
    zones: &BTreeMap<NodeId, &'a str>,
    zone: impl Fn(NodeId) -> &'a str,
) -> Result<(), String> {
    let all: BTreeSet<&str> = zones.values().copied().collect();
    let used: BTreeSet<&str> = shard.replicas.iter().map(|held| zone(held.node)).collect();
    let wanted = all.len().min(shard.replicas.len());
    if used.len() >= wanted {
        return Ok(());
    }
    Err(format!("{} lies in {} of {} zones: {used:?} of {all:?}", shard.shard, used.len(), wanted))
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{Epoch, ReplicaId, VolumeId},
        shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole},
    };

    use super::*;

    #[test]
    fn two_replicas_in_one_zone_are_found_where_there_are_more() {
        let replicas = (1..=2).map(|number| ReplicaDescriptor {
            replica: ReplicaId(number),
            node: NodeId(u128::from(number)),
            role: ReplicaRole::Voter,
        });
        let shard = ShardDescriptor {
            shard: ShardId(2),
            volume: VolumeId(1),
            epoch: Epoch(1),
            predicate: Predicate::all(),
            replicas: replicas.collect(),
        };
        let judged = |zones: [&'static str; 3]| {
            let numbered = (1_u128..).map(NodeId).zip(zones);
            let zones: BTreeMap<_, _> = numbered.collect();
            judge(&shard, &zones, |node| zones.get(&node).copied().unwrap_or_default())
        };
        assert_eq!(judged(["a", "b", "b"]), Ok(()));
        assert_eq!(judged(["a", "a", "a"]), Ok(()), "there is no other");
        assert!(judged(["a", "a", "b"]).is_err());
    }

    #[test]
    fn nothing_is_judged_for_a_while_after_somebody_went() {
        let up = |nodes: std::ops::RangeInclusive<u128>| nodes.map(NodeId).collect();
        let mut zones = Zones::default();
        zones.seen(up(1..=2));
        zones.seen(up(1..=3));
        assert_eq!(zones.unjudged, 0, "who comes disturbs nobody");
        zones.seen(up(1..=2));
        assert_eq!(zones.unjudged, UNJUDGED_LOOKS);
        (0..UNJUDGED_LOOKS).for_each(|_| zones.seen(up(1..=3)));
        assert_eq!(zones.unjudged, 0);
    }
}
