//! Finds the batches of one segment, and the extents between them.
//!
//! A scan judges nothing: it says where whole batches stand and where bytes
//! are none. Whether such an extent is unused space, a torn tail or damage
//! depends on what batches state, and is decided in `recovery`.

use super::format::{BATCH_ALIGN, Batch, BatchPrefix, Fault, SEGMENT_HEADER_BYTES};

/// A stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// A whole batch written here.
    Batch { prefix: BatchPrefix, end: usize },
    /// Bytes `start..end` that are no batch.
    Hole { start: usize, end: usize },
}

impl Stretch {
    /// Where it ends.
    pub(super) fn end(&self) -> usize {
        match self {
            Self::Batch { end, .. } | Self::Hole { end, .. } => *end,
        }
    }
}

/// Splits a segment's bytes into stretches, header excluded.
///
/// # Errors
/// [`Fault::Version`] when a batch is of another format.
pub(super) fn scan(bytes: &[u8], segment: u64, stamp: u64) -> Result<Vec<Stretch>, Fault> {
    let mut stretches = Vec::new();
    let (mut at, mut hole, mut sequence) = (SEGMENT_HEADER_BYTES, None, 0);
    while at < bytes.len() {
        // Most of a hole was never written, and a frame does not begin with zeros.
        let blank = bytes[at..].starts_with(&[0; 4]);
        let batch = if blank { None } else { believed(bytes, at, segment, stamp, sequence)? };
        let Some(batch) = batch else {
            hole.get_or_insert(at);
            at += BATCH_ALIGN;
            continue;
        };
        if let Some(start) = hole.take() {
            stretches.push(Stretch::Hole { start, end: at });
        }
        sequence = batch.prefix.sequence;
        at = batch.end;
        stretches.push(Stretch::Batch { prefix: batch.prefix, end: batch.end });
    }
    if let Some(start) = hole {
        stretches.push(Stretch::Hole { start, end: bytes.len() });
    }
    Ok(stretches)
}

/// The batch at `at`, when it is whole and follows what came before it.
fn believed(
    bytes: &[u8],
    at: usize,
    segment: u64,
    stamp: u64,
    sequence: u64,
) -> Result<Option<Batch>, Fault> {
    match Batch::read(bytes, at, segment, stamp) {
        Ok(batch) if batch.prefix.sequence > sequence && batch.records(bytes).is_ok() => {
            Ok(Some(batch))
        }
        Ok(_) | Err(Fault::Bad(_)) => Ok(None),
        Err(Fault::Version(version)) => Err(Fault::Version(version)),
    }
}
