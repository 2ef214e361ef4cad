//! Nodes for the tests: real transports, an inbound that records and echoes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    ids::{BootNonce, ClusterId, Incarnation, NodeId, TenantId},
    membership::Boot,
    ports::{
        clock::Clock,
        entropy::Entropy,
        network::{BoxFuture, Inbound, Lane, Network, Peer, RequestClass},
    },
    units::{Instant, WallTime},
};
use transport::{
    Limits, Socket, Transport, TransportConfig, bind,
    client::{ClientEndpoint, ClientParts, Profile},
    identity::{Authority, Credentials},
};

pub(crate) const NOW: WallTime = WallTime(1_800_000_000_000);
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// `SplitMix64` over a shared counter.
#[derive(Debug)]
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let step = 0x9e37_79b9_7f4a_7c15;
            let state = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let mixed = (mixed ^ (mixed >> 31)).to_le_bytes();
            chunk.copy_from_slice(&mixed[..chunk.len()]);
        }
    }
}

/// The wall clock stands still: certificates neither age nor begin.
#[derive(Debug)]
pub(crate) struct StillClock(pub(crate) WallTime);

impl Clock for StillClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn wall(&self) -> WallTime {
        self.0
    }
}

/// Records what arrives; answers a request with its own body, after the pause
/// a body of the form `wait:<ms>` asks for.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) messages: Mutex<Vec<(NodeId, Lane, Bytes)>>,
    pub(crate) requests: Mutex<Vec<(Peer, RequestClass, usize)>>,
    pub(crate) links: Mutex<Vec<(NodeId, bool)>>,
}

impl Inbound for Recorder {
    fn message(&self, from: NodeId, lane: Lane, message: Bytes) {
        self.messages.lock().unwrap().push((from, lane, message));
    }

    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        self.requests.lock().unwrap().push((from, class, body.len()));
        Box::pin(async move {
            assert_ne!(body.as_ref(), b"panic", "the handler was told to panic");
            let text = str::from_utf8(&body).ok();
            if let Some(wait) = text.and_then(|text| text.strip_prefix("wait:")) {
                tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
            }
            body
        })
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.links.lock().unwrap().push((peer, up));
    }
}

/// A cluster's authority and the chance to issue from it.
pub(crate) struct World {
    pub(crate) entropy: Arc<Seeded>,
    pub(crate) authority: Authority,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) transport: Arc<Transport>,
    pub(crate) inbound: Arc<Recorder>,
}

impl World {
    pub(crate) fn new(cluster: u128) -> Self {
        let entropy = Seeded::new(cluster as u64);
        let authority = Authority::create(ClusterId(cluster), &*entropy, NOW).unwrap();
        Self { entropy, authority }
    }

    pub(crate) fn credentials(&self, node: u128) -> Credentials {
        self.authority.issue_node(NodeId(node), &*self.entropy, NOW).unwrap()
    }

    pub(crate) fn client_credentials(&self) -> Credentials {
        self.authority.issue_client("ann", TenantId(1), &*self.entropy, NOW).unwrap()
    }

    pub(crate) fn config(&self, node: u128, limits: Limits) -> TransportConfig {
        let entropy = Seeded::new(self.entropy.next_u64());
        TransportConfig {
            credentials: self.credentials(node),
            boot: Boot { incarnation: Incarnation(1), nonce: BootNonce(self.entropy.next_u128()) },
            config_hash: 7,
            limits,
            socket: Socket::Udp(bind(loopback()).unwrap()),
            entropy,
            clock: Arc::new(StillClock(NOW)),
        }
    }

    pub(crate) fn node(&self, node: u128) -> Node {
        self.node_with(node, Limits::default())
    }

    pub(crate) fn node_with(&self, node: u128, limits: Limits) -> Node {
        start(self.config(node, limits), node)
    }

    pub(crate) fn client(&self, endpoints: &[String]) -> ClientEndpoint {
        let profile =
            Profile { endpoints: endpoints.to_vec(), credentials: self.client_credentials() };
        ClientEndpoint::new(profile, parts()).unwrap()
    }
}

pub(crate) fn parts() -> ClientParts {
    // Different for each client of a test, the same for each run.
    static CLIENTS: AtomicU64 = AtomicU64::new(1_000);
    let seed = CLIENTS.fetch_add(1, Ordering::Relaxed);
    ClientParts { entropy: Seeded::new(seed), clock: Arc::new(StillClock(NOW)) }
}

pub(crate) fn start(config: TransportConfig, node: u128) -> Node {
    let inbound = Arc::new(Recorder::default());
    let transport = Transport::start(config, Arc::clone(&inbound) as Arc<dyn Inbound>).unwrap();
    let address = transport.local_addr().unwrap();
    Node { id: NodeId(node), address, transport, inbound }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Node {
    pub(crate) fn knows(&self, other: &Self) {
        self.transport.learn(other.id, vec![other.address]);
    }

    pub(crate) async fn ask(&self, to: &Self, body: &str) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = self.transport.request(to.id, RequestClass::Data, body, PATIENCE).await;
        String::from_utf8(answer.unwrap().to_vec()).unwrap()
    }

    pub(crate) fn links(&self) -> Vec<(NodeId, bool)> {
        self.inbound.links.lock().unwrap().clone()
    }

    pub(crate) fn messages(&self) -> usize {
        self.inbound.messages.lock().unwrap().len()
    }
}

/// Waits until `done`, or fails with `what`.
pub(crate) async fn eventually(what: &str, done: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, done).await;
}

/// The same, for so long.
pub(crate) async fn eventually_within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
