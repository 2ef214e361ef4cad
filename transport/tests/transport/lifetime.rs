//! Links over time: restarts, silence, age, new certificates, farewell.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::ports::network::{Network, RequestClass};
use tokio::{net::UdpSocket, time::Instant};
use transport::{Limits, Socket, bind};

use crate::{
    harness::{Node, PATIENCE, World, eventually, eventually_within, loopback, start},
    raw,
};

/// For what takes as long as the machine is slow.
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_node_that_comes_back_on_its_port_is_met_again() {
    let world = World::new(80);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    a.ask(&b, "up").await;
    let address = b.address;
    b.transport.shutdown().await;
    eventually("down", || a.links() == [(b.id, true), (b.id, false)]).await;
    drop(b);
    let b = loop {
        // The old endpoint lets go of the port when its last task has ended.
        if let Ok(socket) = bind(address) {
            let mut config = world.config(2, Limits::default());
            config.socket = Socket::Udp(socket);
            break start(config, 2);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    eventually("up again", || a.links().last() == Some(&(b.id, true))).await;
    assert_eq!(a.ask(&b, "again").await, "again");
}

#[tokio::test]
async fn an_unreachable_node_fails_requests_fast_once_it_is_known_to_be() {
    let world = World::new(81);
    let limits = Limits { node_idle_timeout: Duration::from_millis(500), ..Limits::default() };
    let a = world.node_with(1, limits);
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let node = cluster::ids::NodeId(2);
    a.transport.learn(node, vec![silent.local_addr().unwrap()]);
    let ask = || a.transport.request(node, RequestClass::Data, Bytes::new(), PATIENCE);
    assert!(ask().await.unwrap_err().not_sent());
    let begin = Instant::now();
    assert!(ask().await.unwrap_err().not_sent());
    assert!(begin.elapsed() < Duration::from_millis(50));
}

/// Forwards datagrams between one dialer and one node, until told to stop.
async fn proxy(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let front = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let back = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    back.connect(to).await.unwrap();
    let address = front.local_addr().unwrap();
    let open = Arc::new(AtomicBool::new(true));
    let dialer = Arc::new(std::sync::Mutex::new(None));
    let (front2, back2, open2, dialer2) =
        (front.clone(), back.clone(), open.clone(), dialer.clone());
    tokio::spawn(async move {
        let mut bytes = vec![0; 65_536];
        while let Ok((count, from)) = front.recv_from(&mut bytes).await {
            *dialer.lock().unwrap() = Some(from);
            if open.load(Ordering::Relaxed) {
                let _ = back.send(&bytes[..count]).await;
            }
        }
    });
    let closing = open2.clone();
    tokio::spawn(async move {
        let mut bytes = vec![0; 65_536];
        while let Ok(count) = back2.recv(&mut bytes).await {
            let dialer = *dialer2.lock().unwrap();
            if let (true, Some(dialer)) = (open2.load(Ordering::Relaxed), dialer) {
                let _ = front2.send_to(&bytes[..count], dialer).await;
            }
        }
    });
    (address, closing)
}

#[tokio::test]
async fn a_peer_that_vanishes_silently_is_noticed_within_seconds() {
    let world = World::new(82);
    let (a, b) = (world.node(1), world.node(2));
    let (address, open) = proxy(b.address).await;
    a.transport.learn(b.id, vec![address]);
    a.ask(&b, "up").await;
    // Idle links live on pings alone.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(a.links(), [(b.id, true)]);
    let lost = a.transport.request(b.id, RequestClass::Data, Bytes::from("wait:9000"), PATIENCE);
    let lost = tokio::spawn(lost);
    tokio::time::sleep(Duration::from_millis(100)).await;
    open.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    eventually("both notice", || {
        a.links().last() == Some(&(b.id, false)) && b.links().last() == Some(&(a.id, false))
    })
    .await;
    // Just under four by design; the rest is what a busy machine may take.
    assert!(begin.elapsed() <= Duration::from_secs(7), "{:?}", begin.elapsed());
    assert!(!lost.await.unwrap().unwrap_err().not_sent());
    open.store(true, Ordering::Relaxed);
    eventually("they meet again", || a.links().last() == Some(&(b.id, true))).await;
}

/// Somebody who keeps asking until stopped, counts answers and fails on any error.
struct Asking {
    answered: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Asking {
    fn begin(from: &Node, to: &Node, stop: &Arc<AtomicBool>) -> Self {
        let (network, to, stop) = (from.transport.clone(), to.id, stop.clone());
        let answered = Arc::new(AtomicUsize::new(0));
        let count = answered.clone();
        let task = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let wait = ["wait:0", "wait:3", "wait:20"][count.load(Ordering::Relaxed) % 3];
                let body = Bytes::from(wait);
                let answer = network.request(to, RequestClass::Data, body, PATIENCE).await;
                assert!(answer.is_ok(), "{answer:?}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { answered, task }
    }

    /// Whether it had more answers than so many; or failed, which its end tells.
    fn has(&self, answers: usize) -> bool {
        self.answered.load(Ordering::Relaxed) > answers || self.task.is_finished()
    }
}

#[tokio::test]
async fn connections_are_replaced_by_age_without_a_failed_request() {
    let world = World::new(83);
    let limits = || Limits { connection_age_max: Duration::from_millis(150), ..Limits::default() };
    let (a, b) = (world.node_with(1, limits()), world.node_with(2, limits()));
    a.knows(&b);
    b.knows(&a);
    a.ask(&b, "up").await;
    b.ask(&a, "up").await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> =
        (0..4).flat_map(|_| [Asking::begin(&a, &b, &stop), Asking::begin(&b, &a, &stop)]).collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    eventually_within(MINUTE, "many answers", || asking.iter().all(|asking| asking.has(50))).await;
    let many = || a.transport.generation_of(b.id).is_some_and(|links| links > 10);
    eventually_within(MINUTE, "links that were replaced many times", many).await;
    stop.store(true, Ordering::Relaxed);
    for asking in asking {
        asking.task.await.unwrap();
    }
    assert_eq!(a.links(), [(b.id, true)], "a replacement is no loss");
    assert_eq!(b.links(), [(a.id, true)]);
}

#[tokio::test]
async fn a_certificate_is_swapped_while_requests_run() {
    let world = World::new(84);
    let limits = || Limits { connection_age_max: Duration::from_millis(200), ..Limits::default() };
    let (a, b) = (world.node_with(1, limits()), world.node_with(2, limits()));
    a.knows(&b);
    a.ask(&b, "up").await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking = Asking::begin(&a, &b, &stop);
    let fresh = world.credentials(2);
    b.transport.replace_credentials(&fresh).unwrap();
    let endpoint = raw::endpoint(None);
    let connection = raw::connect(&endpoint, b.address).await.unwrap();
    let identity = connection.peer_identity().unwrap();
    let chain = identity.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    assert_eq!(chain[0].as_ref(), fresh.certificate());
    tokio::time::sleep(Duration::from_secs(1)).await;
    eventually_within(MINUTE, "answers", || asking.has(10)).await;
    stop.store(true, Ordering::Relaxed);
    asking.task.await.unwrap();
    let foreign = world.credentials(3);
    assert!(b.transport.replace_credentials(&foreign).is_err());
}

#[tokio::test]
async fn a_farewell_is_heard_at_once_and_ends_everything() {
    let world = World::new(85);
    let (a, b) = (world.node(1), world.node(2));
    a.knows(&b);
    a.ask(&b, "up").await;
    let begin = Instant::now();
    b.transport.shutdown().await;
    eventually("down", || a.links().last() == Some(&(b.id, false))).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(b.links().last(), Some(&(a.id, false)));
    let refused = b.transport.send(a.id, cluster::ports::network::Lane::Raft, Bytes::new());
    assert_eq!(refused, Err(cluster::ports::network::SendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_under_load_on_two_threads_lose_nothing() {
    let world = World::new(86);
    let limits = || Limits { connection_age_max: Duration::from_millis(300), ..Limits::default() };
    let nodes: Vec<Node> = (1..=3).map(|id| world.node_with(id, limits())).collect();
    for node in &nodes {
        for other in &nodes {
            node.knows(other);
        }
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            for task in 0..4_u8 {
                let (network, to) = (nodes[from].transport.clone(), nodes[to].id);
                let answered = answered.clone();
                tasks.push(tokio::spawn(async move {
                    for number in 0..150 {
                        let body = Bytes::from(vec![task; number * 97 % 9_000]);
                        let answer =
                            network.request(to, RequestClass::Data, body.clone(), PATIENCE).await;
                        assert_eq!(answer, Ok(body));
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }));
            }
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(answered.load(Ordering::Relaxed), 3 * 2 * 4 * 150);
}
