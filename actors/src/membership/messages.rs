//! What the membership actor hears, and the door datagrams come through.

use std::sync::Arc;

use bytes::Bytes;
use cluster::{catalog::view::CatalogView, ids::NodeId, membership::swim::SwimTimer};
use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Datagrams that may wait for the actor: a hundred nodes send a few per
/// second each, so this is some seconds of them, or about a mebibyte.
pub const DATAGRAMS_WAITING_MAX: usize = 1_024;

/// A message to the membership actor.
#[derive(Debug)]
pub enum MembershipMessage {
    /// A gossip datagram of an authenticated node. Made by [`MembershipDoor`].
    Datagram {
        /// The connection's peer.
        from: NodeId,
        /// What it sent.
        bytes: Bytes,
        /// Its place among the waiting ones, given back when it is handled.
        permit: OwnedSemaphorePermit,
    },
    /// A connection came up or was lost.
    LinkChanged {
        /// To whom.
        peer: NodeId,
        /// Whether it is up.
        up: bool,
    },
    /// The node has a newer view of the catalog.
    CatalogChanged(Arc<CatalogView>),
    /// A timer of the core went off.
    Timer(SwimTimer),
    /// Say farewell and go silent. The actor is then stopped by its parent.
    Leave {
        /// Answered when the farewells are handed to the network.
        reply: oneshot::Sender<()>,
    },
}

/// Where the network puts datagrams and links: bounded, and never waits.
#[derive(Clone, Debug)]
pub struct MembershipDoor {
    actor: ActorRef<MembershipMessage>,
    permits: Arc<Semaphore>,
}

impl MembershipDoor {
    /// The door of one actor.
    pub fn new(actor: ActorRef<MembershipMessage>) -> Self {
        Self { actor, permits: Arc::new(Semaphore::new(DATAGRAMS_WAITING_MAX)) }
    }

    /// Passes a datagram on; false if it was dropped because too many wait or
    /// the actor is gone.
    pub fn datagram(&self, from: NodeId, bytes: Bytes) -> bool {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return false };
        self.actor.send_message(MembershipMessage::Datagram { from, bytes, permit }).is_ok()
    }

    /// Passes a change of a link on.
    pub fn link(&self, peer: NodeId, up: bool) {
        // A stopped actor needs no news.
        let _ = self.actor.send_message(MembershipMessage::LinkChanged { peer, up });
    }
}
