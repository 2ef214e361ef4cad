//! The transport itself: one UDP socket, all peers, the network port.
//!
//! The endpoint dials and answers on the same socket, so a peer's address is
//! the one it listens on. Every connection passes four gates: caps
//! (`admission`), TLS (`tls`), Hello (`handshake`), and, for nodes that were
//! removed, the list of the forgotten. What passes is a node's link, handed to
//! that node's task (`peer`); a client, served here; or a stranger, who gets
//! one Join request and must go.
//!
//! The lock around the peers is this crate's own (the port is called from any
//! thread and must not wait); it is held for one look-up in a map.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    ids::{ClusterId, NodeId},
    limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX},
    membership::Boot,
    ports::{
        clock::Clock,
        entropy::Entropy,
        network::{BoxFuture, Inbound, Lane, Network, Peer, RequestClass, RequestError, SendError},
    },
};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::{
    accept,
    admission::Admission,
    credit::ByteBudget,
    fault::CloseCode,
    framing::Prelude,
    handshake::{Hello, Role},
    identity::{CertificateNames, Credentials, IdentityError, Subject},
    lanes::send_gossip,
    limits::{ADDRESSES_MAX, Limits},
    metrics,
    peer::{LinkState, PeerHandle, PeerTask},
    quic::{self, Socket},
    requests::{AskFailure, ask, within},
    tls::{CertificateStore, ClockTime, TlsParts},
};

/// What a transport is made of.
#[derive(Debug)]
pub struct TransportConfig {
    /// The node's certificate; says cluster and node.
    pub credentials: Credentials,
    /// This start of the node.
    pub boot: Boot,
    /// Hash of what all nodes must agree on; nodes with another are refused.
    pub config_hash: u64,
    /// Times and caps.
    pub limits: Limits,
    /// Where datagrams go in and out.
    pub socket: Socket,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Time, for certificates.
    pub clock: Arc<dyn Clock>,
}

/// Why a transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate is not a node's.
    #[error("the certificate names a {0}: a node needs a node's certificate")]
    NotANode(String),
    /// The credentials are unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The socket cannot be used.
    #[error("cannot use the UDP socket: {0}")]
    Socket(#[source] std::io::Error),
}

/// The network of one node. Dropping it closes everything at once;
/// [`Self::shutdown`] lets peers know first.
pub struct Transport {
    shared: Arc<Shared>,
}

/// What all tasks of a transport share.
pub(crate) struct Shared {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) config_hash: u64,
    pub(crate) limits: Limits,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) store: Arc<CertificateStore>,
    pub(crate) tls: TlsParts,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) clients_budget: ByteBudget,
    pub(crate) runtime: tokio::runtime::Handle,
    peers: Mutex<Peers>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Peers {
    known: BTreeMap<NodeId, Arc<PeerHandle>>,
    /// Forgotten nodes keep a valid certificate; they are refused
    /// until they are taught again.
    forgotten: BTreeSet<NodeId>,
}

impl Transport {
    /// Starts to answer, on the current tokio runtime.
    ///
    /// # Errors
    /// If the credentials are not a node's, or the socket cannot be used.
    pub fn start(
        config: TransportConfig,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Arc<Self>, StartError> {
        let names = config.credentials.names().clone();
        let Subject::Node(node) = names.subject else {
            return Err(StartError::NotANode(names.to_string()));
        };
        let tls = TlsParts::new(&config.entropy, &config.clock);
        let store = CertificateStore::new(&config.credentials)?;
        let authority = CertificateDer::from(config.credentials.authority().to_vec());
        let server = tls
            .server(names.cluster, &authority, Arc::clone(&store))
            .map_err(|error| StartError::Tls(error.to_string()))?;
        let time = Arc::new(ClockTime(Arc::clone(&config.clock)));
        let server = quic::server_config(server, &config.limits, time, &config.entropy)
            .map_err(StartError::Tls)?;
        let key = Some(config.credentials.key());
        let endpoint = quic::endpoint(config.socket, Some(server), key, &config.entropy)
            .map_err(StartError::Socket)?;
        let clients_budget = ByteBudget::new(config.limits.clients_body_bytes_max);
        let shared = Arc::new(Shared {
            cluster: names.cluster,
            node,
            boot: config.boot,
            config_hash: config.config_hash,
            limits: config.limits,
            authority,
            store,
            tls,
            entropy: config.entropy,
            endpoint,
            inbound,
            admission: Arc::default(),
            clients_budget,
            runtime: tokio::runtime::Handle::current(),
            peers: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        shared.runtime.spawn(accept::run(Arc::clone(&shared)));
        Ok(Arc::new(Self { shared }))
    }

    /// Where the socket listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Uses another certificate of the same node from the next handshake on.
    /// Running connections keep theirs until their age replaces them.
    ///
    /// # Errors
    /// If it is another node's or cluster's, or its parts do not match.
    pub fn replace_credentials(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let names = credentials.names();
        let ours = CertificateNames {
            cluster: self.shared.cluster,
            subject: Subject::Node(self.shared.node),
        };
        if *names != ours || credentials.authority() != self.shared.authority.as_ref() {
            return Err(IdentityError::Certificate(format!("it names {names}, not {ours}")));
        }
        self.shared.store.replace(credentials)
    }

    /// The start a connected node showed when it said hello.
    pub fn boot_of(&self, node: NodeId) -> Option<Boot> {
        let handle = self.shared.known(node)?;
        match &*handle.state.borrow() {
            LinkState::Up(link) => Some(link.boot),
            LinkState::Connecting | LinkState::Down(_) => None,
        }
    }

    /// How many times the link to a node was replaced or made anew, as both
    /// sides count it; none while there is no link.
    pub fn generation_of(&self, node: NodeId) -> Option<u64> {
        let handle = self.shared.known(node)?;
        match &*handle.state.borrow() {
            LinkState::Up(link) => Some(link.generation),
            LinkState::Connecting | LinkState::Down(_) => None,
        }
    }

    /// Stops answering, tells all peers, and waits a moment for them to hear.
    pub async fn shutdown(&self) {
        /// Peers that do not hear notice by silence.
        const FAREWELL: Duration = Duration::from_secs(1);
        self.shared.close();
        let _ = timeout(FAREWELL, self.shared.endpoint.wait_idle()).await;
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn hello(&self, role: Role, generation: u64) -> Hello {
        Hello {
            cluster: self.cluster,
            node: self.node,
            boot: self.boot,
            config_hash: self.config_hash,
            generation,
            ..Hello::new(role)
        }
    }

    /// The task of a node; started if need be. None for forgotten ones.
    pub(crate) fn peer(self: &Arc<Self>, node: NodeId) -> Option<Arc<PeerHandle>> {
        let mut peers = self.peers();
        if self.closed.load(Ordering::Acquire) || peers.forgotten.contains(&node) {
            return None;
        }
        let handle = peers.known.entry(node).or_insert_with(|| PeerTask::spawn(self, node));
        Some(Arc::clone(handle))
    }

    fn known(&self, node: NodeId) -> Option<Arc<PeerHandle>> {
        self.peers().known.get(&node).cloned()
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        for handle in std::mem::take(&mut self.peers().known).into_values() {
            handle.orders.send_modify(|orders| orders.stop = Some(CloseCode::Done));
        }
        self.endpoint.close(CloseCode::Done.code(), b"the node is stopping");
    }

    async fn request(
        &self,
        to: NodeId,
        prelude: Prelude,
        body: Bytes,
    ) -> Result<Bytes, RequestError> {
        let unreachable = |cause: String| RequestError::Unreachable { node: to, cause };
        let Some(handle) = self.known(to) else {
            return Err(unreachable("no address is known".to_owned()));
        };
        if body.len() > FRAME_BYTES_MAX {
            let bytes = body.len();
            let cause = format!("request of {bytes} bytes exceeds the limit of {FRAME_BYTES_MAX}");
            return Err(unreachable(cause));
        }
        if !handle.permits.allows(prelude.class) {
            return Err(unreachable(format!("nodes do not send {:?} requests", prelude.class)));
        }
        let Some(_permit) = handle.permits.take(prelude.class) else {
            return Err(RequestError::Busy(to));
        };
        let sent = AtomicBool::new(false);
        let asking = ask_node(&handle, prelude, body, &sent);
        within(prelude.timeout, &sent, asking).await.map_err(|failure| {
            metrics::count(metrics::REQUESTS_FAILED);
            match failure {
                None => RequestError::Timeout { node: to, after: prelude.timeout },
                Some(AskFailure::NotSent(cause)) => unreachable(cause),
                Some(AskFailure::NotAllowed) => {
                    unreachable(format!("it refuses {:?} requests of nodes", prelude.class))
                }
                Some(AskFailure::Busy) => RequestError::Busy(to),
                Some(AskFailure::Expired) => {
                    RequestError::Timeout { node: to, after: prelude.timeout }
                }
                Some(AskFailure::Lost(cause)) => RequestError::Lost { node: to, cause },
            }
        })
    }
}

/// Waits for a link that is worth waiting for, and asks over it.
async fn ask_node(
    handle: &PeerHandle,
    prelude: Prelude,
    body: Bytes,
    sent: &AtomicBool,
) -> Result<Bytes, AskFailure> {
    let mut state = handle.state.subscribe();
    loop {
        let seen = state.borrow_and_update().clone();
        match seen {
            LinkState::Up(link) => {
                if let Some(_flight) = link.begin() {
                    return ask(&link.connection, prelude, body, sent).await;
                }
            }
            LinkState::Down(cause) => return Err(AskFailure::NotSent(cause.to_string())),
            LinkState::Connecting => {}
        }
        if state.changed().await.is_err() {
            return Err(AskFailure::NotSent("the network is closed".to_owned()));
        }
    }
}

impl Network for Transport {
    fn send(&self, to: NodeId, lane: Lane, message: Bytes) -> Result<(), SendError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        let bytes_max = match lane {
            Lane::Gossip => DATAGRAM_BYTES_MAX,
            Lane::Raft => FRAME_BYTES_MAX,
        };
        if message.len() > bytes_max {
            return Err(SendError::TooLarge { bytes: message.len(), bytes_max });
        }
        let handle = self.shared.known(to).filter(|handle| handle.reachable());
        let handle = handle.ok_or(SendError::UnknownNode(to))?;
        match lane {
            Lane::Raft => handle.raft.push(message).map_err(|_| {
                metrics::count(metrics::RAFT_DROPPED);
                SendError::Full(to)
            }),
            Lane::Gossip => {
                match &*handle.state.borrow() {
                    LinkState::Up(link) => send_gossip(&link.connection, &message),
                    // Lost, like any datagram may be.
                    LinkState::Connecting | LinkState::Down(_) => {
                        metrics::count(metrics::GOSSIP_DROPPED);
                    }
                }
                Ok(())
            }
        }
    }

    fn request(
        &self,
        to: NodeId,
        class: RequestClass,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>> {
        let shared = Arc::clone(&self.shared);
        let prelude = Prelude { class, timeout };
        Box::pin(async move { shared.request(to, prelude, body).await })
    }

    fn learn(&self, node: NodeId, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(ADDRESSES_MAX);
        if node == self.shared.node {
            return;
        }
        self.shared.peers().forgotten.remove(&node);
        if let Some(handle) = self.shared.peer(node) {
            handle.learn(addresses);
        }
    }

    fn forget(&self, node: NodeId) {
        let handle = {
            let mut peers = self.shared.peers();
            peers.forgotten.insert(node);
            peers.known.remove(&node)
        };
        if let Some(handle) = handle {
            handle.orders.send_modify(|orders| orders.stop = Some(CloseCode::Removed));
        }
    }
}

/// Whom TLS proved to be there; an authority's certificate proves nobody.
pub(crate) fn proven_peer(connection: &quinn::Connection) -> Option<Peer> {
    let Some(identity) = connection.peer_identity() else { return Some(Peer::Anonymous) };
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let names = CertificateNames::read(chain.first()?).ok()?;
    names.peer()
}
