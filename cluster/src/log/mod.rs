//! The disk's log: one file of records for all replicas of a disk.
//!
//! A log is a row of preallocated segments. Appends go to the last one as
//! batches: one write and one sync for whatever was waiting. Each segment
//! opens with a checkpoint (one summary per replica), so everything but
//! entries is always in the newest segment, and an old segment lives only as
//! long as it holds entries somebody needs.
//!
//! Each batch states where it stands, how far its segment was known durable
//! when it was written and where the segment before it ended. Recovery leans
//! on that: a bad record below what a later batch states durable is *damage*,
//! anything else a *torn tail*, and only a torn tail is cut.
//!
//! [`SegmentedLog`] knows no thread and no clock: a node runs it on a writer
//! thread, simulation runs it inline over `MemoryFiles`.
//!
//! Source: design.md §5; the case for telling damage from a torn tail is
//! "Protocol-Aware Recovery for Consensus-Based Storage", FAST '18.

mod format;
mod index;
mod recovery;
mod scan;
mod segmented;
mod space;

#[cfg(test)]
mod tests;

pub use recovery::{Damage, OpenError, Recovery, TornTail};
pub use segmented::{LogOptions, LogUsage, SegmentedLog};

use self::{
    format::{SegmentHeader, stamp_hash},
    scan::{Stretch, scan},
};
use crate::ids::{ClusterId, NodeId};

/// Whose log it is; a segment with another stamp is refused, so swapped disks
/// are noticed before anything is read from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStamp {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Number of the disk in its node.
    pub disk: u64,
}

/// Number of the segment in these bytes, and up to where a byte that is not whole is
/// damage by what the segment itself says; none if its header cannot be read. In the
/// last segment of a log, what is not whole behind that position counts as a torn tail,
/// whatever bent it: for tests that let logs rot.
pub fn damage_below(segment: &[u8]) -> Option<(u64, u64)> {
    let header = SegmentHeader::decode(segment).ok()?;
    let stretches = scan(segment, header.number, stamp_hash(&header.stamp)).ok()?;
    let known = stretches.iter().filter_map(|stretch| match stretch {
        // It was synced before the segment had its name.
        Stretch::Batch { prefix, end } if prefix.checkpoint => Some(*end as u64),
        Stretch::Batch { prefix, .. } => Some(prefix.durable),
        Stretch::Hole { .. } => None,
    });
    Some((header.number, known.max().unwrap_or(0)))
}
