//! What all replicas of a node may hold in memory together: one figure, and
//! the parts it is cut into.
//!
//! A replica's own bounds (`replica::messages`) keep one shard from starving
//! the others; these keep four thousand of them from filling the machine.
//! Refusing is cheap and tells the asker when to come back; running out of
//! memory ends every shard of the node.
//!
//! A node's memory is cut into sixteen parts of `limits.memory` / 16:
//!
//! | parts | what | at the limit |
//! |---|---|---|
//! | 4 | overlays: 2, and as much while appends still come in | writes are refused at 2, entries of a leader are not taken at 4 |
//! | 6 | entries not applied yet, each up to three times (Raft, log, apply): 1, and as much while appends still come in | proposals are refused at 1, entries of a leader are not taken at 2 |
//! | 1 | requests | the asker is told *busy* |
//! | 1 | inboxes of replicas | Raft messages are dropped; Raft repeats |
//! | 1/2 | outbox | the same |
//! | 2 | bodies of clients' requests (`transport`) | flow control holds the sender |
//! | 1/4 | watchers that wait, out of the part of *all else* | the asker is told *busy* |
//! | 3/2 | all else: bodies from nodes, answers, stacks, code | |
//!
//! **No deadlock.** Nodes whose entries wait for each other could all stand at
//! their limits and refuse what would let the others commit. So every replica
//! may hold a little whatever the node's total: a leader proposes while its own
//! entries are below [`ENTRIES_FLOOR_BYTES`], and a follower takes one message
//! when it holds none, or when the message replaces what it holds. The first entries of every log then always reach their
//! majority, are applied and make room. Only messages that bring entries are
//! refused: votes, heartbeats, commits and answers go on. What is refused has
//! not been acknowledged, what has been is never dropped.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use cluster::mvcc::compaction::Retentions;

use crate::{admission::Admission, world::Space};

/// Requests all replicas of a node hold: those of 64 busy shards.
pub const NODE_REQUESTS_MAX: usize = 65_536;
/// Raft messages waiting at all replicas of a node: a heartbeat and an answer
/// from each of two peers at each of 4,096 replicas, sixteen times.
pub const NODE_INBOX_MAX: usize = 262_144;
/// Watchers that wait at all replicas of a node: 32 MiB of the shortest, a quarter
/// of what requests may take by default.
pub const NODE_WATCHERS_MAX: usize = 65_536;
/// Memory of a node unless its configuration says otherwise: parts of 128 MiB.
pub const MEMORY_BYTES_DEFAULT: usize = 2 << 30;
/// Bytes of unapplied entries below which a replica may propose although the
/// node is full: 4,096 replicas take 256 MiB at the very worst, when each has
/// lost its quorum.
pub const ENTRIES_FLOOR_BYTES: usize = 64 << 10;
/// The parts of a node's memory.
const PARTS: usize = 16;

/// Bounds of a node that its configuration sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Bytes of overlays over all replicas. At the limit writes are refused
    /// until flushes catch up; a quarter of it starts flushing the largest.
    pub overlay_bytes_max: usize,
    /// Bytes of entries that are not applied yet, over all replicas.
    pub entries_bytes_max: usize,
    /// Bytes of requests under way: at the default 32 of the largest.
    pub request_bytes_max: usize,
    /// Bytes of Raft messages waiting at replicas.
    pub inbox_bytes_max: usize,
    /// Bytes of Raft messages on their way out.
    pub outbox_bytes_max: usize,
    /// Bytes of bodies of clients' requests, for whoever reads them.
    pub client_body_bytes_max: usize,
    /// How long this node wants old versions kept in the shards it leads.
    pub retentions: Retentions,
}

impl NodeLimits {
    /// The parts of a node that may take `bytes` in all.
    pub fn of_memory(bytes: usize) -> Self {
        let part = bytes / PARTS;
        Self {
            overlay_bytes_max: part * 2,
            entries_bytes_max: part,
            request_bytes_max: part,
            inbox_bytes_max: part,
            outbox_bytes_max: part / 2,
            client_body_bytes_max: part * 2,
            retentions: Retentions::default(),
        }
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self::of_memory(MEMORY_BYTES_DEFAULT)
    }
}

/// What the replicas of one node share.
#[derive(Debug)]
pub struct NodeBudget {
    limits: NodeLimits,
    /// Bytes in all overlays.
    pub(crate) overlay: AtomicUsize,
    /// Bytes that overlays have grown by, all added up.
    grown: AtomicU64,
    /// What that was when the disk's space was last measured.
    grown_measured: AtomicU64,
    /// Bytes of entries that Raft holds.
    pub(crate) entries: AtomicUsize,
    pub(crate) requests: Arc<Admission>,
    pub(crate) inbox: Arc<Admission>,
    /// Whether the disk has its reserve only.
    scarce: AtomicBool,
    /// Whether it may have its reserve only before it is measured again.
    tight: AtomicBool,
    pub(crate) watchers: Arc<Admission>,
}

/// Bytes a node holds, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// Applied, not yet in stores.
    pub overlay: usize,
    /// In Raft logs in memory.
    pub entries: usize,
    /// Of requests.
    pub requests: usize,
    /// Of Raft messages not looked at yet.
    pub inbox: usize,
}

impl NodeBudget {
    /// An unused budget.
    pub fn new(limits: NodeLimits) -> Arc<Self> {
        Arc::new(Self {
            overlay: AtomicUsize::new(0),
            grown: AtomicU64::new(0),
            grown_measured: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
            requests: Admission::new(NODE_REQUESTS_MAX, limits.request_bytes_max),
            inbox: Admission::new(NODE_INBOX_MAX, limits.inbox_bytes_max),
            scarce: AtomicBool::new(false),
            tight: AtomicBool::new(false),
            watchers: Admission::new(NODE_WATCHERS_MAX, limits.request_bytes_max / 4),
            limits,
        })
    }

    /// What is held now.
    pub fn memory(&self) -> NodeMemory {
        NodeMemory {
            overlay: self.overlay_bytes(),
            entries: self.entries_bytes(),
            requests: self.requests.bytes(),
            inbox: self.inbox.bytes(),
        }
    }

    /// Bytes in all overlays.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.load(Ordering::Relaxed)
    }

    /// Bytes of entries in all Raft logs in memory.
    pub fn entries_bytes(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Notes that overlays grew.
    pub(crate) fn note_growth(&self, bytes: usize) {
        self.grown.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What overlays have grown by in all; to be read before space is measured.
    pub(crate) fn grown_bytes(&self) -> u64 {
        self.grown.load(Ordering::Relaxed)
    }

    /// Notes what was measured when overlays had grown by `grown` bytes.
    pub(crate) fn set_space(&self, space: Space, grown: u64) {
        self.scarce.store(space.is_device_scarce(), Ordering::Relaxed);
        self.tight.store(space.is_device_tight(), Ordering::Relaxed);
        self.grown_measured.store(grown, Ordering::Relaxed);
    }

    /// Bytes that need room on the disk and that its last measure does not
    /// know: what was applied since, and requests under way.
    pub(crate) fn promised_bytes(&self) -> u64 {
        let measured = self.grown_measured.load(Ordering::Relaxed);
        self.grown_bytes().saturating_sub(measured) + self.requests.bytes() as u64
    }

    /// Whether the disk has its reserve only.
    pub(crate) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// Whether overlays must go to their stores in small steps.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// How long old versions are kept.
    pub(crate) fn retentions(&self) -> Retentions {
        self.limits.retentions
    }

    /// Whether flushing should begin although nothing is old.
    pub(crate) fn overlay_grows(&self) -> bool {
        self.overlay_bytes() >= self.limits.overlay_bytes_max / 4
    }

    /// Whether writes are refused.
    pub(crate) fn overlay_full(&self) -> bool {
        self.overlay_bytes() >= self.limits.overlay_bytes_max
    }

    /// Whether applied entries are no longer kept for followers that lag:
    /// those read the log file instead.
    pub(crate) fn entries_grow(&self) -> bool {
        self.entries_bytes() >= self.limits.entries_bytes_max / 2
    }

    /// Whether a replica that holds `own` bytes of entries may propose more.
    pub(crate) fn may_propose(&self, own: usize) -> bool {
        own < ENTRIES_FLOOR_BYTES || self.entries_bytes() < self.limits.entries_bytes_max
    }

    /// Whether a replica that holds `own` bytes of entries may take those of
    /// its leader: followers cannot refuse a write, but they need not hear of
    /// it before they have room. Leaders refuse at half of this, so it is met
    /// only by a node far slower than its peers.
    pub(crate) fn may_follow(&self, own: usize) -> bool {
        let entries = self.entries_bytes() < self.limits.entries_bytes_max.saturating_mul(2);
        self.may_replace() && (entries || own == 0)
    }

    /// Whether a replica may take entries in the place of others it holds: they
    /// need room in the overlay, which flushes alone make.
    pub(crate) fn may_replace(&self) -> bool {
        self.overlay_bytes() < self.limits.overlay_bytes_max.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_fit_the_figure() {
        let memory = 512 << 20;
        let NodeLimits {
            overlay_bytes_max,
            entries_bytes_max,
            request_bytes_max,
            inbox_bytes_max,
            outbox_bytes_max,
            client_body_bytes_max,
            retentions: _,
        } = NodeLimits::of_memory(memory);
        let worst = 2 * overlay_bytes_max
            + 2 * 3 * entries_bytes_max
            + request_bytes_max
            + inbox_bytes_max
            + outbox_bytes_max
            + client_body_bytes_max;
        assert_eq!(worst, memory / 32 * 29, "three in 32 are left for all else");
    }

    #[test]
    fn a_full_node_refuses_who_holds_much_and_lets_through_what_makes_room() {
        let budget = NodeBudget::new(NodeLimits::of_memory(16 << 20));
        budget.entries.store(1 << 20, Ordering::Relaxed);
        assert!(!budget.may_propose(ENTRIES_FLOOR_BYTES) && budget.may_propose(100));
        assert!(budget.may_follow(1 << 20), "followers have as much again");
        budget.entries.store(2 << 20, Ordering::Relaxed);
        assert!(!budget.may_follow(1) && budget.may_follow(0));
    }
}
