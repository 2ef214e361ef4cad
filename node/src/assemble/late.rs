//! The network starts before the actors it delivers to: this stands between.

use std::sync::OnceLock;

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    request::{Answer, Fault, Request},
};

use crate::doors::native::NativeDoor;

/// When to ask for admission again.
const RETRY_MS: u32 = 100;

/// Passes everything on once the door is there; until then messages
/// are dropped (they are repeated), and whoever asks is sent elsewhere: a node that
/// waits to be let in may wait for long. Only what is asked of this very node is
/// answered by it.
#[derive(Debug, Default)]
pub(super) struct LateInbound(OnceLock<NativeDoor>);

impl LateInbound {
    pub(super) fn set(&self, door: NativeDoor) {
        // It is set once, by the one start of the node.
        let _ = self.0.set(door);
    }
}

impl Inbound for LateInbound {
    fn message(&self, from: NodeId, lane: Lane, message: Bytes) {
        if let Some(door) = self.0.get() {
            door.message(from, lane, message);
        }
    }

    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        if let Some(door) = self.0.get() {
            return door.request(from, class, body);
        }
        let answer = Answer::Fault(not_yet(&body)).encode().into();
        Box::pin(std::future::ready(answer))
    }

    fn link(&self, peer: NodeId, up: bool) {
        if let Some(door) = self.0.get() {
            door.link(peer, up);
        }
    }
}

/// What a node that does not serve yet says to a request.
fn not_yet(body: &[u8]) -> Fault {
    match Request::decode(body) {
        Ok(Request::NodeStatus) => {
            Fault::Invalid("it is starting, and waits to be let in by the cluster".to_owned())
        }
        Ok(Request::Join(_)) => Fault::Busy { retry_after_ms: RETRY_MS },
        Ok(
            Request::Shard(_)
            | Request::CatalogChanges { .. }
            | Request::SnapshotPiece(_)
            | Request::NewToken { .. },
        )
        | Err(_) => Fault::NotLeader { leader: None },
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        membership::Boot,
        mvcc::version::Version,
        request::JoinRequest,
        routing::{Reaction, reaction},
    };

    use super::*;

    /// Seed 148 of the swarm: a client asked a node that was never let in until its
    /// time was up, though the others served.
    #[tokio::test]
    async fn who_asks_a_node_that_is_not_ready_is_sent_elsewhere() {
        let asked = [
            Request::CatalogChanges { after: Version(0), wait_ms: 0 },
            Request::NewToken { lifetime_ms: 1 },
        ];
        for request in asked {
            let fault = told(&request).await;
            assert_eq!(reaction(&fault), Reaction::Elsewhere { in_doubt: false }, "{request:?}");
        }
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_says_so_to_who_means_this_very_node() {
        let status = told(&Request::NodeStatus).await;
        assert!(status.to_string().contains("it is starting"), "{status}");
        let join = JoinRequest {
            secret: [0; 32],
            node: NodeId(1),
            signing_request: Vec::new(),
            addresses: Vec::new(),
            http_address: String::new(),
            zone: String::new(),
            capacity_bytes: 0,
            boot: Boot::default(),
        };
        let join = told(&Request::Join(join)).await;
        assert_eq!(reaction(&join), Reaction::SameAfter(RETRY_MS));
    }

    async fn told(request: &Request) -> Fault {
        let (late, body) = (LateInbound::default(), request.encode().into());
        let answer = late.request(Peer::Node(NodeId(1)), request.class(), body).await;
        let Ok(Answer::Fault(fault)) = Answer::decode(&answer) else { panic!("{answer:?}") };
        fault
    }
}
