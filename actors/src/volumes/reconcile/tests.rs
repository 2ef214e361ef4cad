//! Which replicas a node begins and ends for what the catalog says.

use cluster::{
    catalog::{
        encoding::{IDS_KEY, encode_record, node_key, shard_key},
        record::{IdsRecord, LostReplica, NodeRecord, NodeState},
    },
    ids::{BootNonce, Incarnation, VolumeId},
    mvcc::version::Version,
    shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole},
};

use super::*;

fn plan(view: &CatalogView, node: NodeId, running: &BTreeMap<ShardId, ReplicaId>) -> Vec<Step> {
    super::plan(view, (node, BOOT), running, &BTreeMap::new())
}

const HERE: NodeId = NodeId(1);
const THERE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(5);
const BOOT: Boot = Boot { incarnation: Incarnation(3), nonce: BootNonce(7) };

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
    ShardRecord::new(descriptor)
}

/// A view with one shard, from a time when `next` was the next replica id.
fn view(record: &ShardRecord, next: u64) -> CatalogView {
    let ids = IdsRecord { node_number: 3, volume: 3, shard: 6, replica: next, tenant: 2 };
    let (shard, ids) = (encode_record(record), encode_record(&ids));
    let (key, node, member) = (shard_key(SHARD), node_key(HERE), encode_record(&member(BOOT)));
    let changes =
        [(&*key, Some(&shard[..])), (&*node, Some(&member[..])), (IDS_KEY, Some(&ids[..]))];
    CatalogView::default().updated(Version(1), changes).unwrap()
}

/// This node as the catalog knows it.
fn member(boot: Boot) -> NodeRecord {
    NodeRecord {
        node: HERE,
        number: 1,
        addresses: Vec::new(),
        http_address: String::new(),
        zone: String::new(),
        capacity_bytes: 1,
        state: NodeState::Active,
        boot,
    }
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
fn a_view_that_does_not_know_of_this_start_gives_birth_to_nobody() {
    let mut first = record(vec![on(HERE, 7), on(THERE, 8)], 1);
    let born = |record: &ShardRecord, boot| {
        let (node, member) = (node_key(HERE), encode_record(&member(boot)));
        let view = view(record, 9).updated(Version(2), [(&*node, Some(&member[..]))]).unwrap();
        plan(&view, HERE, &BTreeMap::new())
    };
    let before = Boot { incarnation: Incarnation(2), ..BOOT };
    assert_eq!(born(&first, before), [], "what was destroyed since would live again");
    assert_eq!(born(&first, BOOT).len(), 1);
    first.deleting = true;
    assert_eq!(born(&first, before), [Step::Confirm(SHARD, ReplicaId(7))], "never taken back");
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

/// What is to be done with these replicas running and lost here.
fn steps(view: &CatalogView, present: Option<u64>, lost: Option<u64>) -> Vec<Step> {
    let running = present.map(running).unwrap_or_default();
    let lost = lost.map(|replica| (ReplicaId(replica), SHARD)).into_iter().collect();
    super::plan(view, (HERE, BOOT), &running, &lost)
}

#[test]
fn a_lost_replica_is_reported_makes_way_for_another_and_goes_when_it_has_left() {
    let mut shard = record(vec![on(HERE, 7), on(THERE, 8)], 2);
    assert_eq!(steps(&view(&shard, 20), None, Some(7)), [Step::Report(SHARD, ReplicaId(7))]);
    shard.lost.push(LostReplica { replica: ReplicaId(7), loss: Loss::Log });
    assert_eq!(steps(&view(&shard, 20), None, Some(7)), [], "the catalog has it");
    assert_eq!(steps(&view(&shard, 20), None, None), [], "it is not begun anew");
    shard.joining.push(on(HERE, 9));
    let join = Step::Join(shard.descriptor.clone(), ReplicaId(9));
    assert_eq!(steps(&view(&shard, 20), None, Some(7)), [join]);
    assert_eq!(steps(&view(&shard, 20), Some(9), Some(7)), []);
    let after = record(vec![on(THERE, 8), on(HERE, 9)], 4);
    let destroy = [Step::Destroy(SHARD, ReplicaId(7))];
    assert_eq!(steps(&view(&after, 20), Some(9), Some(7)), destroy);
    assert_eq!(steps(&view(&after, 7), Some(9), Some(7)), [], "an older view");
}

#[test]
fn a_replica_reported_lost_that_runs_again_goes_on_only_where_it_is_needed() {
    let three = vec![on(HERE, 7), on(THERE, 8), on(NodeId(3), 9)];
    let mut shard = record(three, 2);
    shard.lost.push(LostReplica { replica: ReplicaId(7), loss: Loss::Store });
    let retire = [Step::Retire(SHARD, ReplicaId(7), Loss::Store)];
    assert_eq!(plan(&view(&shard, 10), HERE, &running(7)), retire);
    shard.lost.push(LostReplica { replica: ReplicaId(8), loss: Loss::Store });
    assert_eq!(plan(&view(&shard, 10), HERE, &running(7)), [], "one of two that are left");
    shard.joining.push(on(HERE, 10));
    assert_eq!(plan(&view(&shard, 11), HERE, &running(7)), retire, "its place is taken");
}

#[test]
fn a_deleted_shard_waits_for_its_lost_replica_too() {
    let mut deleted = record(vec![on(HERE, 7)], 3);
    deleted.deleting = true;
    let view = view(&deleted, 8);
    let destroy = [Step::Destroy(SHARD, ReplicaId(7))];
    assert_eq!(steps(&view, None, Some(7)), destroy);
}
