//! Which replicas a node begins and ends for what the catalog says.

use cluster::{
    catalog::{
        encoding::{IDS_KEY, encode_record, shard_key},
        record::IdsRecord,
    },
    ids::VolumeId,
    mvcc::version::Version,
    shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole},
};

use super::*;

const HERE: NodeId = NodeId(1);
const THERE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(5);

fn on(node: NodeId, replica: u64) -> ReplicaDescriptor {
    ReplicaDescriptor { replica: ReplicaId(replica), node, role: ReplicaRole::Voter }
}

fn record(replicas: Vec<ReplicaDescriptor>, epoch: u64) -> ShardRecord {
    let descriptor = ShardDescriptor {
        shard: SHARD,
        volume: VolumeId(2),
        epoch: Epoch(epoch),
        predicate: Predicate::all(),
        replicas,
    };
    ShardRecord { descriptor, joining: Vec::new(), deleting: false }
}

/// A view with one shard, from a time when `next` was the next replica id.
fn view(record: &ShardRecord, next: u64) -> CatalogView {
    let ids = IdsRecord { node_number: 3, volume: 3, shard: 6, replica: next, tenant: 2 };
    let (shard, ids) = (encode_record(record), encode_record(&ids));
    let key = shard_key(SHARD);
    let changes = [(key.as_str(), Some(&shard[..])), (IDS_KEY, Some(&ids[..]))];
    CatalogView::default().updated(Version(1), changes).unwrap()
}

fn running(replica: u64) -> BTreeMap<ShardId, ReplicaId> {
    BTreeMap::from([(SHARD, ReplicaId(replica))])
}

#[test]
fn a_view_older_than_a_replica_does_not_destroy_it() {
    let before = record(vec![on(THERE, 7)], 2);
    assert_eq!(plan(&view(&before, 8), HERE, &running(8)), [], "allotted after this view");
    let after = plan(&view(&before, 9), HERE, &running(8));
    assert_eq!(after, [Step::Destroy(SHARD, ReplicaId(8))], "the view knows it and wants it gone");
    let older = record(vec![on(HERE, 7)], 2);
    assert_eq!(plan(&view(&older, 8), HERE, &running(8)), []);
    assert_eq!(plan(&view(&older, 9), HERE, &running(8)), [Step::Destroy(SHARD, ReplicaId(8))]);
}

#[test]
fn founders_begin_at_the_first_epoch_and_others_join() {
    let first = record(vec![on(HERE, 7), on(THERE, 8)], 1);
    let found = plan(&view(&first, 9), HERE, &BTreeMap::new());
    assert_eq!(found, [Step::Found(first.descriptor.clone(), ReplicaId(7))]);
    let mut later = record(vec![on(THERE, 8)], 1);
    later.joining.push(on(HERE, 9));
    let join = plan(&view(&later, 10), HERE, &BTreeMap::new());
    assert_eq!(join, [Step::Join(later.descriptor.clone(), ReplicaId(9))]);
}

#[test]
fn a_replica_of_a_deleted_shard_is_destroyed_and_then_confirmed() {
    let mut deleted = record(vec![on(HERE, 7)], 3);
    deleted.deleting = true;
    let view = view(&deleted, 8);
    assert_eq!(plan(&view, HERE, &running(7)), [Step::Destroy(SHARD, ReplicaId(7))]);
    let gone = plan(&view, HERE, &BTreeMap::new());
    assert_eq!(gone, [Step::Confirm(SHARD, ReplicaId(7))]);
}
