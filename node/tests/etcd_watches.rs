//! Watches and weak ranges of the etcd door while nodes die, judged as the
//! simulator judges them.
//!
//! Through real connections clients put, delete, transact and compact; watchers
//! are slow, go away, and come back at another member; readers read what a
//! member has. Nodes are killed in turn. The judge is the simulator's own file:
//! a dependency on its package would build the servers under test with a
//! simulated clock's features.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "common/doors.rs"]
mod doors;
#[path = "etcd_watches/players.rs"]
mod players;
#[path = "../../simulation/src/oracle/watched.rs"]
#[allow(unreachable_pub, reason = "public where it lives")]
mod watched;

use std::{sync::Arc, time::Duration};

use cluster::mvcc::version::Version;
use clusterdb::doors::etcd::proto::etcdserverpb::kv_client::KvClient;
use common::LONG;
use doors::{Doors, put};
use players::{END, World};
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

const WRITERS: usize = 3;
const WATCHERS: usize = 3;
const READERS: usize = 2;
/// How long all nodes run between kills, and how long one is away.
const UP: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_weak_ranges_keep_their_promises_while_nodes_die() {
    let mut doors = Doors::open("    progress_seconds: 1\n").serve().await;
    let world = Arc::new(World::new(doors.addresses.clone(), WATCHERS));
    let changes = (0..WRITERS).map(|number| tokio::spawn(players::write(world.clone(), number)));
    let changes: Vec<_> = changes.collect();
    let reads = (0..READERS).map(|number| tokio::spawn(players::read(world.clone(), number)));
    let reads: Vec<_> = reads.collect();
    let follows = (0..WATCHERS).map(|number| tokio::spawn(players::follow(world.clone(), number)));
    let follows: Vec<_> = follows.collect();
    for number in [2, 3, 1] {
        sleep(UP).await;
        block_in_place(|| doors.cluster.nodes[number - 1].kill());
        sleep(AWAY).await;
        block_in_place(|| doors.cluster.restart(number));
    }
    sleep(UP).await;
    world.end_changes();
    for change in changes {
        timeout(LONG, change).await.expect("writers end").unwrap();
    }
    let doors = doors.serve().await;
    let mut kv = KvClient::new(doors.channel(1).await);
    let last = kv.put(put(END, b"end".to_vec())).await.unwrap().into_inner().header.unwrap();
    world.end_at(last.revision);
    for end in follows.into_iter().chain(reads) {
        timeout(LONG, end).await.expect("everybody hears of the end").unwrap();
    }
    let (at, found) = players::range(&mut kv, false).await.unwrap();
    judge(&world, at, &found);
}

fn judge(world: &World, at: Version, found: &watched::State) {
    let mut telling = world.telling();
    telling.read.push(vec![watched::Shown { at, found: found.clone() }]);
    let judged = telling.check().unwrap();
    for stream in 0..WATCHERS {
        telling
            .compare(stream, found, at)
            .unwrap_or_else(|wrong| panic!("stream {stream} {wrong}"));
    }
    let told: usize = telling.streams.iter().flatten().map(|piece| piece.told.len()).sum();
    let pieces: usize = telling.streams.iter().map(Vec::len).sum();
    let written = telling.written.len();
    let (begun, connections) = (world.begun(), telling.read.len());
    println!(
        "{written} changes acknowledged, {told} told in {begun} beginnings and {pieces} pieces, \
         {judged} ranges judged on {connections} connections"
    );
    // A run in which nothing happened shows nothing.
    assert!(written > 50 && told > 100, "little was done");
    assert!(begun > 2 * WATCHERS, "nobody came back");
    assert!(judged > 20, "no range was judged");
}
