//! Queues are bounded: what waits at a node's replicas, and what they hold in
//! memory, stays below the node's limits.
//!
//! Source: design.md §3, "everything is bounded"; the bug catalogue's O1.

use actors::{
    budget::{NodeLimits, NodeMemory},
    replica::messages::{Crowd, INBOX_MAX, REQUESTS_MAX},
};
use cluster::limits::ENTRY_BYTES_MAX;

use crate::trace::Trace;

/// Judges what a node holds.
pub(super) fn judge(node: u32, limits: &NodeLimits, held: NodeMemory) -> Result<(), String> {
    // One message larger than its bound is let in where nothing else waits;
    // overlays and entries grow to twice their parts while appends come in. A small
    // overlay also takes the requests that were admitted before it was full.
    let bounds = [
        ("requests", held.requests, limits.request_bytes_max),
        ("inboxes", held.inbox, limits.inbox_bytes_max),
        ("overlays", held.overlay, limits.overlay_bytes_max.max(limits.request_bytes_max) * 2),
        ("entries", held.entries, limits.entries_bytes_max * 2),
    ];
    let over = bounds.iter().find(|(_, bytes, most)| *bytes > most + ENTRY_BYTES_MAX);
    over.map_or(Ok(()), |(what, bytes, most)| {
        Err(format!("n{node} holds {bytes} bytes of {what}, where {most} are the most"))
    })
}

/// Judges what waits at one replica.
pub(super) fn judge_crowd(node: u32, crowd: Crowd) -> Result<(), String> {
    let bounds = [("requests", crowd.requests, REQUESTS_MAX), ("messages", crowd.inbox, INBOX_MAX)];
    let over = bounds.iter().find(|(_, count, most)| count > most);
    over.map_or(Ok(()), |(what, count, most)| {
        Err(format!("{count} {what} wait at a replica of n{node}, where {most} are the most"))
    })
}

/// Keeps the most that waits at a replica, and counts where no more may.
pub(super) fn keep_crowd(trace: &Trace, crowd: Crowd) {
    trace.most("most requests at a replica", crowd.requests as u64);
    trace.most("most messages at a replica", crowd.inbox as u64);
    if crowd.requests == REQUESTS_MAX {
        trace.count("queue full");
    }
}

/// Keeps the most of each for the end of the run.
pub(super) fn keep_most(trace: &Trace, held: NodeMemory) {
    trace.most("most bytes of requests", held.requests as u64);
    trace.most("most bytes of inboxes", held.inbox as u64);
    trace.most("most bytes of overlays", held.overlay as u64);
    trace.most("most bytes of entries", held.entries as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_over_its_bound_is_found() {
        let limits = NodeLimits::of_memory(16 << 20);
        let held = NodeMemory { requests: 1 << 20, ..NodeMemory::default() };
        assert_eq!(judge(1, &limits, held), Ok(()));
        let requests = (1 << 20) + ENTRY_BYTES_MAX + 1;
        assert!(judge(1, &limits, NodeMemory { requests, ..held }).is_err());
        assert!(judge(1, &limits, NodeMemory { overlay: 64 << 20, ..held }).is_err());
        assert_eq!(judge_crowd(1, Crowd { requests: REQUESTS_MAX, inbox: 0 }), Ok(()));
        assert!(judge_crowd(1, Crowd { requests: REQUESTS_MAX + 1, inbox: 0 }).is_err());
    }
}
