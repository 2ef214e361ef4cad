//! The network starts before the actors it delivers to: this stands between.

use std::sync::OnceLock;

use actors::switchboard::Switchboard;
use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    request::{Answer, Fault},
};

/// Passes everything on once the switchboard is there; until then messages
/// are dropped (they are repeated) and requests refused as busy.
#[derive(Debug, Default)]
pub(super) struct LateInbound(OnceLock<Switchboard>);

impl LateInbound {
    pub(super) fn set(&self, switchboard: Switchboard) {
        // It is set once, by the one start of the node.
        let _ = self.0.set(switchboard);
    }
}

impl Inbound for LateInbound {
    fn message(&self, from: NodeId, lane: Lane, message: Bytes) {
        if let Some(switchboard) = self.0.get() {
            switchboard.message(from, lane, message);
        }
    }

    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        match self.0.get() {
            Some(switchboard) => switchboard.request(from, class, body),
            None => Box::pin(async {
                Bytes::from(Answer::Fault(Fault::Busy { retry_after_ms: 100 }).encode())
            }),
        }
    }

    fn link(&self, peer: NodeId, up: bool) {
        if let Some(switchboard) = self.0.get() {
            switchboard.link(peer, up);
        }
    }
}
