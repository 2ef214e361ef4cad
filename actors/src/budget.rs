//! What all replicas of a node may hold in memory together.
//!
//! A replica's own bounds (`replica::messages`) keep one shard from starving
//! the others; these keep four thousand of them from filling the machine.
//! Refusing is cheap and tells the asker when to come back; running out of
//! memory ends every shard of the node.
//!
//! Worst case, with the defaults: requests 128 MiB, inboxes 128 MiB, overlays
//! 256 MiB and, while appends are still let in, as much again, outbox 64 MiB.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::admission::Admission;

/// Requests all replicas of a node hold: those of 64 busy shards.
pub const NODE_REQUESTS_MAX: usize = 65_536;
/// Bytes of them: four replicas at their own bound, or thousands of small ones.
pub const NODE_REQUEST_BYTES_MAX: usize = 128 << 20;
/// Raft messages waiting at all replicas of a node: a heartbeat and an answer
/// from each of two peers at each of 4,096 replicas, sixteen times.
pub const NODE_INBOX_MAX: usize = 262_144;
/// Bytes of them.
pub const NODE_INBOX_BYTES_MAX: usize = 128 << 20;
/// Bytes in overlays over all replicas unless a node's configuration says
/// otherwise.
pub const OVERLAY_BYTES_DEFAULT: usize = 256 << 20;

/// Bounds of a node that its configuration sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Bytes of overlays over all replicas. At the limit writes are refused
    /// until flushes catch up; a quarter of it starts flushing the largest.
    pub overlay_bytes_max: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self { overlay_bytes_max: OVERLAY_BYTES_DEFAULT }
    }
}

/// What the replicas of one node share.
#[derive(Debug)]
pub struct NodeBudget {
    limits: NodeLimits,
    /// Bytes in all overlays.
    pub(crate) overlay: AtomicUsize,
    pub(crate) requests: Arc<Admission>,
    pub(crate) inbox: Arc<Admission>,
}

impl NodeBudget {
    /// An unused budget.
    pub fn new(limits: NodeLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            overlay: AtomicUsize::new(0),
            requests: Admission::new(NODE_REQUESTS_MAX, NODE_REQUEST_BYTES_MAX),
            inbox: Admission::new(NODE_INBOX_MAX, NODE_INBOX_BYTES_MAX),
        })
    }

    /// Bytes in all overlays.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.load(Ordering::Relaxed)
    }

    /// Whether flushing should begin although nothing is old.
    pub(crate) fn overlay_grows(&self) -> bool {
        self.overlay_bytes() >= self.limits.overlay_bytes_max / 4
    }

    /// Whether writes are refused.
    pub(crate) fn overlay_full(&self) -> bool {
        self.overlay_bytes() >= self.limits.overlay_bytes_max
    }

    /// Whether even entries of a leader are not taken: followers cannot refuse
    /// a write, but they need not hear of it before they have room. Leaders
    /// refuse at half of this, so it is met only by a disk far slower than its
    /// peers'.
    pub(crate) fn overlay_overflows(&self) -> bool {
        self.overlay_bytes() >= self.limits.overlay_bytes_max.saturating_mul(2)
    }
}
