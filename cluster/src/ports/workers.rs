//! Where blocking work runs: the engine threads of a disk.
//!
//! A node has real threads; simulation runs jobs inline after a drawn virtual
//! latency, so completions still arrive as messages in drawn order.

use std::fmt;

use crate::ids::ReplicaId;

/// A piece of blocking work. It reports by sending a message to its actor.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that may block on the disk.
pub trait Workers: Send + Sync + fmt::Debug {
    /// Runs `job` after all earlier jobs of the same replica, one at a time.
    fn in_order(&self, replica: ReplicaId, job: Job);
    /// Runs `job` beside everything else: reads of immutable snapshots.
    fn beside(&self, job: Job);
}
