//! One owner: in an epoch a shard has one predicate, at a position of its log
//! one configuration, and no key belongs to two shards of a volume.
//!
//! Judged from what replicas applied, what they show, and what nodes know of
//! the catalog. Source: design.md §4, "one truth each": a shard's log alone
//! decides its predicate, epoch and voters; R5 and R12 of the bug catalogue.

use std::collections::BTreeMap;

use actors::probe::Report;
use cluster::{
    catalog::view::CatalogView,
    ids::{Epoch, LogIndex, ShardId},
    raft::types::Configuration,
    shard::descriptor::{Predicate, ShardDescriptor},
};

use super::Checker;

/// What was claimed.
#[derive(Debug, Default)]
pub(super) struct OneOwner {
    predicates: BTreeMap<(ShardId, Epoch), Predicate>,
    configurations: BTreeMap<(ShardId, LogIndex), (Epoch, Configuration)>,
}

impl OneOwner {
    /// Takes note of what somebody holds to be a shard's descriptor.
    pub(super) fn descriptor(&mut self, found: &ShardDescriptor) -> Result<(), String> {
        let (shard, epoch) = (found.shard, found.epoch);
        let known = self.predicates.entry((shard, epoch));
        let known = known.or_insert_with(|| found.predicate.clone());
        if *known == found.predicate {
            return Ok(());
        }
        let owns = &found.predicate;
        Err(format!("{shard} owns {known:?} and {owns:?} in {epoch}"))
    }

    /// Takes note of the catalog as a node knows it.
    pub(super) fn catalog(&mut self, view: &CatalogView) -> Result<(), String> {
        for record in view.shards() {
            self.descriptor(&record.descriptor)?;
        }
        for volume in view.volumes() {
            let known = volume.shards.iter().filter_map(|shard| view.shard(*shard));
            let mut hashes: Vec<(u64, u64, ShardId)> = known
                .filter_map(|record| match record.descriptor.predicate {
                    Predicate::Hash { from, to } => Some((from, to, record.descriptor.shard)),
                    Predicate::Range { .. } => None,
                })
                .collect();
            hashes.sort_unstable();
            if let Some([a, b]) = hashes.array_windows().find(|[a, b]| b.0 <= a.1) {
                return Err(format!("{} and {} both own {:x}", a.2, b.2, b.0));
            }
        }
        Ok(())
    }
}

impl Checker for OneOwner {
    fn report(&mut self, _node: u32, report: &Report) -> Result<(), String> {
        let Report::Configured { shard, replica, index, epoch, configuration } = report else {
            return Ok(());
        };
        let found = (*epoch, configuration.clone());
        let known = self.configurations.entry((*shard, *index)).or_insert_with(|| found.clone());
        if *known == found {
            return Ok(());
        }
        Err(format!("{replica} of {shard} is configured at {index} as {found:?}, not {known:?}"))
    }
}

#[cfg(test)]
mod tests {
    use cluster::ids::VolumeId;

    use super::{super::samples::configured, *};

    fn owns(epoch: u64, from: u64) -> ShardDescriptor {
        ShardDescriptor {
            shard: ShardId(1),
            volume: VolumeId(1),
            epoch: Epoch(epoch),
            predicate: Predicate::Hash { from, to: u64::MAX },
            replicas: Vec::new(),
        }
    }

    #[test]
    fn two_predicates_in_one_epoch_are_found() {
        let mut checker = OneOwner::default();
        assert_eq!(checker.descriptor(&owns(1, 0)), Ok(()));
        assert_eq!(checker.descriptor(&owns(2, 7)), Ok(()), "a split begins an epoch");
        assert!(checker.descriptor(&owns(1, 7)).is_err());
    }

    #[test]
    fn two_configurations_at_one_position_are_found() {
        let mut checker = OneOwner::default();
        assert_eq!(checker.report(1, &configured(4, &[1, 2], &[])), Ok(()));
        assert_eq!(checker.report(2, &configured(4, &[1, 2], &[])), Ok(()));
        assert!(checker.report(3, &configured(4, &[1, 3], &[])).is_err());
    }
}
