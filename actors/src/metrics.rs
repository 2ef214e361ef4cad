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
/// Replicas lost: their bytes are damaged, old or gone.
pub const LOST: &str = "cdb_replica_lost_total";
/// Actors started again after a failure.
pub const RESTARTS: &str = "cdb_actor_restarts_total";
/// Rounds of heartbeats that confirmed reads.
pub const READ_ROUNDS: &str = "cdb_replica_read_rounds_total";
/// Bytes applied but not yet in a store.
pub const OVERLAY_BYTES: &str = "cdb_disk_overlay_bytes";
/// Bytes of entries in Raft's logs in memory.
pub const ENTRIES_BYTES: &str = "cdb_entries_memory_bytes";
/// Bytes of requests under way at replicas.
pub const REQUESTS_BYTES: &str = "cdb_requests_memory_bytes";
/// Bytes of Raft messages waiting at replicas.
pub const INBOX_BYTES: &str = "cdb_inbox_memory_bytes";
/// Flushes from overlay to store.
pub const FLUSHES: &str = "cdb_disk_flushes_total";
/// History entries removed from stores because nobody can read them any more.
pub const SWEPT_ENTRIES: &str = "cdb_shard_swept_entries_total";
/// Bytes of them.
pub const SWEPT_BYTES: &str = "cdb_shard_swept_bytes_total";
/// Batches of a sweep that failed.
pub const SWEEPS_FAILED: &str = "cdb_shard_sweeps_failed_total";
/// Compactions asked for by this node.
pub const COMPACTIONS: &str = "cdb_shard_compactions_total";
/// Replicas whose store still holds what nobody can read.
pub const UNSWEPT: &str = "cdb_shard_unswept_replicas";
/// Segments of the log in use.
pub const LOG_SEGMENTS: &str = "cdb_log_segments";
/// How much of its limit the fullest store uses.
pub const STORE_FULLEST: &str = "cdb_store_fullest_ratio";

const COUNTERS: [&str; 15] = [
    OUTBOX_DROPPED,
    REPLICA_INBOX_DROPPED,
    REQUESTS_REFUSED,
    REQUESTS,
    APPLIED,
    ELECTIONS,
    STOPPED,
    LOST,
    RESTARTS,
    READ_ROUNDS,
    FLUSHES,
    SWEPT_ENTRIES,
    SWEPT_BYTES,
    SWEEPS_FAILED,
    COMPACTIONS,
];

/// Tells the recorder what each of them means, and begins to count: a counter
/// that shows only after its first event hides that event from rates.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    for name in COUNTERS {
        metrics::counter!(name).increment(0);
    }
    for name in [OVERLAY_BYTES, ENTRIES_BYTES, REQUESTS_BYTES, INBOX_BYTES] {
        metrics::gauge!(name).set(0.0);
    }
    metrics::gauge!(LOG_SEGMENTS).set(0.0);
    metrics::gauge!(UNSWEPT).set(0.0);
    metrics::gauge!(STORE_FULLEST).set(0.0);
    describe_counter!(OUTBOX_DROPPED, "Raft messages dropped because the outbox was full.");
    describe_counter!(
        REPLICA_INBOX_DROPPED,
        "Raft messages dropped because a replica had no room for them."
    );
    describe_counter!(REQUESTS_REFUSED, "Requests refused by admission.");
    describe_counter!(REQUESTS, "Requests served, forwarded ones too.");
    describe_histogram!(REQUEST_SECONDS, "Time a request took at the node that served it.");
    describe_counter!(APPLIED, "Log entries with a command that took effect.");
    describe_counter!(ELECTIONS, "Elections won on this node.");
    describe_counter!(STOPPED, "Replicas stopped for good; each needs a person to look.");
    describe_counter!(LOST, "Replicas whose bytes were lost here; the cluster replaces them.");
    describe_counter!(RESTARTS, "Actors started again after a failure.");
    describe_counter!(READ_ROUNDS, "Rounds of heartbeats that confirmed reads.");
    describe_gauge!(OVERLAY_BYTES, "Bytes applied and not yet in a store.");
    describe_gauge!(ENTRIES_BYTES, "Bytes of log entries in memory, not applied yet for most.");
    describe_gauge!(REQUESTS_BYTES, "Bytes of requests under way at replicas.");
    describe_gauge!(INBOX_BYTES, "Bytes of Raft messages waiting at replicas.");
    describe_counter!(FLUSHES, "Flushes begun from overlay to store.");
    describe_gauge!(LOG_SEGMENTS, "Segments of the log in use.");
    describe_counter!(
        SWEPT_ENTRIES,
        "Entries swept from stores: old versions, tombstones, changes."
    );
    describe_counter!(SWEPT_BYTES, "Bytes of the entries swept from stores.");
    describe_counter!(SWEEPS_FAILED, "Batches of a sweep that failed; they are tried again.");
    describe_counter!(COMPACTIONS, "Compactions of shards this node asked for.");
    describe_gauge!(STORE_FULLEST, "Part of its limit (limits.store) that the fullest store uses.");
    describe_gauge!(UNSWEPT, "Replicas whose store may hold what nobody can read any more.");
}
