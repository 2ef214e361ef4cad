//! Two transports on loopback: round trip of a request, many at once, and
//! bulk. Prints one line each; compare on a quiet machine only.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{
    ids::{BootNonce, ClusterId, Incarnation, NodeId},
    membership::Boot,
    ports::{
        clock::Clock,
        entropy::Entropy,
        network::{BoxFuture, Inbound, Lane, Network, Peer, RequestClass},
    },
    units::{Instant, WallTime},
};
use tokio::time::Instant as Moment;
use transport::{Limits, Socket, Transport, TransportConfig, bind, identity::Authority};

const NOW: WallTime = WallTime(1_800_000_000_000);
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct System;

impl Entropy for System {
    fn fill(&self, bytes: &mut [u8]) {
        use ring::rand::SecureRandom as _;
        ring::rand::SystemRandom::new().fill(bytes).expect("the system has entropy");
    }
}

impl Clock for System {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn wall(&self) -> WallTime {
        NOW
    }
}

#[derive(Debug)]
struct Echo;

impl Inbound for Echo {
    fn message(&self, _: NodeId, _: Lane, _: Bytes) {}

    fn request(&self, _: Peer, _: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        Box::pin(std::future::ready(body))
    }

    fn link(&self, _: NodeId, _: bool) {}
}

fn node(authority: &Authority, id: u128) -> Arc<Transport> {
    let config = TransportConfig {
        credentials: authority.issue_node(NodeId(id), &System, NOW).expect("issued"),
        boot: Boot { incarnation: Incarnation(1), nonce: BootNonce(id) },
        config_hash: 0,
        limits: Limits::default(),
        socket: Socket::Udp(bind(([127, 0, 0, 1], 0).into()).expect("bound")),
        entropy: Arc::new(System),
        clock: Arc::new(System),
    };
    Transport::start(config, Arc::new(Echo)).expect("started")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let authority = Authority::create(ClusterId(1), &System, NOW).expect("created");
    let (a, b) = (node(&authority, 1), node(&authority, 2));
    a.learn(NodeId(2), vec![b.local_addr().expect("bound")]);
    ask(&a, RequestClass::Data, Bytes::from_static(b"warm")).await;
    round_trips(&a, 3_000).await;
    at_once(&a, 64, 20_000).await;
    bulk(&a, 256).await;
}

async fn ask(from: &Transport, class: RequestClass, body: Bytes) {
    from.request(NodeId(2), class, body, PATIENCE).await.expect("answered");
}

async fn round_trips(from: &Transport, count: usize) {
    let mut micros = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Moment::now();
        ask(from, RequestClass::Data, Bytes::from(vec![0; 256])).await;
        micros.push(begin.elapsed().as_micros());
    }
    micros.sort_unstable();
    let at = |share: usize| micros[(count - 1) * share / 100];
    println!("round trip 256 B     p50 {} us   p99 {} us", at(50), at(99));
}

async fn at_once(from: &Arc<Transport>, tasks: usize, count: usize) {
    let begin = Moment::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let from = Arc::clone(from);
            tokio::spawn(async move {
                for _ in 0..count / tasks {
                    ask(&from, RequestClass::Data, Bytes::from(vec![0; 256])).await;
                }
            })
        })
        .collect();
    for task in running {
        task.await.expect("no panic");
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{tasks} at once, 256 B     {:.0} requests/s", count as f64 / seconds);
}

/// MiB echoed in pieces of 1 MiB, eight at once: counted once per direction.
async fn bulk(from: &Arc<Transport>, mebibytes: usize) {
    let begin = Moment::now();
    let running: Vec<_> = (0..8)
        .map(|_| {
            let from = Arc::clone(from);
            tokio::spawn(async move {
                for _ in 0..mebibytes / 8 {
                    ask(&from, RequestClass::Bulk, Bytes::from(vec![0; 1 << 20])).await;
                }
            })
        })
        .collect();
    for task in running {
        task.await.expect("no panic");
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("bulk 1 MiB, 8 at once  {:.0} MB/s each way", mebibytes as f64 * 1.048_576 / seconds);
}
