//! Messages between nodes, and requests from clients.
//!
//! Payloads are opaque here; the transport frames them (magic, type, version,
//! length, CRC) and bounds them. One-way messages may be lost, doubled or
//! reordered; a request is answered, refused or times out.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;

use crate::ids::{NodeId, TenantId};

/// A boxed future without a runtime in its type.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One-way traffic by urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// SWIM datagrams, at most [`crate::limits::DATAGRAM_BYTES_MAX`] bytes; may be lost.
    Gossip,
    /// Raft batches; kept in order while one connection lives.
    Raft,
}

/// Request classes: each is authorised and bounded on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestClass {
    /// Data requests of clients and forwarded ones of nodes.
    Data,
    /// Catalog, status and administration.
    Admin,
    /// Snapshot pieces; runs behind the others.
    Bulk,
    /// The one request of a peer without a certificate.
    Join,
}

/// Who sent something, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A node of this cluster.
    Node(NodeId),
    /// A client of this cluster, acting for one tenant.
    Client {
        /// Name of the principal.
        principal: String,
        /// The tenant it acts for.
        tenant: TenantId,
    },
    /// Nobody yet: only [`RequestClass::Join`] is open to it.
    Anonymous,
}

/// Why a one-way message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No address is known for that node.
    #[error("no address known for node {0}")]
    UnknownNode(NodeId),
    /// The bounded queue to that node is full; the protocol above repeats.
    #[error("send queue to node {0} is full")]
    Full(NodeId),
    /// The message exceeds the lane's limit.
    #[error("message of {bytes} bytes exceeds the lane's limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The node is shutting down.
    #[error("the network is closed")]
    Closed,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing was sent: no connection could be made. Safe to try elsewhere.
    #[error("cannot reach node {node}: {cause}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What the transport said.
        cause: String,
    },
    /// The answer did not come in time; the request may have been executed.
    #[error("no answer from node {node} within {after:?}")]
    Timeout {
        /// The node.
        node: NodeId,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended first; the request may have been executed.
    #[error("connection to node {node} was lost: {cause}")]
    Lost {
        /// The node.
        node: NodeId,
        /// What the transport said.
        cause: String,
    },
    /// Too many requests are under way to that node; nothing was sent.
    #[error("too many requests under way to node {0}")]
    Busy(NodeId),
}

impl RequestError {
    /// Whether the request certainly did not reach its node.
    pub fn not_sent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy(_) => true,
            Self::Timeout { .. } | Self::Lost { .. } => false,
        }
    }
}

/// Sending half of the network.
pub trait Network: Send + Sync + fmt::Debug {
    /// Queues a one-way message; never waits.
    ///
    /// # Errors
    /// Says why it was not taken; the message is then gone.
    fn send(&self, to: NodeId, lane: Lane, message: Bytes) -> Result<(), SendError>;

    /// Sends a request and waits for the answer, at most `timeout`.
    fn request(
        &self,
        to: NodeId,
        class: RequestClass,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>>;

    /// Teaches where a node can be reached; replaces what was known.
    fn learn(&self, node: NodeId, addresses: Vec<SocketAddr>);

    /// Forgets a removed node and closes its connections.
    fn forget(&self, node: NodeId);
}

/// Receiving half: what the network calls. Handlers must not block.
pub trait Inbound: Send + Sync + fmt::Debug {
    /// A one-way message of an authenticated node.
    fn message(&self, from: NodeId, lane: Lane, message: Bytes);
    /// A request; its future's result is the answer.
    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes>;
    /// A connection to a node came up or was lost.
    fn link(&self, peer: NodeId, up: bool);
}
