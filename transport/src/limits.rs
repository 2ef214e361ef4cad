//! Every bound of this crate, with its reason. The README sums them up.
//!
//! A process behind a cluster's door must survive any peer: what a peer can
//! pin is counted per connection and in all, and a limit met refuses the peer
//! that met it, never its neighbours. Source: RUSTSEC-2026-0341 (gigabytes
//! pinned by default windows) and the handshake floods of other systems.

use std::time::Duration;

/// Time for TLS and Hello together; whoever stalls longer is cut off.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a link to a node is lost.
pub const NODE_IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pings on a quiet link. The first unanswered one starts the timeout anew
/// (RFC 9000 §10.1): a dead peer is noticed within 0.9 s + 3 s.
pub const NODE_KEEP_ALIVE: Duration = Duration::from_millis(900);
/// Silence after which a client's connection is lost.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pings of a client.
pub const CLIENT_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Age at which a connection is replaced, so that a certificate swapped or
/// revoked is looked at again at least once an hour.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_hours(1);
/// Time a replaced connection has to finish what runs on it.
pub const RETIRE_TIMEOUT: Duration = Duration::from_mins(1);
/// First pause before dialing again.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause before dialing again: a node that returns is met again soon.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A link that lived so long was a real one: the next pause starts small.
pub const BACKOFF_RESET: Duration = Duration::from_secs(5);

/// Handshakes under way beyond which addresses must prove themselves (Retry).
pub const HALF_OPEN_RETRY: usize = 512;
/// The same for one IP address.
pub const HALF_OPEN_RETRY_PER_IP: usize = 64;
/// Handshakes under way beyond which new ones are not answered at all:
/// 2,048 × 256 KiB of stream window = 512 MiB, the worst a flood can pin.
pub const HALF_OPEN_MAX: usize = 2_048;
/// Connections from one IP address: a node, its doors and a crowd of clients.
pub const CONNECTIONS_PER_IP_MAX: usize = 512;
/// Clients of one node.
pub const CLIENTS_MAX: usize = 1_024;
/// Strangers let in at a time; each asks one thing and goes.
pub const STRANGERS_MAX: usize = 32;

/// What one stream may send ahead of its reader.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same on connections we dialed: the server has proved itself first.
pub const STREAM_WINDOW_BYTES_DIALED: u32 = 4 << 20;
/// What one connection may send before it is authenticated.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The same for a node of the cluster.
pub const NODE_WINDOW_BYTES: u32 = 32 << 20;
/// Bytes waiting for acknowledgement towards a node: 1 Gbit/s × 100 ms.
pub const NODE_SEND_WINDOW_BYTES: u64 = 16 << 20;
/// The same towards anyone else.
pub const SEND_WINDOW_BYTES: u64 = 2 << 20;
/// Datagrams waiting to be read or sent; gossip beyond it is lost, oldest first.
pub const DATAGRAM_BUFFER_BYTES: usize = 128 << 10;

/// Raft messages waiting for one node.
pub const RAFT_QUEUE_MESSAGES_MAX: usize = 4_096;
/// Their bytes: two largest frames and what a busy tick adds.
pub const RAFT_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Largest frame of somebody without a certificate.
pub const STRANGER_FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes of requests a node may have under way here at once.
pub const NODE_BODY_BYTES_MAX: usize = 32 << 20;
/// The same for a client: one largest frame and some small ones.
pub const CLIENT_BODY_BYTES_MAX: usize = 8 << 20;
/// The same for all clients together.
pub const CLIENTS_BODY_BYTES_MAX: usize = 256 << 20;
/// Time to send the body of a request once its stream is open.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time a request may ask to be worked on.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_mins(2);
/// Addresses kept of one node.
pub const ADDRESSES_MAX: usize = 16;
/// Socket buffers asked for; the system may give less.
pub const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// The times and caps a test or a simulation may change.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`NODE_IDLE_TIMEOUT`].
    pub node_idle_timeout: Duration,
    /// See [`NODE_KEEP_ALIVE`].
    pub node_keep_alive: Duration,
    /// See [`CONNECTION_AGE_MAX`].
    pub connection_age_max: Duration,
    /// See [`RETIRE_TIMEOUT`].
    pub retire_timeout: Duration,
    /// See [`BACKOFF_MAX`].
    pub backoff_max: Duration,
    /// See [`HALF_OPEN_RETRY`].
    pub half_open_retry: usize,
    /// See [`HALF_OPEN_MAX`].
    pub half_open_max: usize,
    /// See [`CONNECTIONS_PER_IP_MAX`].
    pub connections_per_ip_max: usize,
    /// See [`CLIENTS_MAX`].
    pub clients_max: usize,
    /// See [`RAFT_QUEUE_MESSAGES_MAX`].
    pub raft_queue_messages_max: usize,
    /// See [`RAFT_QUEUE_BYTES_MAX`].
    pub raft_queue_bytes_max: usize,
    /// See [`CLIENTS_BODY_BYTES_MAX`].
    pub clients_body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            node_idle_timeout: NODE_IDLE_TIMEOUT,
            node_keep_alive: NODE_KEEP_ALIVE,
            connection_age_max: CONNECTION_AGE_MAX,
            retire_timeout: RETIRE_TIMEOUT,
            backoff_max: BACKOFF_MAX,
            half_open_retry: HALF_OPEN_RETRY,
            half_open_max: HALF_OPEN_MAX,
            connections_per_ip_max: CONNECTIONS_PER_IP_MAX,
            clients_max: CLIENTS_MAX,
            raft_queue_messages_max: RAFT_QUEUE_MESSAGES_MAX,
            raft_queue_bytes_max: RAFT_QUEUE_BYTES_MAX,
            clients_body_bytes_max: CLIENTS_BODY_BYTES_MAX,
        }
    }
}
