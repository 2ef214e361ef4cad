//! Names of the metrics actors keep. Base units, no key or peer in labels.

/// Raft messages dropped because the outbox was full.
pub const OUTBOX_DROPPED: &str = "cdb_outbox_dropped_total";
/// Raft messages dropped because a replica's inbox was full.
pub const REPLICA_INBOX_DROPPED: &str = "cdb_replica_inbox_dropped_total";
/// Requests refused by admission.
pub const REQUESTS_REFUSED: &str = "cdb_requests_refused_total";
/// Requests served, by kind.
pub const REQUESTS: &str = "cdb_requests_total";
/// Time a request took at the node that served it.
pub const REQUEST_SECONDS: &str = "cdb_request_duration_seconds";
/// Entries applied.
pub const APPLIED: &str = "cdb_replica_applied_entries_total";
/// Elections won on this node.
pub const ELECTIONS: &str = "cdb_replica_elections_total";
/// Replicas stopped for good.
pub const STOPPED: &str = "cdb_replica_stopped_total";
/// Actors started again after a failure.
pub const RESTARTS: &str = "cdb_actor_restarts_total";
/// Rounds of heartbeats that confirmed reads.
pub const READ_ROUNDS: &str = "cdb_replica_read_rounds_total";
/// Bytes applied but not yet in a store.
pub const OVERLAY_BYTES: &str = "cdb_disk_overlay_bytes";
/// Flushes from overlay to store.
pub const FLUSHES: &str = "cdb_disk_flushes_total";
