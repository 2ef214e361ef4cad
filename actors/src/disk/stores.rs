//! The stores a node finds on its disk when it starts.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    ids::{ReplicaId, StoreId},
    mvcc::layout::progress_key,
    ports::{
        engine::{Engine, EngineError, Tree},
        log::RecoveredReplica,
    },
};

/// What was found beside the stores that replicas use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundStores {
    /// Highest number in use.
    pub highest: StoreId,
    /// Stores into which a snapshot was being received, by replica: it goes on
    /// there.
    pub partial: BTreeMap<ReplicaId, Vec<StoreId>>,
}

/// Sorts the stores of a disk. What no record of the log names is set aside,
/// unless a snapshot was being received into it.
///
/// # Errors
/// If a store cannot be set aside, or the device's.
pub fn sort_stores(
    engine: &dyn Engine,
    recovered: &[RecoveredReplica],
) -> Result<FoundStores, EngineError> {
    let named: BTreeSet<StoreId> = recovered.iter().map(|replica| replica.store).collect();
    let listed = engine.list()?;
    let highest = listed.iter().chain(&named).max().copied().unwrap_or_default();
    let mut partial: BTreeMap<ReplicaId, Vec<StoreId>> = BTreeMap::new();
    for store in listed.into_iter().filter(|store| !named.contains(store)) {
        if let Some(replica) = receiver_of(engine, store, recovered) {
            partial.entry(replica).or_default().push(store);
        } else {
            tracing::warn!(%store, "a store no record names is set aside in the quarantine");
            engine.quarantine(store)?;
        }
    }
    Ok(FoundStores { highest, partial })
}

/// The replica into which a snapshot was being received in this store.
fn receiver_of(
    engine: &dyn Engine,
    store: StoreId,
    recovered: &[RecoveredReplica],
) -> Option<ReplicaId> {
    let open = engine.open(store).ok()?;
    let view = open.view().ok()?;
    recovered.iter().map(|replica| replica.replica).find(|replica| {
        view.get(Tree::Root, &progress_key(*replica)).is_ok_and(|found| found.is_some())
    })
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{LogIndex, ShardId, Term, VolumeId},
        memory::MemoryEngine,
        ports::engine::Write,
        raft::types::HardState,
    };

    use super::*;

    #[test]
    fn a_store_with_part_of_a_snapshot_is_kept_for_its_replica_and_a_strange_one_set_aside() {
        let engine = MemoryEngine::default();
        let recovered = RecoveredReplica {
            replica: ReplicaId(5),
            shard: ShardId(2),
            volume: VolumeId(2),
            store: StoreId(1),
            hard_state: HardState::default(),
            base_index: LogIndex(0),
            base_term: Term(0),
            entries: Vec::new(),
            damaged: false,
        };
        for store in [1, 2, 3] {
            let store = engine.create(StoreId(store)).unwrap();
            drop(store);
        }
        let key = progress_key(ReplicaId(5)).to_vec();
        let progress = Write { tree: Tree::Root, key, value: Some(vec![1]) };
        engine.open(StoreId(2)).unwrap().commit(&[progress]).unwrap();
        let found = sort_stores(&engine, &[recovered]).unwrap();
        assert_eq!(found.highest, StoreId(3));
        assert_eq!(found.partial, BTreeMap::from([(ReplicaId(5), vec![StoreId(2)])]));
        assert_eq!(engine.quarantined(), [StoreId(3)]);
    }
}
