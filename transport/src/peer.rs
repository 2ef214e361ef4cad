//! One task per known node: keeps exactly one link to it in use.
//!
//! The task dials, waits between attempts (doubling, with jitter), installs
//! links, replaces them when they age, and reports them up and down; nobody
//! else does. Requests and messages only read what it publishes.
//!
//! When both nodes dial at once, or one replaces a link, two links exist for a
//! moment. Both sides keep the one of higher rank: the *generation* the dialer
//! chose (one above the last it knew) and then whether the node with the lower
//! id dialed. These are properties of the link, so both agree without a word.
//! Another boot of the peer outranks everything: the old process is gone.

use std::{mem, net::SocketAddr, sync::Arc, time::Duration};

use cluster::{ids::NodeId, ports::network::Peer};
use futures_util::{FutureExt, future::BoxFuture};
use quinn::ConnectionError;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    connection::{self, Link, raise_windows},
    credit::{ClassLimits, ClassPermits, RaftQueue},
    endpoint::Shared,
    fault::CloseCode,
    handshake::{GreetFailure, Role, greet},
    limits::{BACKOFF_MIN, BACKOFF_RESET},
    metrics,
    quic::{DialError, Dialer, dial},
    tls::Expected,
};

/// Events waiting for one peer's task; senders wait, they are few.
const EVENTS_MAX: usize = 16;

/// What everybody may know about the link to a node.
#[derive(Clone, Debug)]
pub(crate) enum LinkState {
    /// The first attempt is under way: worth waiting for.
    Connecting,
    /// Usable.
    Up(Arc<Link>),
    /// The last attempt failed, or there is no address. Others follow.
    Down(Arc<str>),
}

/// What the owner of the network told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) stop: Option<CloseCode>,
}

/// What happened to links.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The node dialed us and said hello.
    Accepted(Arc<Link>),
    /// A link was closed.
    Ended { link: Arc<Link>, cause: ConnectionError },
}

/// The handle to a peer's task.
#[derive(Debug)]
pub(crate) struct PeerHandle {
    pub(crate) orders: watch::Sender<Orders>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) state: Arc<watch::Sender<LinkState>>,
    pub(crate) raft: Arc<RaftQueue>,
    pub(crate) permits: ClassPermits,
}

impl PeerHandle {
    /// Teaches addresses. A request made right after waits for the attempt
    /// they cause instead of meeting the last failure.
    pub(crate) fn learn(&self, addresses: Vec<SocketAddr>) {
        let hope = !addresses.is_empty();
        let news = self.orders.send_if_modified(|orders| {
            let news = orders.addresses != addresses;
            orders.addresses = addresses;
            news
        });
        if news && hope {
            self.state.send_if_modified(|state| {
                let down = matches!(state, LinkState::Down(_));
                if down {
                    *state = LinkState::Connecting;
                }
                down
            });
        }
    }

    /// Whether there is any way to the node.
    pub(crate) fn reachable(&self) -> bool {
        !self.orders.borrow().addresses.is_empty()
            || matches!(*self.state.borrow(), LinkState::Up(_))
    }
}

/// The task's state.
pub(crate) struct PeerTask {
    shared: Arc<Shared>,
    node: NodeId,
    orders: watch::Receiver<Orders>,
    events: mpsc::Receiver<LinkEvent>,
    events_in: mpsc::Sender<LinkEvent>,
    state: Arc<watch::Sender<LinkState>>,
    raft: Arc<RaftQueue>,
    current: Option<Arc<Link>>,
    /// Highest generation seen.
    generation: u64,
    dialing: Option<BoxFuture<'static, Result<Arc<Link>, DialError>>>,
    /// When to dial next, for want of a link or because it ages.
    dial_at: Option<Instant>,
    failures: u32,
    /// Where the node was met last, when nobody taught an address.
    met_at: Option<SocketAddr>,
}

enum Step {
    Orders(bool),
    Event(LinkEvent),
    Dialed(Result<Arc<Link>, DialError>),
    Dial,
}

impl PeerTask {
    /// Starts the task of one node.
    pub(crate) fn spawn(shared: &Arc<Shared>, node: NodeId) -> Arc<PeerHandle> {
        let limits = &shared.limits;
        let raft = RaftQueue::new(limits.raft_queue_messages_max, limits.raft_queue_bytes_max);
        let raft = Arc::new(raft);
        let (orders_in, orders) = watch::channel(Orders::default());
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let state = watch::Sender::new(LinkState::Down("no address is known".into()));
        let state = Arc::new(state);
        let task = Self {
            shared: Arc::clone(shared),
            node,
            orders,
            events,
            events_in: events_in.clone(),
            state: Arc::clone(&state),
            raft: Arc::clone(&raft),
            current: None,
            generation: 0,
            dialing: None,
            dial_at: None,
            failures: 0,
            met_at: None,
        };
        shared.runtime.spawn(task.run());
        Arc::new(PeerHandle {
            orders: orders_in,
            events: events_in,
            state,
            raft,
            permits: ClassPermits::new(ClassLimits::NODE),
        })
    }

    async fn run(mut self) {
        loop {
            match self.step().await {
                Step::Orders(alive) => {
                    let stop = self.orders.borrow_and_update().stop;
                    if !alive || stop.is_some() {
                        return self.stop(stop.unwrap_or(CloseCode::Done));
                    }
                    self.learned();
                }
                Step::Event(LinkEvent::Accepted(link)) => self.install(link),
                Step::Event(LinkEvent::Ended { link, cause }) => self.ended(&link, &cause),
                Step::Dialed(Ok(link)) => {
                    self.dialing = None;
                    self.install(link);
                }
                Step::Dialed(Err(error)) => {
                    self.dialing = None;
                    self.failed(&error);
                }
                Step::Dial => self.dial(),
            }
        }
    }

    async fn step(&mut self) -> Step {
        tokio::select! {
            biased;
            changed = self.orders.changed() => Step::Orders(changed.is_ok()),
            // The task holds a sender itself: the channel never closes.
            Some(event) = self.events.recv() => Step::Event(event),
            dialed = maybe(self.dialing.as_mut()) => Step::Dialed(dialed),
            () = maybe_at(self.dial_at), if self.dialing.is_none() => Step::Dial,
        }
    }

    /// New addresses: worth an attempt at once.
    fn learned(&mut self) {
        if self.current.is_none() && !self.addresses().is_empty() {
            self.failures = 0;
            self.dial_at = Some(Instant::now());
            if self.dialing.is_none() {
                self.state.send_replace(LinkState::Connecting);
            }
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = self.orders.borrow().addresses.clone();
        if addresses.is_empty() {
            addresses.extend(self.met_at);
        }
        addresses
    }

    fn dial(&mut self) {
        self.dial_at = None;
        let mut addresses = self.addresses();
        if addresses.is_empty() {
            return;
        }
        // A different one first after each failure.
        let turn = self.failures as usize % addresses.len();
        addresses.rotate_left(turn);
        let generation = self.generation.saturating_add(1);
        let shared = Arc::clone(&self.shared);
        self.dialing = Some(dial_any(shared, self.node, addresses, generation).boxed());
    }

    fn failed(&mut self, error: &DialError) {
        metrics::count(metrics::HANDSHAKES_FAILED);
        if self.failures == 0 {
            tracing::warn!(peer = %self.node, %error, "cannot connect to a node");
        }
        self.failures = self.failures.saturating_add(1);
        self.dial_at = Some(Instant::now() + self.backoff());
        let age_max = self.shared.limits.connection_age_max * 2;
        match &self.current {
            None => self.lose(error.to_string().into()),
            // Its certificate was looked at too long ago.
            Some(link) if link.born.elapsed() >= age_max => {
                CloseCode::Aged.close(&link.connection, "too old, and not replaced in time");
            }
            Some(_) => {}
        }
    }

    fn lose(&mut self, cause: Arc<str>) {
        metrics::add(metrics::RAFT_DROPPED, self.raft.clear());
        self.state.send_replace(LinkState::Down(cause));
    }

    /// Doubling from the least to the greatest pause; half of it is chance, so
    /// that a cluster does not return in step.
    fn backoff(&self) -> Duration {
        let doubled = BACKOFF_MIN * 2_u32.saturating_pow(self.failures.min(16));
        self.jitter(doubled.min(self.shared.limits.backoff_max))
    }

    /// Between half of `span` and all of it.
    fn jitter(&self, span: Duration) -> Duration {
        let half = span / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(self.shared.entropy.next_u64() % nanos)
    }

    fn install(&mut self, link: Arc<Link>) {
        metrics::count(metrics::CONNECTIONS_OPENED);
        self.generation = self.generation.max(link.generation);
        let restarted = self.current.as_ref().is_some_and(|old| old.boot != link.boot);
        let outranked =
            self.current.as_ref().is_some_and(|old| !restarted && old.rank() > link.rank());
        if outranked {
            link.retire();
            return self.start(link);
        }
        match self.current.take() {
            Some(old) if restarted => {
                self.report(false);
                CloseCode::Replaced.close(&old.connection, "the node has restarted");
                self.publish(&link);
                old.retire();
                self.report(true);
            }
            Some(old) => {
                // Published before the old one retires: requests find the way.
                self.publish(&link);
                old.retire();
            }
            None => {
                self.publish(&link);
                self.report(true);
            }
        }
        self.met_at = Some(link.connection.remote_address());
        self.dial_at = Some(link.born + self.age_max(&link));
        self.current = Some(Arc::clone(&link));
        self.start(link);
    }

    fn publish(&self, link: &Arc<Link>) {
        self.state.send_replace(LinkState::Up(Arc::clone(link)));
    }

    /// The side that dialed replaces first; the other only if that fails.
    fn age_max(&self, link: &Link) -> Duration {
        let age_max = self.shared.limits.connection_age_max;
        if link.dialed { self.jitter(age_max) } else { age_max + self.jitter(age_max / 4) }
    }

    fn report(&self, up: bool) {
        metrics::links_changed(up);
        self.shared.inbound.link(self.node, up);
    }

    /// Reading begins only now: nothing arrives before the link is reported.
    fn start(&self, link: Arc<Link>) {
        let events = self.events_in.clone();
        let running = connection::run(
            Arc::clone(&link),
            Arc::clone(&self.raft),
            Arc::clone(&self.shared.inbound),
            self.shared.limits.retire_timeout,
        );
        self.shared.runtime.spawn(async move {
            let cause = running.await;
            // The task may be gone; then nobody needs to know.
            let _ = events.send(LinkEvent::Ended { link, cause }).await;
        });
    }

    fn ended(&mut self, link: &Arc<Link>, cause: &ConnectionError) {
        let Some(old) = self.current.take_if(|current| Arc::ptr_eq(current, link)) else { return };
        tracing::info!(peer = %self.node, %cause, "the link to a node was lost");
        old.retire();
        if old.born.elapsed() >= BACKOFF_RESET {
            self.failures = 0;
        }
        self.lose(cause.to_string().into());
        self.report(false);
        if self.addresses().is_empty() {
            return;
        }
        let pause = if self.failures == 0 { Duration::ZERO } else { self.backoff() };
        // A link that ends young must not be dialed in a tight circle.
        self.failures = self.failures.saturating_add(1);
        self.dial_at = Some(Instant::now() + pause);
        if pause.is_zero() && worth_waiting(cause) {
            self.state.send_replace(LinkState::Connecting);
        }
    }

    fn stop(&mut self, code: CloseCode) {
        self.dialing = None;
        self.lose("the node was forgotten or the network is closed".into());
        if let Some(link) = self.current.take() {
            self.report(false);
            link.retire();
            code.close(&link.connection, "the link is given up");
        }
        // Links accepted but not installed yet.
        self.events.close();
        while let Ok(event) = self.events.try_recv() {
            if let LinkEvent::Accepted(link) = event {
                code.close(&link.connection, "the link is given up");
            }
        }
    }
}

/// Whether a lost link's node probably answers a new dial at once. After
/// silence or a farewell it does not: requests had better go elsewhere.
fn worth_waiting(cause: &ConnectionError) -> bool {
    match cause {
        ConnectionError::Reset | ConnectionError::LocallyClosed => true,
        ConnectionError::ApplicationClosed(close) => {
            CloseCode::from_code(close.error_code) != Some(CloseCode::Done)
        }
        ConnectionError::TimedOut
        | ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::CidsExhausted => false,
    }
}

async fn maybe<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn maybe_at(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Tries the addresses in turn.
async fn dial_any(
    shared: Arc<Shared>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    generation: u64,
) -> Result<Arc<Link>, DialError> {
    let mut failure = DialError::Local("no address is known".to_owned());
    for address in addresses {
        match dial_one(&shared, node, address, generation).await {
            Ok(link) => return Ok(link),
            Err(error) => {
                tracing::debug!(peer = %node, %address, %error, "an address did not answer");
                failure = error;
            }
        }
    }
    Err(failure)
}

async fn dial_one(
    shared: &Arc<Shared>,
    node: NodeId,
    address: SocketAddr,
    generation: u64,
) -> Result<Arc<Link>, DialError> {
    let expected = Expected::Node {
        cluster: shared.cluster,
        authority: shared.authority.clone(),
        node: Some(node),
    };
    let store = Some(Arc::clone(&shared.store));
    let parts = (&shared.tls, &shared.entropy);
    let dialer = Dialer::Node(&shared.limits);
    let (connecting, slot) = dial(&shared.endpoint, address, expected, store, parts, dialer)?;
    let limit = shared.limits.handshake_timeout;
    let ours = shared.hello(Role::Node, generation);
    let shaking = async {
        let connection =
            connecting.await.map_err(|error| DialError::from_connection(&error, &slot, limit))?;
        let guard = CloseGuard(Some(connection.clone()));
        raise_windows(&connection);
        let greeted = greet(&connection, &ours, &Peer::Node(node)).await;
        let theirs = greeted.map_err(|failure| match failure {
            GreetFailure::Closed(error) => DialError::from_connection(&error, &slot, limit),
            GreetFailure::Fault(fault) => {
                metrics::count(metrics::PEER_FAULTS);
                DialError::Ended(fault.to_string())
            }
            GreetFailure::Refused(refusal) => DialError::Version(refusal.to_string()),
        })?;
        let link = Link::new(guard.keep(), shared.node, &theirs, generation, None);
        Ok(Arc::new(link))
    };
    timeout(limit, shaking).await.unwrap_or(Err(DialError::Timeout(limit)))
}

/// Closes a connection whose greeting did not come to an end.
pub(crate) struct CloseGuard(pub(crate) Option<quinn::Connection>);

impl CloseGuard {
    pub(crate) fn keep(mut self) -> quinn::Connection {
        #[expect(clippy::expect_used, reason = "filled at birth, emptied here, once")]
        mem::take(&mut self.0).expect("the guard holds its connection")
    }
}

impl Drop for CloseGuard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            CloseCode::Timeout.close(&connection, "hello was not completed");
        }
    }
}
