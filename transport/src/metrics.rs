//! Names of what this crate counts. No peer, key or address in labels.

/// Connections that finished TLS and Hello, either side.
pub const CONNECTIONS_OPENED: &str = "cdb_transport_connections_opened_total";
/// Connections that ended, whatever the reason.
pub const CONNECTIONS_CLOSED: &str = "cdb_transport_connections_closed_total";
/// Links to nodes that are usable now.
pub const LINKS: &str = "cdb_transport_links";
/// Handshakes that failed, either side.
pub const HANDSHAKES_FAILED: &str = "cdb_transport_handshakes_failed_total";
/// Connection attempts refused by a cap.
pub const CONNECTIONS_REFUSED: &str = "cdb_transport_connections_refused_total";
/// Retry packets sent under half-open load.
pub const RETRIES: &str = "cdb_transport_retries_total";
/// Peers cut off because they broke the protocol.
pub const PEER_FAULTS: &str = "cdb_transport_peer_faults_total";
/// Gossip datagrams sent.
pub const GOSSIP_SENT: &str = "cdb_transport_gossip_sent_total";
/// Gossip datagrams lost before they were sent.
pub const GOSSIP_DROPPED: &str = "cdb_transport_gossip_dropped_total";
/// Raft frames sent.
pub const RAFT_SENT: &str = "cdb_transport_raft_sent_total";
/// Bytes of raft frames sent.
pub const RAFT_SENT_BYTES: &str = "cdb_transport_raft_sent_bytes_total";
/// Raft frames lost: queue full, or the link ended first.
pub const RAFT_DROPPED: &str = "cdb_transport_raft_dropped_total";
/// Requests sent.
pub const REQUESTS_SENT: &str = "cdb_transport_requests_sent_total";
/// Requests without an answer.
pub const REQUESTS_FAILED: &str = "cdb_transport_requests_failed_total";
/// Requests served.
pub const REQUESTS_SERVED: &str = "cdb_transport_requests_served_total";
/// Requests refused by class or by a limit.
pub const REQUESTS_REFUSED: &str = "cdb_transport_requests_refused_total";

const COUNTERS: [(&str, &str); 15] = [
    (CONNECTIONS_OPENED, "Connections that finished TLS and Hello."),
    (CONNECTIONS_CLOSED, "Connections that ended."),
    (HANDSHAKES_FAILED, "Handshakes that failed."),
    (CONNECTIONS_REFUSED, "Connection attempts refused by a cap."),
    (RETRIES, "Retry packets sent under half-open load."),
    (PEER_FAULTS, "Peers cut off because they broke the protocol."),
    (GOSSIP_SENT, "Gossip datagrams sent."),
    (GOSSIP_DROPPED, "Gossip datagrams lost before they were sent."),
    (RAFT_SENT, "Raft frames sent."),
    (RAFT_SENT_BYTES, "Bytes of Raft frames sent."),
    (RAFT_DROPPED, "Raft frames lost before they were sent."),
    (REQUESTS_SENT, "Requests sent."),
    (REQUESTS_FAILED, "Requests without an answer."),
    (REQUESTS_SERVED, "Requests served."),
    (REQUESTS_REFUSED, "Requests refused by class or by a limit."),
];

/// Tells the recorder what each name means, and begins to count. Call once, after it is installed.
pub fn describe() {
    for (name, help) in COUNTERS {
        metrics::describe_counter!(name, help);
        // One that shows only after its first event hides that event from rates.
        metrics::counter!(name).increment(0);
    }
    metrics::gauge!(LINKS).set(0.0);
    metrics::describe_gauge!(LINKS, "Links to nodes that are usable now.");
}

pub(crate) fn count(name: &'static str) {
    metrics::counter!(name).increment(1);
}

pub(crate) fn add(name: &'static str, by: usize) {
    metrics::counter!(name).increment(u64::try_from(by).unwrap_or(u64::MAX));
}

pub(crate) fn links_changed(up: bool) {
    metrics::gauge!(LINKS).increment(if up { 1.0 } else { -1.0 });
}
