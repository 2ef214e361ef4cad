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
/// are dropped (they are repeated), and whoever asks is sent elsewhere: a node that
/// waits to be let in may wait for long.
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
                Bytes::from(Answer::Fault(Fault::NotLeader { leader: None }).encode())
            }),
        }
    }

    fn link(&self, peer: NodeId, up: bool) {
        if let Some(switchboard) = self.0.get() {
            switchboard.link(peer, up);
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster::routing::{Reaction, reaction};

    use super::*;

    /// Seed 148 of the swarm: a client asked a node that was never let in until its
    /// time was up, though the others served.
    #[tokio::test]
    async fn who_asks_a_node_that_is_not_ready_is_sent_elsewhere() {
        let body = Bytes::new();
        let late = LateInbound::default();
        let answer = late.request(Peer::Node(NodeId(1)), RequestClass::Data, body).await;
        let Ok(Answer::Fault(fault)) = Answer::decode(&answer) else { panic!("{answer:?}") };
        assert_eq!(reaction(&fault), Reaction::Elsewhere { in_doubt: false });
    }
}
