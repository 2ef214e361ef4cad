//! Tests of the pacer: old versions leave the stores, shards at rest sleep on,
//! and a tight disk makes room sooner.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, ops::Bound, ops::ControlFlow, sync::atomic::Ordering::Relaxed};

use cluster::{
    catalog::{
        encoding::{encode_record, volume_key},
        record::{VolumeKind, VolumePolicy},
    },
    ids::FIRST_TENANT,
    memory::{MemoryEngine, MemoryFiles},
    mvcc::{compaction::HistoryPolicy, version::Version},
    ports::engine::{Order, Tree},
    request::{ReadLevel, ShardResult, WriteLevel},
    shard::command::{Op, Outcome},
};

use super::*;
use crate::{
    budget::NodeLimits,
    probe::Report,
    stand::{Node, Stand, get},
    world::SpaceGauge,
};

#[test]
fn store_numbers_rise_from_the_highest_in_use() {
    let ids = StoreIds::after(StoreId(7));
    assert_eq!((ids.next(), ids.next()), (StoreId(8), StoreId(9)));
}

/// A disk with so much room above its reserve of ten.
#[derive(Debug)]
struct Nearly(u64);

impl SpaceGauge for Nearly {
    fn measure(&self) -> Space {
        let (used_bytes, capacity_bytes, reserve_bytes) = (50, 100, 10);
        let device_bytes = self.0;
        Space { used_bytes, capacity_bytes, room_bytes: self.0, device_bytes, reserve_bytes }
    }
}

async fn pace(stand: &Stand, number: u64, room_bytes: u64) {
    let node = stand.node(number);
    let (_, hosted) = watch::channel(node.router.hosted());
    let world = World { space: Arc::new(Nearly(room_bytes)), ..node.world.clone() };
    let arguments = DiskArguments {
        world,
        hosted,
        budget: Arc::clone(&node.budget),
        router: node.router.clone(),
        space: watch::channel(Space::default()).0,
    };
    Actor::spawn(None, DiskActor, arguments).await.unwrap();
}

/// Entries of history and changes in the store of a shard.
fn old_entries(node: &Node, shard: u64) -> usize {
    let half = node.handle(shard).unwrap().published.borrow().half.clone().unwrap();
    let view = half.store.view().unwrap();
    let mut count = 0;
    for tree in [Tree::History, Tree::Changes] {
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        view.scan(tree, from, to, Order::Ascending, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    count
}

async fn delete(stand: &Stand, shard: u64, key: &str) {
    let ops = vec![Op::Delete { key: key.into() }];
    let body = cluster::request::ShardBody::Write { request: None, level: WriteLevel::Memory, ops };
    assert_eq!(stand.ask(shard, body).await, ShardResult::Accepted);
}

fn asleep(stand: &Stand, shards: u64) -> bool {
    let sleeps = |node: &Node, shard| node.status(shard).is_some_and(|s| s.hibernating);
    (100..100 + shards).all(|shard| stand.nodes.values().all(|node| sleeps(node, shard)))
}

fn woken(stand: &Stand) -> usize {
    let woke = |report: &Report| matches!(report, Report::Hibernating { asleep: false, .. });
    stand.nodes.values().map(|node| node.notes.count(woke)).sum()
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_leaves_all_stores_after_ten_minutes_and_wakes_a_shard_once() {
    let mut stand = Stand::start(3, 30).await;
    for shard in 100..130 {
        stand.leader(shard).await;
    }
    for number in 1..=3 {
        pace(&stand, number, 50).await;
    }
    for round in 0..20_u8 {
        stand.put(100, "kept", &[round]).await;
        stand.put(100, "deleted", &[round]).await;
        stand.put(101, &format!("k{round}"), &[round]).await;
    }
    delete(&stand, 100, "deleted").await;
    let all_asleep = |stand: &Stand| asleep(stand, 30);
    stand.until("all sleep", all_asleep).await;
    stand.pass(300).await;
    let (before, frames) = (woken(&stand), stand.wires.frames.load(Relaxed));
    for node in stand.nodes.values() {
        assert!(old_entries(node, 100) > 60, "history is kept for ten minutes");
    }
    stand.pass(400).await;
    for node in stand.nodes.values() {
        // One value of one key is left, and no trace of the other.
        assert_eq!((old_entries(node, 100), old_entries(node, 101)), (0, 0));
    }
    // Two shards of three replicas woke, once; the others never heard of it.
    assert_eq!(woken(&stand) - before, 6);
    stand.until("all sleep again", all_asleep).await;
    let (rest, sent) = (woken(&stand), stand.wires.frames.load(Relaxed));
    println!("compacting two of thirty sleeping shards took {} frames", sent - frames);
    stand.pass(3_600).await;
    assert_eq!((woken(&stand), stand.wires.frames.load(Relaxed)), (rest, sent));
    assert_eq!(stand.get(100, "kept").await.unwrap().value, [19]);
    assert!(stand.get(100, "deleted").await.is_none());
}

/// Three nodes with one shard of a volume that was told how much to keep.
async fn keeping(kind: VolumeKind, history: HistoryPolicy) -> Stand {
    let mut stand = Stand::empty(3, 1, NodeLimits::default(), 1 << 20);
    let mut record = stand.view.volume(FIRST_TENANT, "v").unwrap().clone();
    record.policy = VolumePolicy { kind, history, ..record.policy };
    let (key, record) = (volume_key(FIRST_TENANT, "v"), encode_record(&record));
    let change = [(key.as_str(), Some(record.as_slice()))];
    stand.view = Arc::new(stand.view.updated(Version(2), change).unwrap());
    for number in 1..=3 {
        stand.boot(number, MemoryFiles::new(), MemoryEngine::default(), BTreeMap::new()).await;
    }
    stand.leader(100).await;
    for number in 1..=3 {
        pace(&stand, number, 50).await;
    }
    stand
}

/// What is left of the past on each node, changes of the present among it.
fn left(stand: &Stand) -> Vec<usize> {
    stand.nodes.values().map(|node| old_entries(node, 100)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_volume_keeps_its_past_as_long_as_it_was_told_to_and_sleeps_meanwhile() {
    // What the last change replaced stays where nothing can be above it.
    for (kind, least) in [(VolumeKind::Single, 2), (VolumeKind::Hash, 0)] {
        let mut stand = keeping(kind, HistoryPolicy::Age(30 * 60_000)).await;
        for round in 0..20_u8 {
            stand.put(100, "k", &[round]).await;
        }
        stand.until("it sleeps", |stand| asleep(stand, 1)).await;
        stand.pass(29 * 60).await;
        assert!(left(&stand).iter().all(|left| *left > 20), "{kind:?}: {:?}", left(&stand));
        let before = woken(&stand);
        stand.pass(5 * 60).await;
        assert_eq!(left(&stand), [least; 3], "{kind:?}");
        assert_eq!(woken(&stand) - before, 3, "once, on each node");
        stand.pass(3_600).await;
        assert_eq!(woken(&stand) - before, 3, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_told_nothing_keeps_its_counted_past_for_ever() {
    let mut stand = keeping(VolumeKind::Single, HistoryPolicy::Usual).await;
    for round in 0..20_u8 {
        stand.put(100, "k", &[round]).await;
    }
    stand.pass(6 * 3_600).await;
    assert!(left(&stand).iter().all(|left| *left > 20), "{:?}", left(&stand));
}

#[tokio::test(start_paused = true)]
async fn a_volume_keeps_as_many_versions_as_it_was_told_to() {
    let mut stand = keeping(VolumeKind::Single, HistoryPolicy::Versions(50)).await;
    for round in 0..200_u8 {
        stand.put(100, "k", &[round]).await;
    }
    stand.pass(30).await;
    for left in left(&stand) {
        // An old value and a change for each, and a step of a tenth.
        assert!((2 * 50..=2 * 56).contains(&left), "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_disk_is_tight_has_the_leader_let_go_of_history_sooner() {
    let mut stand = Stand::start(3, 1).await;
    let leader = stand.leader(100).await;
    let tight = *stand.others(leader).first().unwrap();
    for number in 1..=3 {
        // Fifteen left of which ten are reserved: tight, but not full.
        pace(&stand, number, if number == tight { 15 } else { 50 }).await;
    }
    for round in 0..20_u8 {
        stand.put(100, "k", &[round]).await;
    }
    stand.pass(15).await;
    assert!(old_entries(stand.node(tight), 100) > 20, "kept for half a minute");
    stand.pass(30).await;
    for node in stand.nodes.values() {
        assert_eq!(old_entries(node, 100), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_below_what_was_let_go_of_is_refused_by_name() {
    let mut stand = Stand::start(1, 1).await;
    stand.put(100, "k", b"1").await;
    let first = stand.get(100, "k").await.unwrap().modified;
    stand.put(100, "k", b"2").await;
    let node = stand.node(1);
    let compact = |version| cluster::request::ShardBody::Compact { version };
    let later = stand.get(100, "k").await.unwrap().modified;
    let done = node.ask(100, compact(later)).await;
    let Ok(ShardResult::Outcome(Outcome::Compacted { before, compacted, .. })) = done else {
        panic!("{done:?}")
    };
    assert_eq!((before, compacted), (Version(0), later));
    let mut read = get("k", ReadLevel::Strong);
    if let cluster::request::ShardBody::Get { at, .. } = &mut read {
        *at = Some(first);
    }
    let refused = node.ask(100, read).await;
    let compacted = cluster::request::Fault::Compacted { at: first, compacted: later };
    assert_eq!(refused, Err(compacted));
    // Asked for again, it takes no entry of the log.
    let last = node.status(100).unwrap().last;
    node.ask(100, compact(first)).await.unwrap();
    assert_eq!(node.status(100).unwrap().last, last);
}

/// Nobody waits for a sweep: what it does not do for long is only room that is not
/// there yet.
#[tokio::test(start_paused = true)]
async fn a_sweep_that_stands_still_keeps_neither_readers_nor_writers_waiting() {
    let mut stand = Stand::start(3, 1).await;
    stand.leader(100).await;
    for round in 0..50_u8 {
        stand.put(100, "k", &[round]).await;
    }
    let all = |stand: &Stand, message: fn() -> ReplicaMessage| {
        for node in stand.nodes.values() {
            node.handle(100).unwrap().actor.cast(message()).unwrap();
        }
    };
    stand.pass(1).await;
    all(&stand, || ReplicaMessage::Flush { pressed: false });
    stand.until("it lies in the stores", |stand| left(stand).iter().all(|left| *left >= 99)).await;
    let version = stand.get(100, "k").await.unwrap().modified;
    let compact = cluster::request::ShardBody::Compact { version };
    assert!(matches!(stand.ask(100, compact).await, ShardResult::Outcome(_)));
    stand.pass(1).await;

    let hold = |stand: &Stand, holding| {
        for node in stand.nodes.values() {
            node.workers.holding.store(holding, Relaxed);
        }
    };
    hold(&stand, true);
    all(&stand, || ReplicaMessage::Sweep);
    stand.pass(1).await;
    hold(&stand, false);
    let begun = tokio::time::Instant::now();
    for round in 0..20_u8 {
        stand.put(100, "k", &[round]).await;
        assert_eq!(stand.get(100, "k").await.unwrap().value, [round]);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(left(&stand).iter().all(|left| *left >= 99), "the sweeps stand still");
    for node in stand.nodes.values() {
        assert_eq!(node.workers.release(), 1, "one sweep stood still");
    }
    stand.until("it is swept", |stand| left(stand) == [2; 3]).await;
}
