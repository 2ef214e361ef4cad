//! What a boot's transport delivers to: the resident, once it is there.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    request::{Answer, Fault},
};

use crate::{clock::HostClock, network::Address, trace::Trace};

/// Passes everything on once the resident has started; until then messages
/// are dropped and whoever asks is sent elsewhere, as the node's own does. Links are
/// noted in the trace.
///
/// A lock, though there is one thread: the port is `Sync` by contract.
#[derive(Debug)]
pub(crate) struct LateInbound {
    me: Address,
    clock: Arc<HostClock>,
    trace: Trace,
    resident: Mutex<Option<Arc<dyn Inbound>>>,
}

impl LateInbound {
    pub(crate) fn new(me: Address, clock: Arc<HostClock>, trace: Trace) -> Self {
        Self { me, clock, trace, resident: Mutex::new(None) }
    }

    /// The resident from now on; none ends the circle of references through
    /// which a dead boot would keep itself alive.
    pub(crate) fn set(&self, resident: Option<Arc<dyn Inbound>>) {
        *self.resident.lock().unwrap_or_else(PoisonError::into_inner) = resident;
    }

    fn resident(&self) -> Option<Arc<dyn Inbound>> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inbound for LateInbound {
    fn message(&self, from: NodeId, lane: Lane, message: Bytes) {
        if let Some(resident) = self.resident() {
            resident.message(from, lane, message);
        }
    }

    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        match self.resident() {
            Some(resident) => resident.request(from, class, body),
            None => Box::pin(async {
                Bytes::from(Answer::Fault(Fault::NotLeader { leader: None }).encode())
            }),
        }
    }

    fn link(&self, peer: NodeId, up: bool) {
        let what = if up { "link up" } else { "link lost" };
        let line = format!("{} {what} {}", self.me, Address::Node(peer));
        self.trace.note(self.clock.world_now(), &line);
        self.trace.count(what);
        if let Some(resident) = self.resident() {
            resident.link(peer, up);
        }
    }
}
