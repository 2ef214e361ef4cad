//! Replicas on a test stand: what goes wrong in one stays in one.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use cluster::{
    catalog::{
        encoding::{encode_record, shard_key},
        view::CatalogView,
    },
    ids::{LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term},
    memory::{MemoryEngine, MemoryFiles},
    mvcc::version::{Version, VersionKind},
    ports::{
        engine::Engine,
        log::{LogError, LogRecord},
    },
    raft::types::{Entry, HardState, Message, Payload},
    request::{Fault, ReadLevel, ShardBody, ShardResult, WriteLevel},
    shard::{
        command::{Op, Outcome, SessionRequest},
        machine::ShardMachine,
        range::Range,
        root::ShardRole,
        transaction::{Compare, Keys, Step, Transaction},
    },
};

use super::messages::ReplicaMessage;
use crate::{
    budget::NodeLimits,
    disk::{DiskActor, DiskArguments, SEGMENTS_MAX},
    probe::Report,
    stand::{Node, Stand, VOLUME, get, replica},
    volumes::VolumesMessage,
    world::Space,
};

fn stopped(node: &Node, shard: u64) -> bool {
    node.status(shard).is_some_and(|status| status.stopped.is_some())
}

#[tokio::test(start_paused = true)]
async fn what_is_written_can_be_read_on_every_node_and_after_all_were_killed() {
    let mut stand = Stand::start(3, 2).await;
    stand.put(100, "a", b"1").await;
    stand.put(101, "b", b"2").await;
    let mut disks = Vec::new();
    for number in 1..=3 {
        disks.push(stand.kill(number).await);
    }
    for (number, (files, engine)) in (1..).zip(disks) {
        stand.boot(number, files, engine, BTreeMap::new()).await;
    }
    assert_eq!(stand.get(100, "a").await.unwrap().value, b"1");
    assert_eq!(stand.get(101, "b").await.unwrap().value, b"2");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_leader_died_with_the_answer_is_not_done_again() {
    let mut stand = Stand::start(3, 1).await;
    let ShardResult::Outcome(Outcome::Session(session)) =
        stand.ask(100, ShardBody::OpenSession).await
    else {
        panic!("no session")
    };
    let request = SessionRequest { session, number: 1, answered: 0 };
    let transaction = Transaction::new()
        .when(Compare::absent("lock"))
        .then(Step::put("lock", "me"))
        .then(Step::get("lock"))
        .otherwise(Step::get("lock"));
    let body = ShardBody::Transact { request, transaction };
    let leader = stand.leader(100).await;
    let lost = stand.node(leader).ask(100, body.clone()).await.unwrap();
    stand.kill(leader).await;
    let again = stand.ask(100, body.clone()).await;
    assert_eq!(again, lost, "the answer that was lost");
    let ShardResult::Outcome(Outcome::Transacted(done)) = again else { panic!("{again:?}") };
    assert!(done.succeeded && done.changed);
    let twice = Transaction::new().then(Step::put("a", "1")).then(Step::put("a", "2"));
    let body = ShardBody::Transact { request, transaction: twice };
    let leader = stand.leader(100).await;
    let refused = stand.node(leader).ask(100, body).await.unwrap_err();
    assert!(
        matches!(&refused, Fault::Invalid(text) if text.contains("duplicate key")),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_raft_half_disturbs_no_other_is_restarted_and_then_given_up() {
    let mut stand = Stand::start(3, 2).await;
    stand.put(100, "a", b"1").await;
    stand.put(101, "b", b"1").await;
    let hit = replica(100, 2);
    let restarts = |node: &Node| node.notes.count(|note| matches!(note, Report::Restarted { .. }));
    for number in 1..=3 {
        stand.node(2).log.panics.lock().unwrap().insert(hit, 1);
        let value = number.to_string();
        stand.put(100, "a", value.as_bytes()).await;
        stand.put(101, "b", value.as_bytes()).await;
        stand.until("a restart", |stand| restarts(stand.node(2)) >= number).await;
        stand.until("it is back", |stand| stand.node(2).handle(100).is_some()).await;
    }
    stand.node(2).log.panics.lock().unwrap().insert(hit, 1);
    stand.put(100, "a", b"end").await;
    let given_up = |node: &Node| {
        node.notes
            .count(|note| matches!(note, Report::ReplicaStopped { replica, .. } if *replica == hit))
    };
    stand.until("it is given up", |stand| given_up(stand.node(2)) == 1).await;
    assert_eq!(restarts(stand.node(2)), 3, "as the policy says");
    assert!(stand.node(2).handle(100).is_none());
    // Its neighbour on the same node, and its peers, never noticed.
    let neighbour = stand.node(2).ask(101, get("b", ReadLevel::Eventual)).await;
    assert!(matches!(neighbour, Ok(ShardResult::Value(Some(_)))), "{neighbour:?}");
    assert_eq!(stand.get(100, "a").await.unwrap().value, b"end");
    assert_eq!(restarts(stand.node(1)) + restarts(stand.node(3)), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_apply_half_stops_that_replica_alone() {
    let mut stand = Stand::start(3, 2).await;
    stand.put(100, "a", b"1").await;
    stand.put(101, "b", b"1").await;
    let leader = stand.leader(100).await;
    let hit = *stand.others(leader).first().unwrap();
    let node = stand.node(hit);
    let stores = node.engine.inner.list().unwrap();
    // The shards were born in their order.
    node.engine.panics.lock().unwrap().insert(stores[0]);
    stand.put(100, "a", b"2").await;
    stand.put(101, "b", b"2").await;
    stand.until("it stopped", |stand| stopped(stand.node(hit), 100)).await;
    stand.pass(5).await;
    let refused = stand.node(hit).ask(100, get("a", ReadLevel::Eventual)).await;
    assert!(matches!(refused, Err(Fault::Stopped(cause)) if cause.contains("panic")));
    assert!(!stopped(stand.node(hit), 101));
    assert_eq!(stand.get(100, "a").await.unwrap().value, b"2");
    assert_eq!(stand.get(101, "b").await.unwrap().value, b"2");
    assert_eq!(stand.node(hit).notes.count(|n| matches!(n, Report::Restarted { .. })), 0);
}

/// A disk with the birth of one founder and `entries` in its log.
fn disk_with(stand: &Stand, node: u64, entries: Vec<Entry>) -> (MemoryFiles, MemoryEngine) {
    let (files, engine) = (MemoryFiles::new(), MemoryEngine::default());
    let (mut log, _) = stand.open_log(node, &files);
    let (id, store) = (replica(100, node), StoreId(1));
    let descriptor = &stand.view.shard(ShardId(100)).unwrap().descriptor;
    let birth = ShardMachine::birth(id, descriptor, VersionKind::Hybrid, ShardRole::Data);
    engine.create(store).unwrap().commit(&birth).unwrap();
    let created = LogRecord::Created {
        shard: ShardId(100),
        volume: VOLUME,
        store,
        index: LogIndex(0),
        term: Term(0),
    };
    let hard_state = HardState { term: Term(1), vote: ReplicaId(0), commit: LogIndex(0) };
    let ready = LogRecord::Ready { hard_state: Some(hard_state), entries };
    log.append(&[(id, created), (id, ready)]).unwrap();
    log.sync().unwrap();
    (files, engine)
}

#[tokio::test(start_paused = true)]
async fn a_poison_entry_stops_its_shard_on_every_node_and_nothing_else() {
    let mut stand = Stand::empty(3, 2, NodeLimits::default(), 1 << 20);
    let mut poison =
        cluster::shard::command::COMMAND_VERSION.wrapping_add(7).to_le_bytes().to_vec();
    poison.extend([1, 2, 3]);
    let entry = Entry { index: LogIndex(1), term: Term(1), payload: Payload::Command(poison) };
    for node in 1..=3 {
        let (files, engine) = disk_with(&stand, node, vec![entry.clone()]);
        stand.boot(node, files, engine, BTreeMap::new()).await;
    }
    let all = |stand: &Stand| stand.nodes.values().all(|node| stopped(node, 100));
    stand.until("the shard stops everywhere", all).await;
    for node in stand.nodes.values() {
        let alarms = node.notes.count(|note| matches!(note, Report::ReplicaStopped { .. }));
        assert_eq!(alarms, 1, "one alarm each");
    }
    let refused = stand.node(1).ask(100, get("a", ReadLevel::Eventual)).await;
    assert!(matches!(refused, Err(Fault::Stopped(_))), "{refused:?}");
    stand.put(101, "b", b"1").await;
    assert_eq!(stand.get(101, "b").await.unwrap().value, b"1");
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_log_is_damaged_takes_no_part() {
    let mut stand = Stand::start(3, 2).await;
    stand.put(100, "a", b"1").await;
    stand.put(101, "b", b"1").await;
    let mut disks = Vec::new();
    for number in 1..=3 {
        disks.push(stand.kill(number).await);
    }
    // One of three in one shard, two of three in the other.
    stand.spoiled.extend([replica(100, 3), replica(101, 2), replica(101, 3)]);
    for (number, (files, engine)) in (1..).zip(disks) {
        stand.boot(number, files, engine, BTreeMap::new()).await;
    }
    assert_eq!(stand.get(100, "a").await.unwrap().value, b"1");
    stand.put(100, "a", b"2").await;
    stand.pass(30).await;
    for (shard, node) in [(100, 3), (101, 2), (101, 3)] {
        let hosted = stand.node(node).router.hosted();
        let (_, cause) = &hosted.lost[&replica(shard, node)];
        assert!(cause.contains("damaged"), "{cause}");
        let refused = stand.node(node).ask(shard, get("a", ReadLevel::Eventual)).await;
        assert!(matches!(refused, Err(Fault::NoReplica(_))), "{refused:?}");
        let notes = &stand.node(node).notes;
        assert_eq!(notes.count(|note| matches!(note, Report::ReplicaStopped { .. })), 0);
    }
    let led = |node: &Node| node.status(101).is_some_and(|status| status.leading);
    assert!(!stand.nodes.values().any(led), "a vote came from a damaged replica");
}

#[tokio::test(start_paused = true)]
async fn a_leader_with_a_stalled_disk_gives_leadership_away_within_five_seconds() {
    let mut stand = Stand::start(3, 1).await;
    stand.put(100, "a", b"1").await;
    let leader = stand.leader(100).await;
    let begun = tokio::time::Instant::now();
    stand.node(leader).log.stalled.store(true, Relaxed);
    stand.put(100, "a", b"2").await;
    let pause = begun.elapsed();
    println!("a stalled disk cost its shard {pause:?}");
    assert!(pause < Duration::from_secs(5), "{pause:?}");
    assert_ne!(stand.leader(100).await, leader);
    stand.node(leader).log.resume();
    stand.put(100, "a", b"3").await;
    let caught_up = |stand: &Stand| {
        let applied = |node: &Node| node.status(100).map(|status| status.applied);
        applied(stand.node(leader)) == applied(stand.node(*stand.others(leader).first().unwrap()))
    };
    stand.until("it caught up", caught_up).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_flush_of_a_dead_actor_changes_nothing_under_its_successor() {
    let mut stand = Stand::start(1, 1).await;
    for value in 1..=3u8 {
        stand.put(100, "a", &[value]).await;
    }
    // The commit of the last entry is not in the log yet: it is applied late.
    stand.put(100, "z", b"1").await;
    let node = stand.node(1);
    // A flush is begun and its commit waits; the actor fails meanwhile.
    node.workers.holding.store(true, Relaxed);
    let flush = || ReplicaMessage::Flush { pressed: false };
    node.handle(100).unwrap().actor.cast(flush()).unwrap();
    stand.pass(1).await;
    node.log.panics.lock().unwrap().insert(replica(100, 1), 1);
    let op = Op::Put { key: b"b".to_vec(), value: b"1".to_vec() };
    let body = ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: vec![op] };
    let _ = node.ask(100, body).await;
    let restarted = |stand: &Stand| {
        let notes = &stand.node(1).notes;
        notes.count(|note| matches!(note, Report::Restarted { .. })) == 1
            && stand.node(1).status(100).is_some_and(|status| status.version > Version(0))
    };
    // The new actor has opened the store, and applies again from its log.
    node.log.stalled.store(true, Relaxed);
    stand.until("it runs again", restarted).await;
    assert_eq!(stand.node(1).workers.release(), 1, "the old flush was on its way");
    stand.node(1).log.resume();
    stand.put(100, "a", b"4").await;
    stand.node(1).handle(100).unwrap().actor.cast(flush()).unwrap();
    stand.pass(1).await;
    let late = stand.get(100, "z").await.unwrap();
    assert_eq!(late.changes, 1, "it took effect once");
    let item = stand.get(100, "a").await.unwrap();
    assert_eq!((item.value, item.changes), (b"4".to_vec(), 4), "each entry took effect once");
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_destroyed_whatever_it_is_doing() {
    let mut stand = Stand::start(1, 3).await;
    stand.put(100, "a", b"1").await;
    stand.put(101, "a", b"1").await;
    stand.put(102, "a", b"1").await;
    let node = stand.node(1);
    // One rests before a restart, one has a record in flight, one runs.
    node.log.panics.lock().unwrap().insert(replica(100, 1), 9);
    let op = Op::Put { key: b"b".to_vec(), value: b"1".to_vec() };
    let body = ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: vec![op] };
    let _ = node.ask(100, body.clone()).await;
    node.log.stalled.store(true, Relaxed);
    let _ = node.ask(101, body).await;
    let view = Arc::new(without_shards(&stand.view));
    node.volumes.cast(VolumesMessage::CatalogChanged(view)).unwrap();
    stand.pass(1).await;
    assert!(!node.engine.inner.list().unwrap().is_empty(), "no end before it is durable");
    node.log.panics.lock().unwrap().clear();
    node.log.resume();
    let gone = |stand: &Stand| stand.node(1).engine.inner.list().unwrap().is_empty();
    stand.until("all data is gone", gone).await;
    let (_, left) = stand.open_log(1, &stand.node(1).files);
    assert_eq!(left, [], "the log knows none of them");
    assert_eq!(stand.node(1).budget.overlay_bytes(), 0);
}

/// The same catalog with all shards to be destroyed.
fn without_shards(view: &CatalogView) -> CatalogView {
    let records: Vec<_> = view
        .shards()
        .map(|record| {
            let mut record = record.clone();
            record.deleting = true;
            (shard_key(record.descriptor.shard), encode_record(&record))
        })
        .collect();
    let changes = records.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice())));
    view.updated(Version(2), changes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_replica_given_up_can_still_be_destroyed() {
    let mut stand = Stand::start(1, 1).await;
    stand.put(100, "a", b"1").await;
    let node = stand.node(1);
    node.log.panics.lock().unwrap().insert(replica(100, 1), 4);
    let op = Op::Put { key: b"b".to_vec(), value: b"1".to_vec() };
    let body = ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: vec![op] };
    let given_up = |stand: &Stand| {
        stand.node(1).notes.count(|note| matches!(note, Report::ReplicaStopped { .. })) == 1
    };
    for _ in 0..100 {
        if !given_up(&stand) {
            let _ = node.ask(100, body.clone()).await;
            stand.pass(1).await;
        }
    }
    assert!(given_up(&stand));
    assert_eq!(node.engine.inner.list().unwrap().len(), 1);
    let view = Arc::new(without_shards(&stand.view));
    node.volumes.cast(VolumesMessage::CatalogChanged(view)).unwrap();
    let gone = |stand: &Stand| stand.node(1).engine.inner.list().unwrap().is_empty();
    stand.until("its data is gone", gone).await;
    assert!(stand.node(1).router.hosted().stopped.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_cannot_speak_for_a_replica_that_lies_elsewhere() {
    let mut stand = Stand::start(3, 1).await;
    stand.put(100, "a", b"1").await;
    let leader = stand.leader(100).await;
    let others: Vec<_> = stand.others(leader).into_iter().collect();
    let term = Term(stand.node(leader).status(100).unwrap().term);
    // The second node claims that the third agreed to sleep.
    let message = Message::Hibernating { term, index: LogIndex(1) };
    let liar = NodeId(u128::from(others[0]));
    stand.node(leader).handle(100).unwrap().deliver(replica(100, others[1]), liar, message, 10);
    stand.pass(1).await;
    let refused = |note: &Report| matches!(note, Report::PeerRefused { peer, .. } if *peer == liar);
    assert_eq!(stand.node(leader).notes.count(refused), 1);
    stand.put(100, "a", b"2").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_wakes_a_sleeping_shard_whose_leader_died_in_silence() {
    let mut stand = Stand::start(3, 1).await;
    stand.put(100, "a", b"1").await;
    let asleep =
        |stand: &Stand| stand.nodes.values().all(|node| node.status(100).unwrap().hibernating);
    stand.until("the shard sleeps", asleep).await;
    let leader = stand.leader(100).await;
    // Nobody hears of its end: no connection was open.
    let dead = stand.nodes.remove(&NodeId(u128::from(leader))).unwrap();
    stand.wires.cut(dead.id);
    let begun = tokio::time::Instant::now();
    assert_eq!(stand.get(100, "a").await.unwrap().value, b"1");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_shards_sleep_and_send_nothing() {
    let stand = Stand::start(3, 1_000).await;
    let asleep = |stand: &Stand| {
        let sleeps = |node: &Node, shard| node.status(shard).is_some_and(|s| s.hibernating);
        (100..1_100).all(|shard| stand.nodes.values().all(|node| sleeps(node, shard)))
    };
    stand.until("all sleep", asleep).await;
    let before = stand.wires.frames.load(Relaxed);
    stand.pass(60).await;
    let sent = stand.wires.frames.load(Relaxed) - before;
    println!("1,000 idle shards on three nodes sent {sent} frames in a minute");
    assert!(sent <= 6, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn readers_share_rounds_of_heartbeats() {
    let mut stand = Stand::start(3, 1).await;
    stand.put(100, "a", b"1").await;
    let leader = stand.leader(100).await;
    let frames = stand.wires.frames.load(Relaxed);
    let node = stand.node(leader);
    let reads = (0..64).map(|_| node.ask(100, get("a", ReadLevel::Strong)));
    let answers = futures_util::future::join_all(reads).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(ShardResult::Value(Some(_))))));
    let sent = stand.wires.frames.load(Relaxed) - frames;
    println!("64 readers at once cost {sent} frames between three nodes");
    // A round takes one frame to each follower and one back.
    assert!(sent <= 4 * 2, "{sent}");
}

/// A node that starts again has no view of the catalog and knows no volume's kind: what
/// may be read without the leader is in the root record.
#[tokio::test(start_paused = true)]
async fn a_restarted_follower_reads_no_old_version_by_itself_that_is_counted() {
    let mut stand = Stand::counting(3, 1).await;
    stand.put(100, "a", b"1").await;
    stand.put(100, "a", b"2").await;
    let read = || {
        let keys = Keys::One(b"a".to_vec());
        let range = Range { at: Some(Version(2)), ..Range::of(keys) };
        ShardBody::Range { range, level: ReadLevel::Strong }
    };
    let follower = *stand.others(stand.leader(100).await).first().unwrap();
    let (files, engine) = stand.kill(follower).await;
    stand.put(100, "a", b"3").await;
    let view = std::mem::take(&mut stand.view);
    stand.boot(follower, files, engine, BTreeMap::new()).await;
    stand.view = view;
    let knows = |stand: &Stand| {
        stand.node(follower).status(100).is_some_and(|status| status.leader.is_some())
    };
    stand.until("the follower knows a leader", knows).await;
    let answer = stand.node(follower).ask(100, read()).await;
    assert!(matches!(answer, Err(Fault::NotLeader { leader: Some(_) })), "{answer:?}");
    let ShardResult::Range { result, now, .. } = stand.ask(100, read()).await else { panic!() };
    assert_eq!((result.items[0].value.as_slice(), now), (&b"1"[..], Version(4)));
}

#[tokio::test(start_paused = true)]
async fn writes_that_meet_a_round_under_way_go_together_with_the_next() {
    const WRITES: u64 = 40;
    let mut stand = Stand::start(3, 1).await;
    stand.put(100, "a", b"1").await;
    let mut sessions = Vec::new();
    for _ in 0..WRITES {
        let opened = stand.ask(100, ShardBody::OpenSession).await;
        let ShardResult::Outcome(Outcome::Session(session)) = opened else { panic!("{opened:?}") };
        sessions.push(session);
    }
    let leader = stand.leader(100).await;
    let stall = |is| {
        for other in stand.others(leader) {
            let log = &stand.node(other).log;
            if is { log.stalled.store(true, Relaxed) } else { log.resume() }
        }
    };
    stall(true);
    let frames = stand.wires.frames.load(Relaxed);
    let writes = (0..WRITES).zip(sessions).map(|(number, session)| {
        let op = Op::Put { key: number.to_string().into_bytes(), value: vec![0] };
        let request = Some(SessionRequest { session, number: 1, answered: 0 });
        let body = ShardBody::Write { request, level: WriteLevel::Strong, ops: vec![op] };
        let node = stand.node(leader);
        async move {
            tokio::time::sleep(Duration::from_millis(number)).await;
            node.ask(100, body).await
        }
    });
    let moving = async {
        tokio::time::sleep(Duration::from_millis(2 * WRITES)).await;
        stall(false);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(writes), moving);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let sent = stand.wires.frames.load(Relaxed) - frames;
    println!("{WRITES} writes in a row cost {sent} frames between three nodes");
    // The first went alone; the others, one each millisecond, waited for it.
    assert!(sent <= 20, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_receiver_is_killed_half_way_goes_on_where_it_was() {
    let mut stand = Stand::start(3, 1).await;
    let value = vec![7; 512 << 10];
    for key in 0..4 {
        stand.put(100, &format!("k{key}"), &value).await;
    }
    let leader = stand.leader(100).await;
    let behind = *stand.others(leader).first().unwrap();
    let (files, engine) = stand.kill(behind).await;
    for key in 4..40 {
        stand.put(100, &format!("k{key}"), &value).await;
    }
    stand.pass(5).await;
    for number in stand.others(behind) {
        let actor = stand.node(number).handle(100).unwrap().actor;
        actor.cast(ReplicaMessage::Flush { pressed: false }).unwrap();
        stand.pass(1).await;
        actor.cast(ReplicaMessage::Flush { pressed: true }).unwrap();
    }
    stand.pass(1).await;
    stand.boot(behind, files, engine, BTreeMap::new()).await;
    // Twenty megabytes in pieces of one: stop it after eleven.
    stand.until("half of it came", |stand| stand.wires.pieces.load(Relaxed) >= 11).await;
    let (files, engine) = stand.kill(behind).await;
    let before = stand.wires.pieces.load(Relaxed);
    // It is gone for most of a minute: a slow restart.
    stand.pass(45).await;
    let own = stand.open_log(behind, &files).1[0].store;
    let partial: Vec<StoreId> =
        engine.list().unwrap().into_iter().filter(|store| *store != own).collect();
    assert_eq!(partial.len(), 1, "one store holds the first part");
    let partial = BTreeMap::from([(replica(100, behind), partial)]);
    stand.boot(behind, files, engine, partial).await;
    let installed = |stand: &Stand| {
        stand.node(behind).notes.count(|n| matches!(n, Report::SnapshotInstalled { .. })) == 1
    };
    stand.until("it is installed", installed).await;
    let after = stand.wires.pieces.load(Relaxed) - before;
    let resumed_at = 100 * (before - 1) / (before - 1 + after);
    println!(
        "a snapshot killed after {before} pieces took {after} more: resumed at {resumed_at} %"
    );
    assert!(resumed_at >= 45, "{resumed_at} %");
    stand.put(100, "end", b"1").await;
    let same = |stand: &Stand| {
        let applied = |number| stand.node(number).status(100).map(|status| status.applied);
        applied(behind) == applied(leader)
    };
    stand.until("it follows", same).await;
    assert_eq!(stand.node(behind).engine.inner.list().unwrap().len(), 1, "no store is left over");
}

async fn pace(stand: &Stand, number: u64) {
    let node = stand.node(number);
    let (_, hosted) = tokio::sync::watch::channel(node.router.hosted());
    let arguments = DiskArguments {
        world: node.world.clone(),
        hosted,
        budget: Arc::clone(&node.budget),
        router: node.router.clone(),
        space: tokio::sync::watch::channel(Space::default()).0,
    };
    ractor::Actor::spawn(None, DiskActor, arguments).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_log_does_not_grow_without_bound_under_load_on_few_shards() {
    let mut stand = Stand::with(3, 2, NodeLimits::default(), 64 << 10).await;
    stand.put(101, "idle", b"1").await;
    for number in 1..=3 {
        pace(&stand, number).await;
    }
    let value = vec![1; 8 << 10];
    let mut most = 0;
    for round in 0..600 {
        stand.put(100, &format!("k{}", round % 10), &value).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(stand.node(1).log.segments());
    }
    stand.pass(5).await;
    let rest = stand.node(1).log.segments();
    println!(
        "600 writes of 8 KiB over segments of 64 KiB: at most {most} segments, {rest} at rest"
    );
    assert!(most <= 2 * SEGMENTS_MAX, "{most}");
    assert!(rest <= SEGMENTS_MAX + 1, "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_disk_stalls_does_not_keep_the_log_from_shrinking() {
    let mut stand = Stand::with(3, 1, NodeLimits::default(), 4 << 20).await;
    stand.put(100, "a", b"1").await;
    let leader = stand.leader(100).await;
    let slow = *stand.others(leader).first().unwrap();
    for number in 1..=3 {
        pace(&stand, number).await;
    }
    // It hears and answers, but nothing of it becomes durable.
    stand.node(slow).log.stalled.store(true, Relaxed);
    let value = vec![1; 512 << 10];
    let mut most = 0;
    for round in 0..160 {
        stand.put(100, &format!("k{}", round % 10), &value).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(stand.node(leader).log.segments());
    }
    println!("with a follower that never acknowledges: at most {most} segments");
    // 80 MiB were written: twenty segments and more, had it kept all.
    assert!(most <= crate::disk::SEGMENTS_PRESSED + 2, "{most}");
    stand.node(slow).log.resume();
    let same = |stand: &Stand| {
        let applied = |number| stand.node(number).status(100).map(|status| status.applied);
        applied(slow) == applied(stand.others(slow).into_iter().next().unwrap())
    };
    stand.until("it caught up", same).await;
}

#[tokio::test(start_paused = true)]
async fn memory_stays_under_its_cap_in_a_flood_that_ignores_refusals() {
    let cap = 8 << 20;
    let limits = NodeLimits { overlay_bytes_max: cap, ..NodeLimits::default() };
    let stand = Stand::with(1, 8, limits, 64 << 20).await;
    for shard in 100..108 {
        stand.leader(shard).await;
    }
    let node = stand.node(1);
    let (mut refused, mut most, mut most_requests) = (0, 0, 0);
    for round in 0..40u64 {
        let writes = (0..256u64).map(|number| {
            let key = format!("{round}-{number}").into_bytes();
            let op = Op::Put { key, value: vec![0; 64 << 10] };
            let body =
                ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: vec![op] };
            node.ask(100 + number % 8, body)
        });
        let watched = futures_util::future::join_all(writes);
        for answer in watched.await {
            refused += usize::from(matches!(answer, Err(Fault::Busy { .. })));
        }
        most = most.max(node.budget.overlay_bytes());
        most_requests = most_requests.max(node.budget.requests.bytes());
    }
    println!("a flood of 640 MiB: overlay at most {most} of {cap} bytes, {refused} refused");
    assert!(refused > 8_000, "{refused}");
    // One round may be on its way when the cap is met.
    assert!(most <= cap + 256 * (65 << 10), "{most}");
    assert!(most_requests <= limits.request_bytes_max);
}

/// Writes that wait for nothing, to all eight shards; what was refused.
async fn flood(stand: &Stand, at: u64, rounds: u64) -> usize {
    let mut refused = 0;
    for round in 0..rounds {
        let writes = (0..64u64).map(|number| {
            let key = format!("{round}-{number}").into_bytes();
            let op = Op::Put { key, value: vec![0; 64 << 10] };
            let body =
                ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: vec![op] };
            stand.node(at).ask(100 + number % 8, body)
        });
        let answers = futures_util::future::join_all(writes).await;
        refused += answers.iter().filter(|a| matches!(a, Err(Fault::Busy { .. }))).count();
    }
    refused
}

#[tokio::test(start_paused = true)]
async fn entries_that_find_no_quorum_are_bounded_over_the_node_and_leave_when_it_returns() {
    let cap = 4 << 20;
    let limits = NodeLimits { entries_bytes_max: cap, ..NodeLimits::default() };
    let mut stand = Stand::with(3, 8, limits, 64 << 20).await;
    for shard in 100..108 {
        stand.put(shard, "a", b"1").await;
        for node in 1..=3 {
            let handle = stand.node(node).handle(shard).unwrap();
            handle.actor.cast(ReplicaMessage::TransferLeader(Some(replica(shard, 1)))).unwrap();
        }
    }
    let leads = |stand: &Stand| {
        (100..108).all(|shard| stand.node(1).status(shard).is_some_and(|status| status.leading))
    };
    stand.until("node 1 leads all", leads).await;
    // Nothing becomes durable on the others: no majority.
    for other in [2, 3] {
        stand.node(other).log.stalled.store(true, Relaxed);
    }
    let refused = flood(&stand, 1, 12).await;
    let held: Vec<_> = (1..=3).map(|node| stand.node(node).budget.entries_bytes()).collect();
    println!("48 MiB without a quorum: nodes hold {held:?} bytes of {cap}, {refused} refused");
    assert!(refused > 400, "{refused}");
    // One round may be on its way when the cap is met.
    assert!(held.iter().all(|held| *held <= 2 * cap + 64 * (65 << 10)), "{held:?}");
    for other in [2, 3] {
        stand.node(other).log.resume();
    }
    let empty = |stand: &Stand| (1..=3).all(|n| stand.node(n).budget.entries_bytes() < cap / 2);
    stand.until("memory is free again", empty).await;
    for shard in 100..108 {
        stand.put(shard, "b", b"2").await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_at_their_limits_that_wait_for_each_other_go_on() {
    // No entry fits: whatever is written is over every node's limit.
    let limits = NodeLimits { entries_bytes_max: 0, ..NodeLimits::default() };
    let mut stand = Stand::with(3, 6, limits, 64 << 20).await;
    for shard in 100..106 {
        for round in 0..3 {
            stand.put(shard, &format!("k{round}"), &vec![7; 300 << 10]).await;
        }
    }
    let held = |stand: &Stand| (1..=3).all(|n| stand.node(n).budget.entries_bytes() == 0);
    stand.until("nothing is held", held).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_an_entry_may_be_is_refused_by_name() {
    let stand = Stand::start(1, 1).await;
    stand.leader(100).await;
    let key = |number: usize| format!("{number:01024}").into_bytes();
    let ops = (0..1_024).map(|number| Op::Put { key: key(number), value: vec![0; 4 << 10] });
    let body = ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: ops.collect() };
    let refused = stand.node(1).ask(100, body).await;
    assert!(matches!(refused, Err(Fault::Invalid(text)) if text.contains("bytes with its keys")));
}

#[test]
fn a_log_error_that_says_a_replica_is_unknown_is_a_refusal() {
    // `closed` of a replica that was never born rests on this.
    let mut stand_log = cluster::log::SegmentedLog::open(
        Arc::new(MemoryFiles::new()),
        Stand::stamp(1),
        cluster::log::LogOptions::default(),
    )
    .unwrap()
    .0;
    let refused = stand_log.append(&[(ReplicaId(9), LogRecord::Destroyed)]);
    assert!(matches!(refused, Err(LogError::Refused { .. })), "{refused:?}");
}

/// Deleting moves old values to the history: room is taken before it is given
/// back, so on a disk that has its reserve only it must go in small steps.
#[tokio::test(start_paused = true)]
async fn on_a_scarce_disk_overlays_go_to_their_stores_in_small_steps() {
    let mut stand = Stand::start(1, 1).await;
    stand.leader(100).await;
    let overlay = |stand: &Stand| stand.node(1).handle(100).unwrap().overlay_bytes();
    let value = vec![7; 128 << 10];
    for number in 0..30 {
        stand.put(100, &format!("k{number}"), &value).await;
    }
    assert!(overlay(&stand) > 3 << 20, "nobody flushes yet: {}", overlay(&stand));
    let scarce = Space { device_bytes: 1, reserve_bytes: 2, ..Space::of(1, 100) };
    stand.node(1).budget.set_space(scarce, 0);
    for number in 30..60 {
        stand.put(100, &format!("k{number}"), &value).await;
        assert!(overlay(&stand) < 2 << 20, "{}", overlay(&stand));
    }
    for number in 0..60 {
        assert_eq!(stand.get(100, &format!("k{number}")).await.unwrap().value, value);
    }
}
