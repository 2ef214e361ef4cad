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
/// Longest life of a join token, in milliseconds (15 min), and what it has
/// unless told otherwise: time to walk to another machine, not to lose it.
pub const TOKEN_LIFETIME_MS_MAX: u32 = 15 * 60 * 1_000;
/// How far a proposal's clock may run ahead of the leader's, in milliseconds.
pub const CLOCK_AHEAD_MS_MAX: u64 = 500;
/// Entries of one page of a list.
pub const LIST_PAGE_MAX: usize = 1_000;
/// Bytes of one page of a list that carries values.
pub const LIST_PAGE_BYTES_MAX: usize = 1 << 20;
/// Compares and steps of one transaction in all (etcd takes 128 of each kind
/// unless told otherwise); as a batch, they are one log entry.
pub const TRANSACTION_OPS_MAX: usize = BATCH_OPS_MAX;
/// Transactions inside each other, the outermost counted. Nobody nests by hand
/// so deep; apply walks them by recursion.
pub const TRANSACTION_DEPTH_MAX: u32 = 8;
/// Keys that the ranges of one transaction meet in all: apply takes them in
/// one step, and a delete puts three records of each into the overlay.
pub const TRANSACTION_KEYS_MAX: usize = 10_000;
/// Bytes of those keys and their values: an eighth of a node's overlays.
pub const TRANSACTION_BYTES_MAX: usize = 32 << 20;
/// Bytes that one transaction reads before the last item that it shows: one page of a
/// list. With one largest value behind it an answer stays below [`FRAME_BYTES_MAX`].
pub const TRANSACTION_REPLY_BYTES_MAX: usize = LIST_PAGE_BYTES_MAX;
/// Bytes of what transactions read that a shard keeps for retries. They lie in
/// its root record, which every flush writes and every piece of a snapshot
/// carries beside its own 1 MiB: together they stay below
/// [`FRAME_BYTES_MAX`]. An answer that is larger by itself is not kept.
pub const KEPT_REPLY_BYTES_MAX: usize = 2 << 20;
/// Shortest past a volume is told to keep, in milliseconds: three times a
/// request's deadline, as when its disk is nearly full.
pub const HISTORY_AGE_MS_MIN: u64 = 30 * 1_000;
/// Longest past a volume is told to keep, in milliseconds: ten years.
pub const HISTORY_AGE_MS_MAX: u64 = 3_650 * 24 * 60 * 60 * 1_000;
/// Most versions a volume is told to keep: ten thousand a second for three years.
pub const HISTORY_VERSIONS_MAX: u64 = 1_000_000_000_000;
/// Replicas one node hosts.
pub const REPLICAS_PER_NODE_MAX: usize = 4_096;
/// Bytes of items in one answer to a range: with one largest value over it and
/// its envelope an answer stays below [`FRAME_BYTES_MAX`].
pub const RANGE_BYTES_MAX: usize = LIST_PAGE_BYTES_MAX;
/// Leases of one shard. Each replica holds them in memory, by id and by end, 180
/// bytes each (180 MB in all), and reads them when it opens its store, 52 bytes each.
pub const LEASES_PER_SHARD_MAX: usize = 1_000_000;
/// Leases in one answer that lists them: 40 bytes each, 400 KB, and with an account
/// all their keys are looked at before.
pub const LEASES_PAGE_MAX: usize = 10_000;
/// Keys that hang on one lease: its end deletes them in one step of apply.
pub const LEASE_KEYS_MAX: u32 = 10_000;
/// Shortest life of a lease, in milliseconds: longer than an election after a
/// dead leader takes, as etcd has it.
pub const LEASE_TTL_MS_MIN: u64 = 2_000;
/// Longest life of a lease, in milliseconds: etcd's 9,000,000,000 seconds.
pub const LEASE_TTL_MS_MAX: u64 = 9_000_000_000 * 1_000;
/// Bytes that users, roles and permissions of a shard take. They lie in its root
/// record, which every flush writes: 4,000 users of one role with a password, or 8,000
/// permissions over short keys. Each change copies them once.
pub const ACCOUNTS_BYTES_MAX: usize = 512 << 10;
/// Changes one answer to a watch looks at: a step of a few milliseconds.
pub const WATCH_CHANGES_MAX: usize = 4_096;
/// Bytes of events in one answer to a watch: as of a range. One more event of two
/// largest values leaves the older one out.
pub const WATCH_BYTES_MAX: usize = LIST_PAGE_BYTES_MAX;
/// Longest a watch waits for something to happen before it is told how far
/// nothing did, in milliseconds.
pub const WATCH_WAIT_MS_MAX: u32 = 30_000;
