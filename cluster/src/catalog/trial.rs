//! What tests of the catalog share: records in memory, and short ways to say
//! common commands.

use std::collections::BTreeMap;

use super::{
    apply::{CatalogRecords, apply},
    command::{CatalogCommand, CatalogOutcome},
    record::{ClusterRecord, NodeRecord, NodeState, VolumeKind, VolumePolicy, VolumeRecord},
    view::CatalogView,
};
use crate::{
    ids::{
        BootNonce, CATALOG_SHARD, CATALOG_VOLUME, ClusterId, Epoch, FIRST_TENANT, Incarnation,
        NodeId, ReplicaId,
    },
    membership::Boot,
    mvcc::version::Version,
    ports::engine::EngineError,
    shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    units::WallTime,
};

/// A catalog in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) records: BTreeMap<String, Vec<u8>>,
}

impl CatalogRecords for Memory {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.records.get(key).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
        let from = self.records.range(prefix.to_owned()..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn put(&mut self, key: String, value: Vec<u8>) {
        self.records.insert(key, value);
    }

    fn delete(&mut self, key: String) {
        self.records.remove(&key);
    }
}

impl Memory {
    /// A cluster with so many nodes, `n1` to `nN`, each in a zone of its own.
    pub(super) fn cluster(nodes: u64) -> Self {
        let mut memory = Self::default();
        memory.done(&bootstrap());
        for number in 2..=nodes {
            memory.join(number);
        }
        memory
    }

    /// Admits a node with a token of its own.
    pub(super) fn join(&mut self, number: u64) {
        let hash = [u8::try_from(number).unwrap(); 32];
        self.done(&CatalogCommand::AddToken { hash, expires: WallTime(1_000) });
        self.done(&CatalogCommand::AdmitNode { hash, now: WallTime(0), node: node(number) });
    }

    pub(super) fn apply(&mut self, command: &CatalogCommand) -> CatalogOutcome {
        apply(self, command).unwrap()
    }

    /// Applies what must not be refused.
    pub(super) fn done(&mut self, command: &CatalogCommand) -> CatalogOutcome {
        let outcome = self.apply(command);
        assert!(!matches!(outcome, CatalogOutcome::Refused(_)), "{command:?}: {outcome:?}");
        outcome
    }

    /// Applies what must be refused and change nothing; the reason.
    pub(super) fn refused(&mut self, command: &CatalogCommand) -> String {
        let before = self.clone();
        let outcome = self.apply(command);
        assert_eq!(*self, before, "a refusal of {command:?} changed something");
        let CatalogOutcome::Refused(refusal) = outcome else {
            panic!("{command:?} was not refused: {outcome:?}")
        };
        refusal.to_string()
    }

    pub(super) fn create(&mut self, name: &str, policy: VolumePolicy) -> VolumeRecord {
        let outcome = self.done(&create(name, policy));
        let CatalogOutcome::Volume(volume) = outcome else { panic!("{outcome:?}") };
        volume
    }

    pub(super) fn view(&self) -> CatalogView {
        let changes = self.records.iter().map(|(key, value)| (key.as_str(), Some(&value[..])));
        CatalogView::default().updated(Version(1), changes).unwrap()
    }
}

/// The id of node `nN`: as random as real ones.
pub(super) fn n(number: u64) -> NodeId {
    NodeId(xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()))
}

pub(super) fn node(number: u64) -> NodeRecord {
    NodeRecord {
        node: n(number),
        number: 0,
        addresses: vec![format!("10.0.0.{number}:7400")],
        http_address: format!("10.0.0.{number}:7401"),
        zone: format!("z{number}"),
        capacity_bytes: 1 << 40,
        state: NodeState::Active,
        boot: Boot { incarnation: Incarnation(1), nonce: BootNonce(7) },
    }
}

pub(super) fn bootstrap() -> CatalogCommand {
    let replica = ReplicaDescriptor { replica: ReplicaId(1), node: n(1), role: ReplicaRole::Voter };
    CatalogCommand::Bootstrap {
        cluster: ClusterRecord {
            cluster: ClusterId(5),
            name: "test".into(),
            authority: vec![1],
            authority_key_sealed: vec![2],
            feature_level: 1,
        },
        node: node(1),
        catalog: ShardDescriptor {
            shard: CATALOG_SHARD,
            volume: CATALOG_VOLUME,
            epoch: Epoch(1),
            predicate: Predicate::all(),
            replicas: vec![replica],
        },
    }
}

pub(super) fn policy(kind: VolumeKind, replicas: u32, shards: u32) -> VolumePolicy {
    VolumePolicy::new(kind, replicas, shards)
}

pub(super) fn create(name: &str, policy: VolumePolicy) -> CatalogCommand {
    CatalogCommand::CreateVolume { tenant: FIRST_TENANT, name: name.into(), policy }
}

pub(super) fn delete(name: &str) -> CatalogCommand {
    CatalogCommand::DeleteVolume { tenant: FIRST_TENANT, name: name.into() }
}
