//! How many replicas, and how wide apart.

use crate::catalog::record::VolumePolicy;

/// Voters of the catalog at most: five bear two failures, and every change of
/// the catalog costs a majority of them.
pub const CATALOG_VOTERS_MAX: usize = 5;

/// What the walk must satisfy for one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementPolicy {
    /// Replicas, each on a node of its own.
    pub replicas: usize,
    /// Zones they must span at least. The walk spreads over as many as there
    /// are anyway; this is the number below which it refuses.
    pub zones_min: usize,
}

impl PlacementPolicy {
    /// So many replicas in whatever zones there are.
    pub fn replicas(replicas: usize) -> Self {
        Self { replicas, zones_min: 1 }
    }

    /// What a volume's policy asks of each of its shards.
    pub fn of(policy: &VolumePolicy) -> Self {
        Self::replicas(usize::try_from(policy.replicas).unwrap_or(usize::MAX))
    }
}

/// Voters the catalog should have on so many nodes: the largest odd number up
/// to [`CATALOG_VOTERS_MAX`]. An even number bears no more failures than the
/// odd one below it and needs one more answer.
pub fn catalog_voters(nodes: usize) -> usize {
    let most = nodes.clamp(1, CATALOG_VOTERS_MAX);
    if most.is_multiple_of(2) { most - 1 } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_grows_by_odd_numbers_up_to_five() {
        let voters: Vec<_> = (0..=7).map(catalog_voters).collect();
        assert_eq!(voters, [1, 1, 1, 3, 3, 5, 5, 5]);
    }
}
