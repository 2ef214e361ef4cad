//! The native door from outside: what the CLI and the library connect with.
//!
//! A client has a profile (endpoints, its certificate, the authority) and
//! keeps one connection to the endpoint that answered last. A request that was
//! surely not sent is tried at the next endpoint; one that may have been
//! executed is not: whether it can be repeated is the session's to know.
//!
//! Each way to fail has its own words, because each is mended differently.

mod error;

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    limits::FRAME_BYTES_MAX,
    ports::{
        clock::Clock,
        entropy::Entropy,
        network::{Peer, RequestClass},
    },
};
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    endpoint::proven_peer,
    fault::CloseCode,
    framing::Prelude,
    handshake::{GreetFailure, Hello, Role, greet},
    identity::{Credentials, IdentityError, JoinToken},
    limits::{CONNECTION_AGE_MAX, HANDSHAKE_TIMEOUT},
    quic::{self, DialError, Dialer, Socket},
    requests::{AskFailure, ask, within},
    tls::{CertificateStore, Expected, TlsParts},
};

pub use error::ClientError;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Nodes, as `host:port`, tried in this order.
    pub endpoints: Vec<String>,
    /// The client's certificate.
    pub credentials: Credentials,
}

/// What a client is made of, besides its profile.
#[derive(Clone, Debug)]
pub struct ClientParts {
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Time, for certificates.
    pub clock: Arc<dyn Clock>,
}

/// A client of one cluster.
pub struct ClientEndpoint {
    dialer: ClientDialer,
    endpoints: Vec<String>,
    /// The connection in use. The lock is held while connecting, so that many
    /// requests at once make one connection, not many.
    current: Mutex<Option<Current>>,
    /// The endpoint that answered last.
    good: AtomicUsize,
}

/// Shortest time an endpoint gets to answer a dial.
const CONNECT_PATIENCE_MIN: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Current {
    connection: Connection,
    endpoint: usize,
    born: Instant,
}

/// What dialing needs; with or without a certificate of our own.
struct ClientDialer {
    endpoint: quinn::Endpoint,
    /// Whether the system carries the datagrams, and so knows who refuses them.
    system_carries: bool,
    parts: ClientParts,
    tls: TlsParts,
    store: Option<Arc<CertificateStore>>,
    expected: Expected,
    hello: Hello,
}

impl ClientEndpoint {
    /// Prepares a client; connects with the first request.
    ///
    /// # Errors
    /// If the profile is unusable or no socket can be bound.
    pub fn new(profile: Profile, parts: ClientParts) -> Result<Self, ClientError> {
        let socket = any_socket()?;
        Self::with_socket(profile, parts, socket)
    }

    /// The same on a given socket.
    ///
    /// # Errors
    /// If the profile is unusable.
    pub fn with_socket(
        profile: Profile,
        parts: ClientParts,
        socket: Socket,
    ) -> Result<Self, ClientError> {
        let local = |error: IdentityError| ClientError::Local(error.to_string());
        let store = CertificateStore::new(&profile.credentials).map_err(local)?;
        let cluster = profile.credentials.names().cluster;
        let expected = Expected::Node {
            cluster,
            authority: CertificateDer::from(profile.credentials.authority().to_vec()),
            node: None,
        };
        let hello = Hello { cluster, ..Hello::new(Role::Client) };
        let dialer = ClientDialer::new(socket, parts, Some(store), expected, hello)?;
        Ok(Self {
            dialer,
            endpoints: profile.endpoints,
            current: Mutex::new(None),
            good: AtomicUsize::new(0),
        })
    }

    /// Sends a request to the first endpoint that takes it.
    ///
    /// # Errors
    /// Says why there is no answer; [`ClientError::not_sent`] says whether it
    /// can have been executed.
    pub async fn request(
        &self,
        class: RequestClass,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        if body.len() > FRAME_BYTES_MAX {
            let (bytes, bytes_max) = (body.len(), FRAME_BYTES_MAX);
            return Err(ClientError::TooLarge { bytes, bytes_max });
        }
        let deadline = Instant::now() + timeout;
        let first = self.good.load(Ordering::Relaxed);
        let mut failure: Option<ClientError> = None;
        for turn in 0..self.endpoints.len() {
            let index = (first + turn) % self.endpoints.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // A silent endpoint must leave time for those after it.
            let others = u32::try_from(self.endpoints.len() - turn).unwrap_or(u32::MAX);
            let patience = (left / others).max(CONNECT_PATIENCE_MIN).min(left);
            let asking = self.request_at(index, class, (patience, deadline), body.clone());
            match asking.await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.not_sent() => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "an endpoint did not take a request");
                    if failure.as_ref().is_none_or(|worst| error.weight() > worst.weight()) {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or(ClientError::NoEndpoint))
    }

    /// Closes the connection and waits a moment for the node to hear of it.
    pub async fn close(&self) {
        self.dialer.close().await;
    }

    async fn request_at(
        &self,
        index: usize,
        class: RequestClass,
        (patience, deadline): (Duration, Instant),
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let Some(endpoint) = self.endpoints.get(index) else {
            return Err(ClientError::NoEndpoint);
        };
        let Ok(connection) = timeout(patience, self.connection(index, endpoint)).await else {
            return Err(ClientError::NoAnswer { endpoint: endpoint.clone(), after: patience });
        };
        let connection = connection?;
        let left = deadline.saturating_duration_since(Instant::now());
        ask_at(&connection, endpoint, Prelude { class, timeout: left }, body).await
    }

    async fn connection(&self, index: usize, endpoint: &str) -> Result<Connection, ClientError> {
        let mut current = self.current.lock().await;
        if let Some(used) = &*current {
            let alive = used.connection.close_reason().is_none();
            if alive && used.endpoint == index && used.born.elapsed() < CONNECTION_AGE_MAX {
                return Ok(used.connection.clone());
            }
        }
        // Requests still running hold the old connection; it closes with them.
        let connection = self.dialer.connect(endpoint).await?;
        self.good.store(index, Ordering::Relaxed);
        let used = Current { connection, endpoint: index, born: Instant::now() };
        Ok(current.insert(used).connection.clone())
    }
}

impl fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEndpoint").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A connection without a certificate, good for one Join request.
pub struct JoinConnection {
    dialer: ClientDialer,
    connection: Connection,
    endpoint: String,
}

/// Connects to a node of the cluster whose authority the token names.
///
/// # Errors
/// Says why not; nothing secret was sent.
pub async fn join(
    endpoint: &str,
    token: &JoinToken,
    parts: ClientParts,
) -> Result<JoinConnection, ClientError> {
    let expected = Expected::Fingerprint(token.fingerprint);
    let hello = Hello::new(Role::Stranger);
    let dialer = ClientDialer::new(any_socket()?, parts, None, expected, hello)?;
    let connection = dialer.connect(endpoint).await?;
    Ok(JoinConnection { dialer, connection, endpoint: endpoint.to_owned() })
}

impl JoinConnection {
    /// Sends the one request and closes the connection.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub async fn request(self, body: Bytes, timeout: Duration) -> Result<Bytes, ClientError> {
        let prelude = Prelude { class: RequestClass::Join, timeout };
        let answer = ask_at(&self.connection, &self.endpoint, prelude, body).await;
        self.dialer.close().await;
        answer
    }
}

impl fmt::Debug for JoinConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinConnection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

async fn ask_at(
    connection: &Connection,
    endpoint: &str,
    prelude: Prelude,
    body: Bytes,
) -> Result<Bytes, ClientError> {
    let sent = AtomicBool::new(false);
    let asking = ask(connection, prelude, body, &sent);
    let endpoint = endpoint.to_owned();
    within(prelude.timeout, &sent, asking).await.map_err(|failure| match failure {
        None | Some(AskFailure::Expired) => {
            ClientError::Timeout { endpoint, after: prelude.timeout }
        }
        Some(AskFailure::NotSent(cause)) => ClientError::Unreachable { endpoint, cause },
        Some(AskFailure::Busy) => ClientError::Busy { endpoint },
        Some(AskFailure::NotAllowed) => ClientError::NotAllowed { endpoint, class: prelude.class },
        Some(AskFailure::Lost(cause)) => ClientError::Lost { endpoint, cause },
    })
}

impl ClientDialer {
    fn new(
        socket: Socket,
        parts: ClientParts,
        store: Option<Arc<CertificateStore>>,
        expected: Expected,
        hello: Hello,
    ) -> Result<Self, ClientError> {
        let tls = TlsParts::new(&parts.entropy, &parts.clock);
        let system_carries = matches!(socket, Socket::Udp(_));
        let endpoint = quic::endpoint(socket, None, None, &parts.entropy)
            .map_err(|error| ClientError::Local(error.to_string()))?;
        Ok(Self { endpoint, system_carries, parts, tls, store, expected, hello })
    }

    /// Looks the endpoint up and tries its addresses in turn.
    async fn connect(&self, endpoint: &str) -> Result<Connection, ClientError> {
        let mut failure = None;
        for address in look_up(endpoint).await? {
            match self.connect_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        let failure = failure.unwrap_or(DialError::Unreachable);
        Err(dial_failure(endpoint.to_owned(), failure))
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Connection, DialError> {
        let parts = (&self.tls, &self.parts.entropy);
        let (connecting, slot) = quic::dial(
            &self.endpoint,
            address,
            self.expected.clone(),
            self.store.clone(),
            parts,
            Dialer::Client,
        )?;
        let limit = HANDSHAKE_TIMEOUT;
        let shaking = async {
            let failed = |error| DialError::from_connection(&error, &slot, limit);
            let connection = connecting.await.map_err(failed)?;
            let peer = proven_peer(&connection).unwrap_or(Peer::Anonymous);
            match greet(&connection, &self.hello, &peer).await {
                Ok(_) => Ok(connection),
                Err(GreetFailure::Closed(error)) => Err(failed(error)),
                Err(GreetFailure::Fault(fault)) => Err(DialError::Ended(fault.to_string())),
                Err(GreetFailure::Refused(refusal)) => Err(DialError::Version(refusal.to_string())),
            }
        };
        tokio::select! {
            biased;
            shaken = timeout(limit, shaking) => shaken.unwrap_or(Err(DialError::Timeout(limit))),
            () = refused(address), if self.system_carries => Err(DialError::Unreachable),
        }
    }

    async fn close(&self) {
        /// Nobody waits long for a farewell.
        const FAREWELL: Duration = Duration::from_millis(200);
        self.endpoint.close(CloseCode::Done.code(), b"the client is done");
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

fn dial_failure(endpoint: String, failure: DialError) -> ClientError {
    match failure {
        DialError::Local(cause) => ClientError::Local(cause),
        DialError::Certificate(fault) => ClientError::WrongCertificate { endpoint, fault },
        DialError::Refused(cause) => ClientError::CertificateRefused { endpoint, cause },
        DialError::Version(cause) => ClientError::Version { endpoint, cause },
        DialError::Busy => ClientError::Busy { endpoint },
        DialError::Timeout(after) => ClientError::NoAnswer { endpoint, after },
        DialError::Unreachable => {
            ClientError::Unreachable { endpoint, cause: "nobody listens there".to_owned() }
        }
        DialError::Ended(cause) => ClientError::Unreachable { endpoint, cause },
    }
}

async fn look_up(endpoint: &str) -> Result<Vec<SocketAddr>, ClientError> {
    if let Ok(address) = endpoint.parse() {
        return Ok(vec![address]);
    }
    let failed = |cause: String| ClientError::Lookup { endpoint: endpoint.to_owned(), cause };
    let found =
        tokio::net::lookup_host(endpoint).await.map_err(|error| failed(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(found)
}

/// Returns when the system says that nobody listens at `address`; never
/// otherwise. QUIC's own socket is not told (it is connected to nobody), so a
/// connected one asks with a single byte, which every QUIC server ignores.
async fn refused(address: SocketAddr) {
    let asking = async {
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = tokio::net::UdpSocket::bind(local).await?;
        socket.connect(address).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    };
    match asking.await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
        Ok(_) | Err(_) => std::future::pending().await,
    }
}

/// A socket on any port, for both address families where the system has both.
fn any_socket() -> Result<Socket, ClientError> {
    let both = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    let socket = both.or_else(|_| UdpSocket::bind(("0.0.0.0", 0)));
    socket.map(Socket::Udp).map_err(|error| ClientError::Local(error.to_string()))
}
