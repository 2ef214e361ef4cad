//! The limits a user can meet, with their arithmetic. The README states them.

/// Longest key in bytes. A key grows by at most an eighth plus one group when
/// written in memcomparable form (1,024 → 1,161 bytes), plus 8 bytes of
/// version: below the 1,984 bytes LMDB takes with `longer-keys` on 4 KiB pages.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Largest value kept inline in a shard. etcd requests reach 1.5 MiB; larger
/// values become objects, which come later.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Most operations in one batch: one log entry must stay below
/// [`ENTRY_BYTES_MAX`], and a follower applies it in one step.
pub const BATCH_OPS_MAX: usize = 1_024;
/// Largest log entry: one inline value with its key and envelope, or a batch.
pub const ENTRY_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);
/// Largest frame on the wire: one Raft batch may hold one largest entry over
/// its soft limit of 1 MiB.
pub const FRAME_BYTES_MAX: usize = ENTRY_BYTES_MAX + (2 << 20);
/// Largest gossip datagram; QUIC datagrams must fit one 1,200-byte packet.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;
/// Numbers a session may have in flight; replies to them are kept.
pub const SESSION_IN_FLIGHT_MAX: usize = 64;
/// Sessions one shard keeps; the longest idle one goes first.
pub const SESSIONS_PER_SHARD_MAX: usize = 1_024;
/// Shard time after which an unused session expires, in milliseconds (15 min).
pub const SESSION_IDLE_MS_MAX: u64 = 15 * 60 * 1_000;
/// How far a proposal's clock may run ahead of the leader's, in milliseconds.
pub const CLOCK_AHEAD_MS_MAX: u64 = 500;
/// Entries of one page of a list.
pub const LIST_PAGE_MAX: usize = 1_000;
/// Bytes of one page of a list that carries values.
pub const LIST_PAGE_BYTES_MAX: usize = 1 << 20;
/// Replicas one node hosts.
pub const REPLICAS_PER_NODE_MAX: usize = 4_096;
