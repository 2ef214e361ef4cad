//! The catalog as a stand shows it: made once, by nobody.

use cluster::{
    catalog::{
        encoding::{IDS_KEY, encode_record, node_key, shard_key, volume_key},
        record::{
            IdsRecord, NodeRecord, NodeState, ShardRecord, VolumeKind, VolumePolicy, VolumeRecord,
            VolumeState,
        },
        view::CatalogView,
    },
    ids::{BootNonce, Epoch, FIRST_TENANT, Incarnation, NodeId, ReplicaId, ShardId},
    membership::Boot,
    mvcc::version::Version,
    shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
};

use super::VOLUME;

/// The replica of shard number `shard` on node number `node`.
pub(crate) fn replica(shard: u64, node: u64) -> ReplicaId {
    ReplicaId(shard * 10 + node)
}

/// The one start of a node.
pub(super) fn boot_of(number: u64) -> Boot {
    Boot { incarnation: Incarnation(1), nonce: BootNonce(u128::from(number)) }
}

/// A node as the catalog knows it.
fn member(number: u64) -> NodeRecord {
    NodeRecord {
        node: NodeId(u128::from(number)),
        number,
        addresses: Vec::new(),
        http_address: String::new(),
        zone: String::new(),
        capacity_bytes: 1,
        state: NodeState::Active,
        boot: boot_of(number),
    }
}

/// A view with `shards` shards of `nodes` voters each.
pub(crate) fn view(nodes: u64, shards: u64) -> CatalogView {
    view_of(VolumeKind::Hash, nodes, shards)
}

/// The same for a volume of a kind.
pub(super) fn view_of(kind: VolumeKind, nodes: u64, shards: u64) -> CatalogView {
    let placed = |node, shard| ReplicaDescriptor {
        replica: replica(shard, node),
        node: NodeId(u128::from(node)),
        role: ReplicaRole::Voter,
    };
    let volume = VolumeRecord {
        volume: VOLUME,
        tenant: FIRST_TENANT,
        name: "v".into(),
        policy: VolumePolicy::new(
            kind,
            u32::try_from(nodes).unwrap(),
            u32::try_from(shards).unwrap(),
        ),
        shards: (0..shards).map(|number| ShardId(100 + number)).collect(),
        state: VolumeState::Ready,
    };
    let ids = IdsRecord { node_number: 9, volume: 9, shard: 9_999, replica: 1_000_000, tenant: 9 };
    let mut records = vec![
        (volume_key(FIRST_TENANT, "v"), encode_record(&volume)),
        (IDS_KEY.to_owned(), encode_record(&ids)),
    ];
    records.extend((1..=nodes).map(|number| {
        let record = member(number);
        (node_key(record.node), encode_record(&record))
    }));
    for shard in 100..100 + shards {
        let descriptor = ShardDescriptor {
            shard: ShardId(shard),
            volume: VOLUME,
            epoch: Epoch(1),
            predicate: Predicate::all(),
            replicas: (1..=nodes).map(|node| placed(node, shard)).collect(),
        };
        let record = ShardRecord::new(descriptor);
        records.push((shard_key(ShardId(shard)), encode_record(&record)));
    }
    let changes = records.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice())));
    CatalogView::default().updated(Version(1), changes).unwrap()
}
