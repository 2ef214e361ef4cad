//! quinn, set up: the endpoint from injected parts, and dialing.
//!
//! Everything that would draw chance or read time by itself is given here:
//! socket, connection ids, the generator's seed, token and reset keys, TLS.
//! The reset key comes from the node's private key, so that a node that was
//! killed and started again tells its peers at once (stateless reset) that
//! their connections are gone, instead of letting them wait for silence.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use cluster::ports::entropy::Entropy;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connecting, ConnectionError, ConnectionId, EndpointConfig,
    IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{hkdf, hmac};

use crate::{
    fault::CloseCode,
    gathering::GatheringRuntime,
    identity::PrivateKey,
    limits::{
        CLIENT_IDLE_TIMEOUT, CLIENT_KEEP_ALIVE, CONNECTION_WINDOW_BYTES, DATAGRAM_BUFFER_BYTES,
        Limits, NODE_SEND_WINDOW_BYTES, NODE_WINDOW_BYTES, SEND_WINDOW_BYTES, SOCKET_BUFFER_BYTES,
        STREAM_WINDOW_BYTES, STREAM_WINDOW_BYTES_DIALED,
    },
    tls::{CertificateFault, CertificateStore, Expected, FaultSlot, TlsParts, refusal_sentence},
};

/// Where datagrams go in and out.
pub enum Socket {
    /// A bound socket of the operating system; see [`bind`].
    Udp(std::net::UdpSocket),
    /// Anything else, with the runtime it lives in: the simulator's. quinn reads
    /// the time where the last handle of a connection is dropped, which may be
    /// outside every runtime; there tokio's would answer with the real clock.
    Abstract(Arc<dyn AsyncUdpSocket>, Arc<dyn quinn::Runtime>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("UDP port {port} on {ip} is in use: stop the other process or choose another port", port = address.port(), ip = address.ip())]
    InUse {
        /// The address wanted.
        address: SocketAddr,
    },
    /// Anything else the system said.
    #[error("cannot bind UDP address {address}: {cause}")]
    System {
        /// The address wanted.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// Binds a UDP socket with buffers as large as the system grants.
///
/// # Errors
/// If the port is in use, or the address is not this machine's.
pub fn bind(address: SocketAddr) -> Result<std::net::UdpSocket, BindError> {
    let socket = std::net::UdpSocket::bind(address).map_err(|cause| {
        if cause.kind() == io::ErrorKind::AddrInUse {
            BindError::InUse { address }
        } else {
            BindError::System { address, cause }
        }
    })?;
    let buffers = socket2::SockRef::from(&socket);
    // Smaller buffers cost speed under bursts, nothing else.
    let received = buffers.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let sent = buffers.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    if let Err(error) = received.and(sent) {
        tracing::debug!(%error, "socket buffers stay at the system's size");
    }
    Ok(socket)
}

/// Why a dialed connection did not come up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    /// Nothing was even sent.
    #[error("{0}")]
    Local(String),
    /// The other side's certificate was refused here.
    #[error("its certificate was refused: {0}")]
    Certificate(CertificateFault),
    /// Our certificate was refused there.
    #[error("it refused this side's certificate: {0}")]
    Refused(String),
    /// No common protocol.
    #[error("{0}")]
    Version(String),
    /// It has no room.
    #[error("it takes no more connections now")]
    Busy,
    /// No answer.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The system says nobody listens there.
    #[error("nobody listens there")]
    Unreachable,
    /// It answered and then ended or broke the protocol.
    #[error("{0}")]
    Ended(String),
}

impl DialError {
    /// Puts the end of a connection that never came up in words.
    pub(crate) fn from_connection(
        error: &ConnectionError,
        slot: &FaultSlot,
        waited: Duration,
    ) -> Self {
        /// Alerts about certificates. Source: RFC 8446 §6.2.
        const CERTIFICATE_ALERTS: [u64; 10] = [42, 43, 44, 45, 46, 47, 48, 49, 51, 116];
        const NO_APPLICATION_PROTOCOL: u64 = 120;
        /// Source: RFC 9000 §20.1 and RFC 9001 §4.8.
        const CONNECTION_REFUSED: u64 = 2;
        const CRYPTO_ERROR: u64 = 0x100;
        if let Some(fault) = slot.get() {
            return Self::Certificate(fault.clone());
        }
        match error {
            ConnectionError::TimedOut => Self::Timeout(waited),
            ConnectionError::VersionMismatch => {
                Self::Version("it speaks another version of QUIC".to_owned())
            }
            ConnectionError::ConnectionClosed(close) => {
                let code = u64::from(close.error_code);
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                match code.checked_sub(CRYPTO_ERROR) {
                    Some(NO_APPLICATION_PROTOCOL) => {
                        Self::Version("it does not speak this protocol".to_owned())
                    }
                    Some(alert) if CERTIFICATE_ALERTS.contains(&alert) => {
                        Self::Refused(refusal_sentence(&reason).to_owned())
                    }
                    Some(_) | None if code == CONNECTION_REFUSED => Self::Busy,
                    Some(_) | None => Self::Ended(error.to_string()),
                }
            }
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                match CloseCode::from_code(close.error_code) {
                    Some(CloseCode::Version) => Self::Version(reason),
                    Some(CloseCode::Busy) => Self::Busy,
                    Some(CloseCode::Removed | CloseCode::Hello) => Self::Refused(reason),
                    Some(CloseCode::Timeout) => Self::Timeout(waited),
                    Some(
                        CloseCode::Done | CloseCode::Replaced | CloseCode::Aged | CloseCode::Fault,
                    )
                    | None => Self::Ended(error.to_string()),
                }
            }
            ConnectionError::TransportError(_)
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => Self::Ended(error.to_string()),
        }
    }
}

/// Connection ids out of the entropy port.
struct EntropyIds(Arc<dyn Entropy>);

/// Long enough that ids of one node never meet by accident.
const CONNECTION_ID_BYTES: usize = 8;
/// What the dialer invents for the first packet. Source: RFC 9000 §7.2.
const FIRST_CONNECTION_ID_BYTES: usize = 20;

fn connection_id<const N: usize>(entropy: &dyn Entropy) -> ConnectionId {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    ConnectionId::new(&bytes)
}

impl quinn::ConnectionIdGenerator for EntropyIds {
    fn generate_cid(&mut self) -> ConnectionId {
        connection_id::<CONNECTION_ID_BYTES>(&*self.0)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Builds the endpoint; with a server configuration it also answers.
pub(crate) fn endpoint(
    socket: Socket,
    server: Option<ServerConfig>,
    key: Option<&PrivateKey>,
    entropy: &Arc<dyn Entropy>,
) -> io::Result<quinn::Endpoint> {
    let mut reset_key = [0; 32];
    match key {
        Some(key) => {
            let label = hmac::Key::new(hmac::HMAC_SHA256, b"cdb stateless reset v1");
            reset_key.copy_from_slice(hmac::sign(&label, key.to_pkcs8()).as_ref());
        }
        None => entropy.fill(&mut reset_key),
    }
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key)));
    config.rng_seed(Some(seed));
    let ids = Arc::clone(entropy);
    config.cid_generator(move || Box::new(EntropyIds(Arc::clone(&ids))));
    match socket {
        Socket::Udp(socket) => {
            quinn::Endpoint::new(config, server, socket, Arc::new(GatheringRuntime))
        }
        Socket::Abstract(socket, runtime) => {
            quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
        }
    }
}

/// The answering half's configuration: small until the peer has proved itself.
pub(crate) fn server_config(
    tls: rustls::ServerConfig,
    limits: &Limits,
    time: Arc<dyn quinn::TimeSource>,
    entropy: &Arc<dyn Entropy>,
) -> Result<ServerConfig, String> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut token_secret = [0; 64];
    entropy.fill(&mut token_secret);
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&token_secret);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    let mut transport = transport(CLIENT_IDLE_TIMEOUT, None);
    // The one stream of Hello; more after it.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    config
        .transport_config(Arc::new(transport))
        .time_source(time)
        // A peer that changes its address dials again: caps are per address.
        .migration(false)
        .max_incoming(limits.half_open_max)
        // First flights fit easily; the defaults would keep 100 MiB for strangers.
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(16 << 20);
    Ok(config)
}

/// Who dials sets the pace of pings and the patience of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialer<'a> {
    Node(&'a Limits),
    Client,
}

/// Begins a connection. The slot tells why a certificate was refused.
pub(crate) fn dial(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    expected: Expected,
    store: Option<Arc<CertificateStore>>,
    parts: (&TlsParts, &Arc<dyn Entropy>),
    dialer: Dialer<'_>,
) -> Result<(Connecting, FaultSlot), DialError> {
    let (tls, entropy) = parts;
    let local = |error: &dyn fmt::Display| DialError::Local(error.to_string());
    let (rustls, slot) = tls.client(expected, store).map_err(|error| local(&error))?;
    let crypto = QuicClientConfig::try_from(rustls).map_err(|error| local(&error))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let ids = Arc::clone(entropy);
    config.initial_dst_cid_provider(Arc::new(move || {
        connection_id::<FIRST_CONNECTION_ID_BYTES>(&*ids)
    }));
    let mut transport = match dialer {
        Dialer::Node(limits) => {
            let mut transport = transport(limits.node_idle_timeout, Some(limits.node_keep_alive));
            transport.send_window(NODE_SEND_WINDOW_BYTES);
            transport
        }
        Dialer::Client => transport(CLIENT_IDLE_TIMEOUT, Some(CLIENT_KEEP_ALIVE)),
    };
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES_DIALED));
    transport.receive_window(VarInt::from_u32(NODE_WINDOW_BYTES));
    config.transport_config(Arc::new(transport));
    // Names live in certificates and are checked by our verifier; SNI is off.
    let connecting =
        endpoint.connect_with(config, address, "cdb").map_err(|error| local(&error))?;
    Ok((connecting, slot))
}

fn transport(idle: Duration, keep_alive: Option<Duration>) -> TransportConfig {
    /// Links inside a cluster are short; the standard's 333 ms would make the
    /// first lost packet cost a second.
    const FIRST_RTT: Duration = Duration::from_millis(100);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(keep_alive)
        .initial_rtt(FIRST_RTT)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    config
}
