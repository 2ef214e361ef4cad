//! Tells damage from unused space and a torn tail.

use std::collections::BTreeMap;

use super::segments::Scanned;
use crate::log::{format::SEGMENT_HEADER_BYTES, scan::Stretch};

/// A segment as judged: batches to replay and damage between them, in order.
pub(super) struct Judged {
    pub(super) stretches: Vec<Stretch>,
    /// Where its log ends.
    pub(super) end: usize,
}

/// Tells damage from unused space and torn tail.
pub(super) fn judge(scanned: &BTreeMap<u64, Scanned>) -> BTreeMap<u64, Judged> {
    let last = scanned.last_key_value().map_or(0, |(number, _)| *number);
    let mut judged = BTreeMap::new();
    for (number, segment) in scanned {
        let verdict = if *number == last {
            judge_last(segment)
        } else {
            let next = scanned.get(&(number + 1)).and_then(|next| next.batches().next());
            let stated = next.and_then(|next| usize::try_from(next.previous_end).ok());
            judge_sealed(segment, stated.unwrap_or_else(|| segment.end_max()))
        };
        judged.insert(*number, verdict);
    }
    judged
}

/// A segment that ended at `end`: every hole before is damage.
fn judge_sealed(segment: &Scanned, end: usize) -> Judged {
    let mut stretches = Vec::new();
    for stretch in &segment.stretches {
        match stretch {
            Stretch::Batch { end: batch_end, .. } if *batch_end <= end => stretches.push(*stretch),
            Stretch::Hole { start, end: hole_end } if *start < end => {
                stretches.push(Stretch::Hole { start: *start, end: end.min(*hole_end) });
            }
            Stretch::Batch { .. } | Stretch::Hole { .. } => {}
        }
    }
    Judged { stretches, end }
}

/// The segment that was written to: holes below what is stated durable are
/// damage, and so is one in place of the checkpoint; the first other hole is
/// the end. In one that ends too early everything behind may have been durable.
fn judge_last(segment: &Scanned) -> Judged {
    let stated = segment.batches().map(|prefix| prefix.durable).max().unwrap_or(0);
    let durable = if segment.is_short() { segment.size as u64 } else { stated };
    let mut judged = Judged { stretches: Vec::new(), end: SEGMENT_HEADER_BYTES };
    for stretch in &segment.stretches {
        match stretch {
            Stretch::Hole { start, .. }
                if *start as u64 >= durable && *start != SEGMENT_HEADER_BYTES =>
            {
                break;
            }
            Stretch::Hole { end, .. } | Stretch::Batch { end, .. } => judged.end = *end,
        }
        judged.stretches.push(*stretch);
    }
    if judged.stretches.is_empty() {
        let hole = Stretch::Hole { start: 0, end: SEGMENT_HEADER_BYTES };
        judged.stretches.push(hole);
    }
    judged
}
