//! One cap for a node's whole memory, against real processes: clients that
//! never wait flood a cluster for twenty seconds, and no node takes more
//! anonymous memory than its configuration says, while an honest client that
//! waits up to a minute is served.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[allow(dead_code, reason = "this test needs some of the ways to be hostile")]
#[path = "common/hostile.rs"]
mod hostile;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cluster::{
    auth::Principal,
    formats::{FrameKind, encode_frame},
    ids::{Epoch, ShardId},
    mvcc::version::Hlc,
    request::{Request, ShardBody, ShardRequest, WriteLevel},
    shard::{command::Op, descriptor::key_hash},
};
use common::Cluster;

/// What each node may take; the least that a configuration accepts.
const CAP_BYTES: u64 = 512 << 20;
/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(20);
/// Requests each hostile connection has under way at any time.
const STREAMS: usize = 32;
/// Hostile connections, spread over the nodes.
const CONNECTIONS: usize = 3;

/// Anonymous resident memory of a process: heap and stacks, not the pages of
/// stores that the system caches.
fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a Linux kernel");
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// The bytes of a request stream that writes 256 KiB and waits for nothing.
fn shot(shards: &[u64], number: u64) -> Vec<u8> {
    let key = format!("flood-{number}").into_bytes();
    let part = key_hash(&key) / (u64::MAX / shards.len() as u64 + 1);
    let shard = shards[usize::try_from(part).unwrap()];
    let op = Op::Put { key, value: vec![7; 256 << 10] };
    let body = ShardBody::Write { request: None, level: WriteLevel::Eventual, ops: vec![op] };
    let request = Request::Shard(ShardRequest {
        shard: ShardId(shard),
        epoch: Epoch(1),
        clock: Hlc(0),
        timeout_ms: 5_000,
        forwarded: false,
        principal: Principal::Trusted,
        body,
    });
    let mut bytes = vec![0, 0, 0, 0, 0x88, 0x13, 0, 0];
    bytes.extend(encode_frame(FrameKind::Request, 1, &request.encode()));
    bytes
}

/// One stream after the other, whatever is answered, for the whole flood.
async fn flood(connection: quinn::Connection, shards: Arc<Vec<u64>>, shots: Arc<AtomicU64>) {
    let end = Instant::now() + FLOOD;
    while Instant::now() < end {
        let number = shots.fetch_add(1, Relaxed);
        let Ok(Ok((mut send, mut recv))) =
            tokio::time::timeout(Duration::from_secs(1), connection.open_bi()).await
        else {
            continue;
        };
        drop(send.write_all(&shot(&shards, number % 5_000)).await);
        drop(send.finish());
        drop(tokio::time::timeout(Duration::from_secs(5), recv.read_to_end(1 << 20)).await);
    }
}

/// The most that each process had until the flood ended.
fn watch(pids: &[u32], ended: &AtomicBool) -> Vec<u64> {
    let mut most = vec![0; pids.len()];
    while !ended.load(Relaxed) {
        for (most, pid) in most.iter_mut().zip(pids) {
            *most = anonymous_bytes(*pid).max(*most);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    most
}

#[test]
fn a_flood_that_ignores_every_refusal_stays_under_the_stated_cap_and_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(folder.path(), 3, "  memory: 512MiB\n");
    cluster.found();
    cluster.volume("data", 8);
    let shown = cluster.cdb(&["volume", "show", "data", "-o", "json"]).ok().json();
    let shards: Vec<u64> =
        shown["shards"].as_array().unwrap().iter().map(|s| s["shard"].as_u64().unwrap()).collect();
    let (shards, shots) = (Arc::new(shards), Arc::new(AtomicU64::new(0)));
    let pids: Vec<u32> = cluster.nodes.iter().map(common::Node::pid).collect();
    let targets: Vec<_> = cluster.nodes.iter().map(|node| node.quic).collect();
    let own = hostile::operator(&cluster.profile);
    let ended = Arc::new(AtomicBool::new(false));

    let attack = std::thread::spawn({
        let (shards, shots, ended) = (shards.clone(), shots.clone(), ended.clone());
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let endpoint = hostile::endpoint(Some(&own));
                let mut streams = Vec::new();
                for target in targets.iter().cycle().take(CONNECTIONS) {
                    let connection = hostile::trusted(&endpoint, &own, *target).await;
                    streams.extend((0..STREAMS).map(|_| {
                        tokio::spawn(flood(connection.clone(), shards.clone(), shots.clone()))
                    }));
                }
                futures_util::future::join_all(streams).await;
            });
            ended.store(true, Relaxed);
        }
    });
    let watch = std::thread::spawn({
        let ended = ended.clone();
        move || watch(&pids, &ended)
    });
    let (mut served, mut late, mut slowest) = (0, 0, Duration::ZERO);
    while !ended.load(Relaxed) {
        let began = Instant::now();
        let value = format!("{served}");
        let put =
            cluster.cdb_with(&["--deadline", "60s", "put", "data/honest", "-"], value.as_bytes());
        let got = cluster.cdb(&["--deadline", "60s", "get", "data/honest"]);
        if put.code == 0 && got.code == 0 {
            assert_eq!(got.text(), value, "what was acknowledged is read");
            served += 1;
        } else {
            println!("late: {} {}", put.stderr, got.stderr);
            late += 1;
        }
        slowest = slowest.max(began.elapsed());
    }
    attack.join().unwrap();
    let most = watch.join().unwrap();
    let mib: Vec<u64> = most.iter().map(|bytes| bytes >> 20).collect();
    let shots = shots.load(Relaxed);
    println!(
        "{shots} writes of 256 KiB by {} streams in {FLOOD:?}: RssAnon at most {mib:?} MiB of {} MiB; {served} honest rounds (put and get), {late} past their deadline, the slowest {slowest:?}",
        CONNECTIONS * STREAMS,
        CAP_BYTES >> 20
    );
    assert!(most.iter().all(|bytes| *bytes < CAP_BYTES), "{mib:?} MiB");
    // Nodes, flood and other tests share the machine's cores: how fast is not judged.
    assert!(served > 0 && late == 0, "{served} honest rounds, {late} past a minute");
    cluster.all_run();
}
