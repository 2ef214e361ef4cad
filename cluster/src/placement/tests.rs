//! Golden vectors, spread, balance and stability of placement.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    policy::PlacementPolicy,
    ring::{Ring, weights},
    walk::{Candidate, Field, Load, PlacementError},
};
use crate::ids::{NodeId, ShardId};

/// Ids as random as real ones: the hash of their number.
fn node(number: u64) -> NodeId {
    NodeId(xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()))
}

fn candidate(number: u64, zone: &str, capacity_bytes: u64) -> Candidate {
    Candidate { node: node(number), zone: zone.into(), capacity_bytes, load: Load::default() }
}

fn zone_of(number: u64) -> &'static str {
    ["a", "b", "c"][usize::try_from(number % 3).unwrap()]
}

fn equal(count: u64) -> Vec<Candidate> {
    (1..=count).map(|number| candidate(number, "", 1 << 40)).collect()
}

fn place_all(field: &mut Field, shards: u64, replicas: usize) -> Vec<Vec<NodeId>> {
    let policy = PlacementPolicy::replicas(replicas);
    (1..=shards).map(|shard| field.place(ShardId(shard), policy, &[]).unwrap()).collect()
}

fn count<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> BTreeMap<NodeId, u64> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(*node).or_default() += 1;
    }
    counts
}

#[test]
fn the_ring_and_the_walk_match_their_golden_vectors() {
    let number: BTreeMap<_, _> = (1..=9).map(|number| (node(number), number)).collect();
    let name = |nodes: Vec<NodeId>| {
        nodes.iter().map(|node| format!("n{}", number[node])).collect::<Vec<_>>().join(" ")
    };
    let nodes: Vec<_> = (1..=9).map(|n| candidate(n, zone_of(n), n << 38)).collect();
    let capacities: Vec<_> = nodes.iter().map(|n| (n.node, n.capacity_bytes)).collect();
    let ring = Ring::new(&weights(&capacities));
    let mut field = Field::new(nodes);
    let mut text = String::new();
    for shard in 1..=24 {
        let shard = ShardId(shard);
        let placed = field.place(shard, PlacementPolicy::replicas(3), &[]).unwrap();
        writeln!(text, "{shard}: {} -> {}", name(ring.order(shard)), name(placed)).unwrap();
    }
    assert_eq!(text, include_str!("testdata/walk.txt"), "got:\n{text}");
}

#[test]
fn replicas_lie_on_different_nodes_for_every_size_of_cluster() {
    for nodes in 1..=100 {
        let replicas = usize::try_from(nodes.min(3)).unwrap();
        let placed = place_all(&mut Field::new(equal(nodes)), 40, replicas);
        for mut chosen in placed {
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), replicas);
        }
    }
}

#[test]
fn replicas_and_leaders_are_spread_evenly() {
    for nodes in [3, 4, 5, 7, 10, 33, 100] {
        let placed = place_all(&mut Field::new(equal(nodes)), 512, 3);
        let replicas = count(placed.iter().flatten());
        let fair = 512 * 3 / nodes;
        let most = *replicas.values().max().unwrap();
        let least = *replicas.values().min().unwrap();
        assert!(most <= fair * 11 / 10 + 2, "{nodes} nodes: {most} of {fair}");
        assert!(least * 2 >= fair, "{nodes} nodes: {least} of {fair}");
        let leaders = count(placed.iter().filter_map(|chosen| chosen.first()));
        let most = *leaders.values().max().unwrap();
        assert!(most <= 512 / nodes * 5 / 4 + 2, "{nodes} nodes: {most} leaders");
        assert_eq!(leaders.len(), replicas.len());
    }
}

#[test]
fn replicas_follow_capacity() {
    let mut nodes = equal(6);
    nodes.push(candidate(7, "", 3 << 40));
    let placed = place_all(&mut Field::new(nodes), 600, 2);
    let replicas = count(placed.iter().flatten());
    // Of nine units the large node has three: 400 of 1,200.
    let large = replicas[&node(7)];
    assert!((330..=450).contains(&large), "{large}");
}

#[test]
fn replicas_span_three_zones_when_there_are_three() {
    let zone = |n: u64| ["a", "a", "a", "b", "b", "c"][usize::try_from(n % 6).unwrap()];
    let nodes: Vec<_> = (1..=18).map(|n| candidate(n, zone(n), 1 << 40)).collect();
    let zones: BTreeMap<_, _> = nodes.iter().map(|n| (n.node, n.zone.clone())).collect();
    let mut field = Field::new(nodes);
    for chosen in place_all(&mut field, 200, 3) {
        let mut spanned: Vec<_> = chosen.iter().map(|node| &zones[node]).collect();
        spanned.sort_unstable();
        assert_eq!(spanned, ["a", "b", "c"]);
    }
    let five = field.choose(ShardId(1), PlacementPolicy::replicas(5), &[]).unwrap();
    let mut spanned: Vec<_> = five.iter().map(|node| zones[node].as_str()).collect();
    spanned.sort_unstable();
    assert_eq!(spanned, ["a", "a", "b", "b", "c"]);
}

#[test]
fn too_few_nodes_or_zones_are_refused() {
    let field = Field::new([candidate(1, "a", 1), candidate(2, "a", 1)]);
    assert_eq!(
        field.choose(ShardId(1), PlacementPolicy::replicas(3), &[]),
        Err(PlacementError::TooFewNodes { replicas: 3, nodes: 2 })
    );
    assert_eq!(
        field.choose(ShardId(1), PlacementPolicy { replicas: 2, zones_min: 2 }, &[]),
        Err(PlacementError::TooFewZones { zones_min: 2, zones: 1 })
    );
    let none = Field::new([]);
    assert_eq!(
        none.choose(ShardId(1), PlacementPolicy::replicas(1), &[]),
        Err(PlacementError::TooFewNodes { replicas: 1, nodes: 0 })
    );
}

#[test]
fn what_is_kept_is_not_chosen_again() {
    let field = Field::new((1..=6).map(|n| candidate(n, zone_of(n), 1)));
    let keep = [node(3)];
    let chosen = field.choose(ShardId(1), PlacementPolicy::replicas(3), &keep).unwrap();
    assert_eq!(chosen.len(), 2);
    // n3 lies in zone a, with n6.
    assert!(!chosen.contains(&node(3)) && !chosen.contains(&node(6)), "{chosen:?}");
}

/// Replicas that lie elsewhere after the change, by the ring's order alone.
fn moved(before: &Field, after: &Field, shards: u64) -> u64 {
    let policy = PlacementPolicy::replicas(3);
    let moves = |shard| {
        let old = before.choose(ShardId(shard), policy, &[]).unwrap();
        let new = after.choose(ShardId(shard), policy, &[]).unwrap();
        new.iter().filter(|node| !old.contains(node)).count() as u64
    };
    (1..=shards).map(moves).sum()
}

#[test]
fn a_node_that_joins_or_leaves_moves_little_more_than_its_share() {
    for nodes in [5, 10, 30] {
        let (small, large) = (Field::new(equal(nodes)), Field::new(equal(nodes + 1)));
        let (joined, left) = (moved(&small, &large, 600), moved(&large, &small, 600));
        let share = 600 * 3 / (nodes + 1);
        assert!(joined <= share * 5 / 4, "{nodes} nodes: {joined} moved, share {share}");
        assert!(left <= share * 5 / 4, "{nodes} nodes: {left} moved, share {share}");
        assert!(joined >= share / 2, "{nodes} nodes: {joined} moved, share {share}");
    }
}

#[test]
fn the_order_does_not_depend_on_the_order_nodes_are_named_in() {
    let mut nodes = equal(20);
    let forth = Field::new(nodes.clone());
    nodes.reverse();
    let back = Field::new(nodes);
    assert_eq!(moved(&forth, &back, 200), 0);
}
