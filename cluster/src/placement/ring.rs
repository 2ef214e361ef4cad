//! The ring: consistent hashing of virtual nodes with a pinned hash.
//!
//! Each node stands on the ring as often as its capacity asks; a shard's hash
//! is a place on the ring, and the nodes met from there on, each once, are the
//! shard's own order of all nodes. A node that joins or leaves only moves the
//! shards that meet its virtual nodes first.
//!
//! Invariants: the hash (XXH3, 64 bits, little-endian input, no seed) never
//! changes; golden vectors in `testdata` say so. Weights count in units of a
//! power of two, so they stay as they are until the largest node's capacity
//! doubles.
//!
//! Source: Karger et al., "Consistent Hashing and Random Trees" (1997).

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hash, Hasher},
};

use hashring::HashRing;
use xxhash_rust::xxh3::Xxh3Default;

use crate::ids::{NodeId, ShardId};

/// Virtual nodes of the largest node lie between half of this and this: with
/// 128 the share of equal nodes varies by about a tenth before the walk evens
/// it out, and a ring of 100 nodes takes about a mebibyte.
const VIRTUAL_NODES_MAX: u64 = 128;

/// A node's share of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The node.
    pub node: NodeId,
    /// How often it stands on the ring.
    pub virtual_nodes: u64,
}

/// Turns capacities into weights; a node that names no capacity weighs least.
pub fn weights(capacities: &[(NodeId, u64)]) -> Vec<Weight> {
    let largest = capacities.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let top = largest.checked_next_power_of_two().unwrap_or(1 << 63);
    let unit = (top / VIRTUAL_NODES_MAX).max(1);
    let weigh = |bytes: u64| bytes.div_ceil(unit).max(1);
    capacities.iter().map(|&(node, bytes)| Weight { node, virtual_nodes: weigh(bytes) }).collect()
}

/// The ring of all nodes that may be chosen.
pub struct Ring {
    places: HashRing<VirtualNode, PinnedHash>,
    /// The ring's virtual nodes in its order, for the crate only answers with
    /// one of them, or with a copy of all.
    round: Vec<VirtualNode>,
    /// Where each stands in `round`.
    at: BTreeMap<(NodeId, u64), usize>,
    nodes: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("nodes", &self.nodes)
            .field("virtual_nodes", &self.places.len())
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring of these nodes, in whatever order they come.
    pub fn new(weights: &[Weight]) -> Self {
        let mut sorted = weights.to_vec();
        sorted.sort_unstable_by_key(|weight| weight.node);
        sorted.dedup_by_key(|weight| weight.node);
        let mut ring = HashRing::with_hasher(PinnedHash);
        let places = |weight: &Weight| {
            let node = weight.node;
            (0..weight.virtual_nodes).map(move |number| VirtualNode { node, number })
        };
        ring.batch_add(sorted.iter().flat_map(places).collect());
        // Asked for more than it has, the ring answers with all of itself,
        // turned to the place asked for; the turn does not matter in a round.
        let round = ring.get_with_replicas(&Place(ShardId(0)), usize::MAX).unwrap_or_default();
        let standing = round.iter().enumerate();
        let at = standing.map(|(at, place)| ((place.node, place.number), at)).collect();
        Self { places: ring, round, at, nodes: sorted.len() }
    }

    /// All nodes, each once, in the shard's own order.
    pub fn order(&self, shard: ShardId) -> Vec<NodeId> {
        let first = self.places.get(&Place(shard));
        let first = first.and_then(|place| self.at.get(&(place.node, place.number)));
        let (before, after) = self.round.split_at(first.copied().unwrap_or(0));
        let mut seen = BTreeSet::new();
        let mut order = Vec::with_capacity(self.nodes);
        for place in after.iter().chain(before) {
            if order.len() == self.nodes {
                break;
            }
            if seen.insert(place.node) {
                order.push(place.node);
            }
        }
        order
    }
}

#[derive(Clone, Copy, Debug)]
struct VirtualNode {
    node: NodeId,
    number: u64,
}

/// By hand, because the derived form writes native-endian integers.
impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.node.0.to_le_bytes());
        state.write(&self.number.to_le_bytes());
    }
}

struct Place(ShardId);

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"shard");
        state.write(&self.0.0.to_le_bytes());
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct PinnedHash;

impl BuildHasher for PinnedHash {
    type Hasher = Xxh3Default;

    fn build_hasher(&self) -> Self::Hasher {
        Xxh3Default::new()
    }
}
