//! A client's door over the real transport: an endpoint per node, each with a
//! socket of its own, as the command line's door has it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::client::{Door, DoorError};
use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, RequestClass},
    request::{Answer, Fault, Request},
};
use transport::client::{ClientEndpoint, ClientError};

/// One client's way to the nodes it was told of.
pub(super) struct QuicDoor {
    nodes: Vec<NodeId>,
    endpoints: BTreeMap<NodeId, Arc<ClientEndpoint>>,
    /// Whom a call without a target asks; the next one after a failure.
    at_hand: Arc<AtomicUsize>,
}

impl fmt::Debug for QuicDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicDoor").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl QuicDoor {
    pub(super) fn new(endpoints: impl IntoIterator<Item = (NodeId, ClientEndpoint)>) -> Self {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        Self {
            nodes: endpoints.iter().map(|(node, _)| *node).collect(),
            endpoints: endpoints.into_iter().map(|(node, at)| (node, Arc::new(at))).collect(),
            at_hand: Arc::default(),
        }
    }
}

impl Door for QuicDoor {
    fn call(
        &self,
        to: Option<NodeId>,
        class: RequestClass,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<Result<Answer, DoorError>> {
        let turn = self.at_hand.load(Ordering::Relaxed);
        let asked = to.or_else(|| self.nodes.get(turn % self.nodes.len().max(1)).copied());
        let endpoint = asked.and_then(|node| Some((node, self.endpoints.get(&node)?.clone())));
        let at_hand = self.at_hand.clone();
        Box::pin(async move {
            let Some((node, endpoint)) = endpoint else {
                let (node, cause) = ("any node".to_owned(), "it has no address".to_owned());
                return Err(DoorError::Unreachable { node, cause });
            };
            let asked = endpoint.request(class, Bytes::from(request.encode()), timeout).await;
            let answer = answer_of(node, asked);
            if answer.is_err() {
                let next = (turn + 1, Ordering::Relaxed);
                let _ = at_hand.compare_exchange(turn, next.0, next.1, next.1);
            }
            answer
        })
    }

    fn learn(&self, _nodes: Vec<(NodeId, Vec<String>)>) {
        // Addresses of a world never change.
    }
}

/// From the transport's words to the door's.
fn answer_of(node: NodeId, answer: Result<Bytes, ClientError>) -> Result<Answer, DoorError> {
    let node = node.to_string();
    let error = match answer {
        Ok(bytes) => {
            return Answer::decode(&bytes)
                .map_err(|error| DoorError::BadAnswer { node, cause: error.to_string() });
        }
        Err(error) => error,
    };
    let cause = error.to_string();
    Err(match error {
        ClientError::Unreachable { .. }
        | ClientError::Lookup { .. }
        | ClientError::NoAnswer { .. }
        | ClientError::NoEndpoint
        | ClientError::Local(_) => DoorError::Unreachable { node, cause },
        ClientError::Timeout { after, .. } => DoorError::Timeout { node, after },
        ClientError::WrongCertificate { .. } | ClientError::CertificateRefused { .. } => {
            DoorError::BadCertificate { node, cause }
        }
        ClientError::Version { .. } => DoorError::BadAnswer { node, cause },
        ClientError::Busy { .. } => DoorError::Busy { node },
        ClientError::NotAllowed { .. } => return Ok(Answer::Fault(Fault::NotAllowed(cause))),
        ClientError::TooLarge { .. } => return Ok(Answer::Fault(Fault::Invalid(cause))),
        ClientError::Lost { .. } => DoorError::Lost { node, cause },
    })
}
