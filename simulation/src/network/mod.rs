//! The network between the hosts of a world: the `Network` port over weather.
//!
//! The idea in plain words. Between two hosts there is at most one
//! *connection*, as there is one QUIC connection in the product. Raft messages,
//! requests and answers ride on it: a cut delays them, and they die with it.
//! Gossip datagrams are lost one by one. A broken connection is noticed by its
//! ends only after a delay; both are then told, and dial again.
//!
//! Invariants: bytes arrive as they were sent; a parcel reaches only the boot
//! it was sent to; everything drawn comes from one stream of the seed, in the
//! order of the calls, which the world's stepping makes the same every time.

mod fabric;
mod link;
mod port;
mod slots;
#[cfg(test)]
mod tests;
mod weather;

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{Lane, Peer, RequestClass},
};

pub use fabric::{Arrivals, Fabric, Reply};
pub use port::Port;
pub use weather::Weather;

/// Port of every node.
const NODE_PORT: u16 = 7_000;

/// Where a host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A node.
    Node(NodeId),
    /// A client.
    Client(u32),
}

impl Address {
    /// The node there, if it is one.
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Client(_) => None,
        }
    }

    /// Where its datagrams go, in worlds that have some: nodes live in
    /// 10.0.0.0/24 by their number, clients in 10.1.0.0/16.
    pub fn socket(self) -> SocketAddr {
        match self {
            Self::Node(node) => SocketAddr::from(([10, 0, 0, node.0.to_le_bytes()[0]], NODE_PORT)),
            Self::Client(client) => {
                let [low, high, ..] = client.to_le_bytes();
                SocketAddr::from(([10, 1, high, low], NODE_PORT))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Nodes of a world carry their machine's number, from 1, in their
            // low bits, and above it how often its disk was replaced.
            Self::Node(node) => {
                write!(f, "n{}", node.0 & 0xff)?;
                match node.0 >> 8 & 0xff {
                    0 => Ok(()),
                    birth => write!(f, ".{birth}"),
                }
            }
            Self::Client(client) => write!(f, "c{client}"),
        }
    }
}

/// Names a request under way; the answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What the world hands to a host.
#[derive(Debug)]
pub enum Delivery {
    /// A one-way message.
    Message {
        /// Its sender.
        from: NodeId,
        /// Its lane.
        lane: Lane,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A request; answer it with [`Port::answer`].
    Request {
        /// Who asks.
        from: Peer,
        /// Its class.
        class: RequestClass,
        /// Its bytes.
        bytes: Bytes,
        /// To answer with.
        ticket: Ticket,
    },
    /// An answer to what a task of this host asked.
    Answer(Reply),
    /// A connection came up or was lost.
    Link {
        /// With whom.
        peer: NodeId,
        /// Which of the two.
        up: bool,
    },
}
