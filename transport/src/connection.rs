//! A link: one authenticated connection to one node, and what runs on it.
//!
//! A link is born when Hello is done, used once its peer's task has installed
//! it, *retired* when a newer one took over, and closed when both sides have
//! ended their lane stream. Retired links still serve what comes in; only new
//! requests go elsewhere. So a replacement fails nobody.
//!
//! Order that matters: `begin` counts a request before it looks at `retired`;
//! `idle` looks at the count after `retired` is set. Either the request sees
//! the retirement, or the retirement waits for the request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::{
    ids::NodeId,
    limits::FRAME_BYTES_MAX,
    membership::Boot,
    ports::network::{Inbound, Peer},
};
use quinn::{Connection, ConnectionError, VarInt};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    admission::Place,
    credit::{ByteBudget, ClassLimits, ClassPermits, RaftQueue},
    fault::{CloseCode, PeerFault},
    handshake::Hello,
    lanes::{read_gossip, read_raft, write_raft},
    limits::{NODE_BODY_BYTES_MAX, NODE_SEND_WINDOW_BYTES, NODE_WINDOW_BYTES},
    metrics,
    requests::{Service, serve},
};

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) generation: u64,
    /// Whether this side dialed.
    pub(crate) dialed: bool,
    /// Whether the node with the lower id dialed; breaks ties.
    pub(crate) preferred: bool,
    pub(crate) born: Instant,
    retired: watch::Sender<bool>,
    in_flight: AtomicUsize,
    settled: Notify,
    #[expect(dead_code, reason = "held for its Drop")]
    place: Option<Place>,
}

impl Link {
    /// A link to the node that said `theirs`; `generation` is the dialer's.
    /// Who accepted it holds a place for it.
    pub(crate) fn new(
        connection: Connection,
        ours: NodeId,
        theirs: &Hello,
        generation: u64,
        place: Option<Place>,
    ) -> Self {
        let dialed = place.is_none();
        Self {
            connection,
            node: theirs.node,
            boot: theirs.boot,
            generation,
            dialed,
            preferred: dialed == (ours < theirs.node),
            born: Instant::now(),
            retired: watch::Sender::new(false),
            in_flight: AtomicUsize::new(0),
            settled: Notify::new(),
            place,
        }
    }

    /// Both sides compare the same two numbers, so both keep the same one.
    pub(crate) fn rank(&self) -> (u64, bool) {
        (self.generation, self.preferred)
    }

    /// Counts a request in, unless the link is retired.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<InFlight> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let flight = InFlight(Arc::clone(self));
        (!*self.retired.borrow()).then_some(flight)
    }

    /// New requests go elsewhere from now on.
    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Waits until the link is retired.
    pub(crate) async fn retired(&self) {
        // The sender lives in self: it cannot be gone.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    /// Waits until no request of ours is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let settled = self.settled.notified();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            settled.await;
        }
    }
}

/// A request under way on a link.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Link>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.settled.notify_waiters();
        }
    }
}

/// Opens the windows a node of the cluster deserves.
pub(crate) fn raise_windows(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(ClassLimits::NODE.streams()));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(1));
    connection.set_receive_window(VarInt::from_u32(NODE_WINDOW_BYTES));
    connection.set_send_window(NODE_SEND_WINDOW_BYTES);
}

enum End {
    /// Our lane stream ended and the peer has it all; or the link ended.
    Wrote(bool),
    /// The peer's lane stream ended; or the link ended.
    Read(bool),
    Other,
    Fault(PeerFault),
}

/// Runs everything on a link until it is closed, and says why it was.
pub(crate) async fn run(
    link: Arc<Link>,
    queue: Arc<RaftQueue>,
    inbound: Arc<dyn Inbound>,
    retire_timeout: Duration,
) -> ConnectionError {
    let mut tasks = spawn_all(&link, queue, inbound);
    let (mut wrote, mut read) = (false, false);
    let mut deadline = None;
    loop {
        let end = tokio::select! {
            biased;
            Some(end) = tasks.join_next() => end.unwrap_or(End::Other),
            () = link.retired(), if deadline.is_none() => {
                deadline = Some(Instant::now() + retire_timeout);
                continue;
            }
            () = until(deadline) => {
                CloseCode::Replaced.close(&link.connection, "what ran on it took too long");
                End::Other
            }
        };
        match end {
            End::Wrote(ended) => wrote = ended,
            End::Read(ended) => {
                read = ended;
                // The peer retires this link; ours follows or time ends it.
                deadline.get_or_insert_with(|| Instant::now() + retire_timeout);
            }
            End::Other => {}
            End::Fault(fault) => {
                metrics::count(metrics::PEER_FAULTS);
                tracing::warn!(peer = %link.node, %fault, "a node broke the protocol");
                CloseCode::Fault.close(&link.connection, &fault.to_string());
            }
        }
        if wrote && read {
            CloseCode::Replaced.close(&link.connection, "a newer connection took over");
        }
        if let Some(reason) = link.connection.close_reason() {
            metrics::count(metrics::CONNECTIONS_CLOSED);
            return reason;
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn spawn_all(link: &Arc<Link>, queue: Arc<RaftQueue>, inbound: Arc<dyn Inbound>) -> JoinSet<End> {
    let service = Arc::new(Service {
        inbound: Arc::clone(&inbound),
        peer: Peer::Node(link.node),
        permits: ClassPermits::new(ClassLimits::NODE),
        budget: ByteBudget::new(NODE_BODY_BYTES_MAX),
        frame_bytes_max: FRAME_BYTES_MAX,
    });
    let fault = |outcome: Result<(), PeerFault>| match outcome {
        Ok(()) => End::Other,
        Err(fault) => End::Fault(fault),
    };
    let mut tasks = JoinSet::new();
    let writing = write_raft(Arc::clone(link), queue);
    tasks.spawn(async move { End::Wrote(writing.await) });
    let (reader, gossip) = (Arc::clone(link), Arc::clone(link));
    let raft_inbound = Arc::clone(&inbound);
    tasks.spawn(async move {
        match read_raft(Arc::clone(&reader), raft_inbound).await {
            Ok(ended) => End::Read(ended),
            Err(fault) => End::Fault(fault),
        }
    });
    tasks.spawn(async move { fault(read_gossip(gossip, inbound).await) });
    let serving = serve(link.connection.clone(), service);
    tasks.spawn(async move { fault(serving.await) });
    let ending = link.connection.clone();
    tasks.spawn(async move {
        ending.closed().await;
        End::Other
    });
    tasks
}
