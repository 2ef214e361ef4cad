//! The client's `Door` over the simulated network.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use actors::client::{Door, DoorError, turns_away};
use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, Network, RequestClass, RequestError},
    request::{Answer, Request},
};

use crate::{network::Port, world::Members};

/// One client's way to the nodes it was told of.
pub struct SimulatedDoor {
    port: Port,
    members: Members,
    /// Whom a call without a target asks; the next one when it turns away.
    at_hand: std::sync::Arc<AtomicUsize>,
}

impl fmt::Debug for SimulatedDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDoor").field("members", &self.members).finish_non_exhaustive()
    }
}

impl SimulatedDoor {
    /// A door to `members` through `port`.
    pub fn new(port: Port, members: Members) -> Self {
        Self { port, members, at_hand: std::sync::Arc::default() }
    }
}

impl Door for SimulatedDoor {
    fn call(
        &self,
        to: Option<NodeId>,
        class: RequestClass,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<Result<Answer, DoorError>> {
        let turn = self.at_hand.load(Ordering::Relaxed);
        let asked = to.or_else(|| {
            let nodes = self.members.nodes();
            nodes.get(turn % nodes.len().max(1)).copied()
        });
        let (port, at_hand) = (self.port.clone(), self.at_hand.clone());
        Box::pin(async move {
            let Some(node) = asked else {
                let (node, cause) = ("any node".to_owned(), "no node is known".to_owned());
                return Err(DoorError::Unreachable { node, cause });
            };
            let body = Bytes::from(request.encode());
            let answer = match port.request(node, class, body, timeout).await {
                Ok(bytes) => Answer::decode(&bytes).map_err(|error| DoorError::BadAnswer {
                    node: node.to_string(),
                    cause: error.to_string(),
                }),
                Err(error) => Err(translate(error)),
            };
            if turns_away(&answer) {
                let relaxed = Ordering::Relaxed;
                let _ = at_hand.compare_exchange(turn, turn + 1, relaxed, relaxed);
            }
            answer
        })
    }

    fn learn(&self, _nodes: Vec<(NodeId, Vec<String>)>) {
        // The fabric reaches every node by its id.
    }
}

fn translate(error: RequestError) -> DoorError {
    match error {
        RequestError::Unreachable { node, cause } => {
            DoorError::Unreachable { node: node.to_string(), cause }
        }
        RequestError::Timeout { node, after } => {
            DoorError::Timeout { node: node.to_string(), after }
        }
        RequestError::Lost { node, cause } => DoorError::Lost { node: node.to_string(), cause },
        RequestError::Busy(node) => DoorError::Busy { node: node.to_string() },
    }
}
