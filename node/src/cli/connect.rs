//! The client's door to a real cluster: QUIC, with the profile's certificate.
//!
//! Each node has an endpoint of its own, dialled when first asked; a request
//! to nobody in particular goes to the profile's endpoints in turn, starting
//! with the one that answered last. After any failure the next one is at hand.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::client::{Client, Door, DoorError, turns_away};
use cluster::{
    codes::ErrorCode,
    ids::NodeId,
    ports::{
        clock::Clock,
        network::{BoxFuture, RequestClass},
    },
    request::{Answer, Fault, Request},
    units::WallTime,
};
use tokio::time::Instant;
use transport::{
    client::{ClientEndpoint, ClientError, ClientParts, Profile as Identity},
    identity::Credentials,
};

use super::{
    error::{CliError, Outcome},
    operator,
    profile::Profile,
    render::tell,
};
use crate::devices::{clock::SystemClock, entropy::SystemEntropy};

/// The addresses of a node, and the endpoint dialled for them.
type Known = (Vec<String>, Option<Arc<ClientEndpoint>>);

/// The door.
#[derive(Debug)]
struct QuicDoor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    credentials: Credentials,
    parts: ClientParts,
    /// One per address of the profile.
    any: Vec<ClientEndpoint>,
    /// Which of them is asked first.
    at_hand: AtomicUsize,
    /// A lock, because a door is no actor; never held across an await.
    nodes: Mutex<BTreeMap<NodeId, Known>>,
}

/// A client of the profile's cluster. Nothing is sent before it is used.
///
/// # Errors
/// If the profile's certificate, key or authority are unusable.
pub(super) fn client(profile: &Profile) -> Outcome<Client> {
    let clock = Arc::new(SystemClock::new());
    let entropy = Arc::new(SystemEntropy::new());
    let unusable = |cause: String| {
        CliError::new(
            ErrorCode::BadProfile,
            "the profile's certificate cannot be used",
            cause,
            "use the client.yaml the cluster wrote, unchanged",
        )
    };
    let credentials = profile.credentials().map_err(|error| unusable(error.to_string()))?;
    check_end(&credentials, clock.wall())?;
    let parts = ClientParts { entropy: entropy.clone(), clock: clock.clone() };
    let endpoint = |address: &String| {
        let endpoints = vec![address.clone()];
        let identity = Identity { endpoints, credentials: credentials.clone() };
        ClientEndpoint::new(identity, parts.clone()).map_err(|error| unusable(error.to_string()))
    };
    let any = profile.endpoints.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
    let shared = Shared {
        credentials,
        parts,
        any,
        at_hand: AtomicUsize::new(0),
        nodes: Mutex::new(BTreeMap::new()),
    };
    Ok(Client::new(Arc::new(QuicDoor(Arc::new(shared))), clock, entropy))
}

/// Refuses a certificate that has ended, and says so months before.
fn check_end(credentials: &Credentials, now: WallTime) -> Outcome<()> {
    let day = operator::end_of(credentials);
    if credentials.ends() <= now {
        return Err(CliError::new(
            ErrorCode::BadProfile,
            "the profile's certificate has ended",
            format!("it was good until {day}, says this machine's clock"),
            "on a node's machine: cdb cluster profile -c node.yaml",
        )
        .into());
    }
    if credentials.is_due(now) {
        tell(&format!(
            "the profile's certificate ends on {day}; for the next, on a node's machine: \
             cdb cluster profile -c node.yaml"
        ));
    }
    Ok(())
}

impl Door for QuicDoor {
    fn call(
        &self,
        to: Option<NodeId>,
        class: RequestClass,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<Result<Answer, DoorError>> {
        let shared = self.0.clone();
        let body = bytes::Bytes::from(request.encode());
        Box::pin(async move {
            match to {
                Some(node) => {
                    let endpoint = shared.endpoint(node)?;
                    let answer = endpoint.request(class, body, timeout).await;
                    answer_of(&node.to_string(), answer)
                }
                None => shared.ask_any(class, body, timeout).await,
            }
        })
    }

    fn learn(&self, nodes: Vec<(NodeId, Vec<String>)>) {
        let mut known = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, addresses) in nodes {
            let entry = known.entry(node).or_default();
            if entry.0 != addresses {
                *entry = (addresses, None);
            }
        }
    }
}

impl Shared {
    fn endpoint(&self, node: NodeId) -> Result<Arc<ClientEndpoint>, DoorError> {
        let unreachable = |cause: String| DoorError::Unreachable { node: node.to_string(), cause };
        let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (addresses, endpoint) =
            known.get_mut(&node).ok_or_else(|| unreachable("its address is not known".into()))?;
        if let Some(endpoint) = endpoint {
            return Ok(endpoint.clone());
        }
        let credentials = self.credentials.clone();
        let identity = Identity { endpoints: addresses.clone(), credentials };
        let made = ClientEndpoint::new(identity, self.parts.clone())
            .map_err(|error| unreachable(error.to_string()))?;
        Ok(endpoint.insert(Arc::new(made)).clone())
    }

    async fn ask_any(
        &self,
        class: RequestClass,
        body: bytes::Bytes,
        timeout: Duration,
    ) -> Result<Answer, DoorError> {
        let ends = Instant::now() + timeout;
        let first = self.at_hand.load(Ordering::Relaxed);
        let count = self.any.len();
        let mut last = DoorError::Unreachable {
            node: "the cluster".into(),
            cause: "the profile names no endpoint".into(),
        };
        for turn in 0..count {
            let place = (first + turn) % count;
            let Some(endpoint) = self.any.get(place) else { break };
            // An address that says nothing must leave time for the others.
            let left = ends.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(count - turn).unwrap_or(1);
            let answer = endpoint.request(class, body.clone(), share).await;
            match answer_of("the cluster", answer) {
                Ok(answer) => {
                    let answer = Ok(answer);
                    let next = if turns_away(&answer) { place + 1 } else { place };
                    self.at_hand.store(next, Ordering::Relaxed);
                    return answer;
                }
                Err(error) => {
                    self.at_hand.store(place + 1, Ordering::Relaxed);
                    let go_on = error.not_sent();
                    last = error;
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

/// The one table from the transport's words to the door's.
fn answer_of(node: &str, answer: Result<bytes::Bytes, ClientError>) -> Result<Answer, DoorError> {
    let node = node.to_owned();
    let error = match answer {
        Ok(bytes) => {
            return Answer::decode(&bytes)
                .map_err(|error| DoorError::BadAnswer { node, cause: error.to_string() });
        }
        Err(error) => error,
    };
    let cause = error.to_string();
    Err(match error {
        ClientError::Unreachable { endpoint, cause } | ClientError::Lookup { endpoint, cause } => {
            DoorError::Unreachable { node: endpoint, cause }
        }
        ClientError::NoAnswer { endpoint, after } => DoorError::Unreachable {
            node: endpoint,
            cause: format!("no answer within {after:?}; is it up, and is UDP open on the way?"),
        },
        ClientError::NoEndpoint | ClientError::Local(_) => DoorError::Unreachable { node, cause },
        ClientError::Timeout { after, .. } => DoorError::Timeout { node, after },
        ClientError::WrongCertificate { .. } | ClientError::CertificateRefused { .. } => {
            DoorError::BadCertificate { node, cause }
        }
        ClientError::Version { endpoint, cause } => DoorError::BadAnswer { node: endpoint, cause },
        ClientError::Busy { endpoint } => DoorError::Busy { node: endpoint },
        ClientError::NotAllowed { .. } => return Ok(Answer::Fault(Fault::NotAllowed(cause))),
        ClientError::TooLarge { .. } => return Ok(Answer::Fault(Fault::Invalid(cause))),
        ClientError::Lost { endpoint, cause } => DoorError::Lost { node: endpoint, cause },
    })
}
