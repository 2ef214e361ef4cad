//! A client's door over the real transport: an endpoint per node, each with a
//! socket of its own, as the command line's door has it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::client::{Door, DoorError, turns_away};
use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, RequestClass},
    request::{Answer, Fault, Request},
};
use transport::client::{ClientEndpoint, ClientError};

use crate::world::Members;

/// One client's way to the nodes it was told of.
///
/// A lock, though there is one thread: a door is `Sync` by contract.
pub(super) struct QuicDoor {
    members: Members,
    /// Opened when first used.
    endpoints: Mutex<BTreeMap<NodeId, Arc<ClientEndpoint>>>,
    open: Box<dyn Fn(NodeId) -> ClientEndpoint + Send + Sync>,
    /// Whom a call without a target asks; the next one after a failure.
    at_hand: Arc<AtomicUsize>,
}

impl fmt::Debug for QuicDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicDoor").field("members", &self.members).finish_non_exhaustive()
    }
}

impl QuicDoor {
    pub(super) fn new(
        members: Members,
        open: impl Fn(NodeId) -> ClientEndpoint + Send + Sync + 'static,
    ) -> Self {
        let (endpoints, at_hand) = (Mutex::default(), Arc::default());
        Self { members, endpoints, open: Box::new(open), at_hand }
    }

    fn endpoint(&self, node: NodeId) -> Arc<ClientEndpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.entry(node).or_insert_with(|| Arc::new((self.open)(node))).clone()
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
        let nodes = self.members.nodes();
        let asked = to.or_else(|| nodes.get(turn % nodes.len().max(1)).copied());
        let endpoint = asked.map(|node| (node, self.endpoint(node)));
        let at_hand = self.at_hand.clone();
        Box::pin(async move {
            let Some((node, endpoint)) = endpoint else {
                let (node, cause) = ("any node".to_owned(), "it has no address".to_owned());
                return Err(DoorError::Unreachable { node, cause });
            };
            let asked = endpoint.request(class, Bytes::from(request.encode()), timeout).await;
            let answer = answer_of(node, asked);
            if turns_away(&answer) {
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
