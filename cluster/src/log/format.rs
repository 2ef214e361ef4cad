//! What the bytes of a segment mean.
//!
//! ```text
//! segment   | header (128) | checkpoint batch | batch | batch | unused …
//! header    | frame header (24) | cluster 16 | node 16 | disk 8 | number 8 | bytes 8 | zeros |
//! batch     | frame header (24) | prefix (80) | record | record | … zeros to a multiple of 64 |
//! prefix    | stamp 8 | segment 8 | offset 8 | sequence 8 | durable 8 | previous_end 8
//!           | needed_from 8 | replica_max 8 | floor 8 | records 4 | flags 4 |
//! record    | replica 8 | kind 4 | length 4 | crc 4 | zeros 4 | body |
//! ```
//! Little-endian. A batch names the segment and offset it was written at, so
//! neither stale bytes of a recycled file nor a copy of a segment kept inside a
//! value is ever taken for a live batch. Batches start at multiples of 64
//! bytes: after damage the search for the next one looks only there.
#![allow(missing_docs, reason = "rkyv gives the fields of archived types no docs")]

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};

use super::LogStamp;
use crate::{
    formats::{
        FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind, InvalidRecord, decode_frame,
        encode_frame, frame_header, from_bytes,
    },
    ids::{LogIndex, ReplicaId, ShardId, StoreId, Term, VolumeId},
    ports::log::LogRecord,
    raft::types::{Entry, HardState},
};

/// Version of segments and batches this release writes.
pub(super) const FORMAT_VERSION: u16 = 1;
/// Where the first batch of a segment stands.
pub(super) const SEGMENT_HEADER_BYTES: usize = 128;
/// Batches start at multiples of this.
pub(super) const BATCH_ALIGN: usize = 64;
const PREFIX_BYTES: usize = 80;
/// Bytes of a batch before its first record.
pub(super) const BATCH_HEAD_BYTES: usize = FRAME_HEADER_BYTES + PREFIX_BYTES;
/// Bytes of a record before its body.
pub(super) const RECORD_HEAD_BYTES: usize = 24;

const SEGMENT_SUFFIX: &str = ".segment";
const FREE_SUFFIX: &str = ".free";
const QUARANTINE_SUFFIX: &str = ".quarantined";

/// Name of segment `number`; names sort as numbers do.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}{SEGMENT_SUFFIX}")
}

/// Name of a file that waits to become a segment.
pub(super) fn free_name(number: u64) -> String {
    format!("{number:016x}{FREE_SUFFIX}")
}

/// Name under which a damaged segment is kept for its operator.
pub(super) fn quarantine_name(number: u64) -> String {
    format!("{number:016x}{QUARANTINE_SUFFIX}")
}

/// Number of a segment by its name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(SEGMENT_SUFFIX)?, 16).ok()
}

/// Number of a free file by its name.
pub(super) fn free_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(FREE_SUFFIX)?, 16).ok()
}

/// `bytes` rounded up to where the next batch may start.
pub(super) const fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(BATCH_ALIGN)
}

/// A header that was read and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) stamp: LogStamp,
    pub(super) number: u64,
    pub(super) bytes: u64,
}

impl SegmentHeader {
    /// The first [`SEGMENT_HEADER_BYTES`] of a segment.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(56);
        payload.extend_from_slice(&self.stamp.cluster.0.to_le_bytes());
        payload.extend_from_slice(&self.stamp.node.0.to_le_bytes());
        for word in [self.stamp.disk, self.number, self.bytes] {
            payload.extend_from_slice(&word.to_le_bytes());
        }
        let mut header = encode_frame(FrameKind::LogSegment, FORMAT_VERSION, &payload);
        header.resize(SEGMENT_HEADER_BYTES, 0);
        header
    }

    /// Reads a header.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let (header, payload) = decode_frame(bytes, SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES)?;
        if header.kind != FrameKind::LogSegment {
            return Err(Fault::Bad("not the header of a segment"));
        }
        if header.version != FORMAT_VERSION {
            return Err(Fault::Version(header.version));
        }
        let (wide, words) = payload.split_at_checked(32).ok_or(Fault::Bad("header is short"))?;
        let [disk, number, bytes] = words_of::<3>(words)?;
        let stamp = LogStamp {
            cluster: crate::ids::ClusterId(wide_of(&wide[..16])?),
            node: crate::ids::NodeId(wide_of(&wide[16..])?),
            disk,
        };
        Ok(Self { stamp, number, bytes })
    }
}

/// A short form of the stamp, repeated in every batch.
pub(super) fn stamp_hash(stamp: &LogStamp) -> u64 {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend_from_slice(&stamp.cluster.0.to_le_bytes());
    bytes.extend_from_slice(&stamp.node.0.to_le_bytes());
    bytes.extend_from_slice(&stamp.disk.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// Why bytes are not what was expected of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Written by a release with another format.
    Version(u16),
    /// Damaged, foreign or stale.
    Bad(&'static str),
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Self::Bad(match error {
            FrameError::Short => "cut short",
            FrameError::Magic => "no frame",
            FrameError::Header => "frame header is damaged",
            FrameError::Kind(_) => "unknown frame kind",
            FrameError::TooLarge { .. } => "longer than its segment",
            FrameError::Payload => "checksum does not match",
        })
    }
}

fn words_of<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Fault> {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let bytes = bytes.first_chunk::<8>().ok_or(Fault::Bad("cut short"))?;
        *word = u64::from_le_bytes(*bytes);
    }
    if bytes.len() < 8 * N {
        return Err(Fault::Bad("cut short"));
    }
    Ok(words)
}

fn wide_of(bytes: &[u8]) -> Result<u128, Fault> {
    let bytes = bytes.first_chunk::<16>().ok_or(Fault::Bad("cut short"))?;
    Ok(u128::from_le_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What a batch says about itself and about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchPrefix {
    /// [`stamp_hash`] of the log.
    pub(super) stamp: u64,
    /// Segment it was written to.
    pub(super) segment: u64,
    /// Offset it was written at.
    pub(super) offset: u64,
    /// Rises with each batch.
    pub(super) sequence: u64,
    /// Bytes of this segment below here were durable when it was written; so
    /// were all earlier segments.
    pub(super) durable: u64,
    /// Where the segment before this one ended.
    pub(super) previous_end: u64,
    /// Segments below this number hold nothing anyone needs.
    pub(super) needed_from: u64,
    /// Highest replica id this log ever held.
    pub(super) replica_max: u64,
    /// Replicas up to this id may have been forgotten through damage and are
    /// never created again.
    pub(super) floor: u64,
    /// Records that follow.
    pub(super) records: u32,
    /// Whether it is the checkpoint that opens a segment.
    pub(super) checkpoint: bool,
}

impl BatchPrefix {
    fn encode(&self) -> [u8; PREFIX_BYTES] {
        let last = u64::from(self.records) | (u64::from(self.checkpoint) << 32);
        let words = [
            self.stamp,
            self.segment,
            self.offset,
            self.sequence,
            self.durable,
            self.previous_end,
            self.needed_from,
            self.replica_max,
            self.floor,
            last,
        ];
        let mut bytes = [0; PREFIX_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(payload: &[u8]) -> Result<Self, Fault> {
        let words = words_of::<10>(payload)?;
        Ok(Self {
            stamp: words[0],
            segment: words[1],
            offset: words[2],
            sequence: words[3],
            durable: words[4],
            previous_end: words[5],
            needed_from: words[6],
            replica_max: words[7],
            floor: words[8],
            records: half(payload, 72),
            checkpoint: half(payload, 76) != 0,
        })
    }
}

/// A batch being built: head space first, then records.
#[derive(Debug)]
pub(super) struct BatchBuffer {
    bytes: Vec<u8>,
    records: u32,
}

impl BatchBuffer {
    /// An empty batch.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BATCH_HEAD_BYTES], records: 0 }
    }

    /// Whether no record is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes it would take with one more record of `body_bytes`.
    pub(super) fn len_with(&self, body_bytes: usize) -> usize {
        aligned(self.bytes.len() + RECORD_HEAD_BYTES + body_bytes)
    }

    /// Adds a record; answers where in the batch it begins and how long it is.
    ///
    /// # Panics
    /// If the body exceeds 4 GiB, which the size of a segment forbids.
    pub(super) fn push(
        &mut self,
        replica: ReplicaId,
        kind: RecordKind,
        body: &[u8],
    ) -> (usize, u32) {
        #[expect(clippy::expect_used, reason = "a record fits a segment, which is below 4 GiB")]
        let length = u32::try_from(body.len()).expect("record below 4 GiB");
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&replica.0.to_le_bytes());
        self.bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.bytes[begin..]), body);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(body);
        self.records += 1;
        (begin, length)
    }

    /// Fills in the head and pads; the bytes to write at `prefix.offset`.
    pub(super) fn seal(&mut self, mut prefix: BatchPrefix) -> &[u8] {
        prefix.records = self.records;
        self.bytes[FRAME_HEADER_BYTES..BATCH_HEAD_BYTES].copy_from_slice(&prefix.encode());
        let payload = &self.bytes[FRAME_HEADER_BYTES..];
        let header = frame_header(FrameKind::LogBatch, FORMAT_VERSION, payload);
        self.bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        &self.bytes
    }

    /// Forgets all records; keeps the memory, up to a bound.
    pub(super) fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 1 << 20;
        self.bytes.truncate(BATCH_HEAD_BYTES);
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.records = 0;
    }
}

/// What the body of a record is. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum RecordKind {
    /// A [`LogRecord`].
    Record = 1,
    /// Entries copied forward out of an old segment; nothing else changes.
    Moved = 2,
    /// A [`Summary`].
    Summary = 3,
}

/// What a replica is at a checkpoint, all but its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) shard: ShardId,
    pub(super) volume: VolumeId,
    pub(super) store: StoreId,
    pub(super) hard_state: HardState,
    pub(super) base_index: LogIndex,
    pub(super) base_term: Term,
    /// Last entry at that moment.
    pub(super) last_index: LogIndex,
    /// Oldest segment with an entry it needed at that moment.
    pub(super) oldest_segment: u64,
    pub(super) damaged: bool,
}

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Record(LogRecord),
    Moved(Vec<Entry>),
    Summary(Summary),
}

/// Where a record of a batch lies: `bytes` at `begin` in the segment, head included.
#[derive(Clone, Debug)]
pub(super) struct RawRecord {
    pub(super) replica: ReplicaId,
    pub(super) begin: usize,
    kind: u32,
    body: Range<usize>,
}

impl RawRecord {
    /// Bytes of the body.
    pub(super) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Reads the record at `begin` and checks it.
    pub(super) fn read(bytes: &[u8], begin: usize) -> Result<Self, Fault> {
        let head =
            bytes.get(begin..begin + RECORD_HEAD_BYTES).ok_or(Fault::Bad("record is cut short"))?;
        let [replica] = words_of::<1>(head)?;
        let start = begin + RECORD_HEAD_BYTES;
        let body = start..start + half(head, 12) as usize;
        let content = bytes.get(body.clone()).ok_or(Fault::Bad("record is cut short"))?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..16]), content) != half(head, 16) {
            return Err(Fault::Bad("record checksum does not match"));
        }
        Ok(Self { replica: ReplicaId(replica), begin, kind: half(head, 8), body })
    }

    /// Decodes its body out of the same bytes.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Stored, InvalidRecord> {
        let body = bytes.get(self.body.clone()).unwrap_or_default();
        if self.kind == RecordKind::Record as u32 {
            from_bytes(body).map(Stored::Record)
        } else if self.kind == RecordKind::Moved as u32 {
            from_bytes(body).map(Stored::Moved)
        } else if self.kind == RecordKind::Summary as u32 {
            from_bytes(body).map(Stored::Summary)
        } else {
            Err(InvalidRecord(format!("unknown record kind {}", self.kind)))
        }
    }
}

/// A batch that was read and believed.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) prefix: BatchPrefix,
    /// Where the next batch starts.
    pub(super) end: usize,
    payload_end: usize,
}

impl Batch {
    /// Reads the batch at `offset` of a whole segment's `bytes`, if it was
    /// written there as a part of this log.
    pub(super) fn read(
        bytes: &[u8],
        offset: usize,
        segment: u64,
        stamp: u64,
    ) -> Result<Self, Fault> {
        let rest = bytes.get(offset..).ok_or(Fault::Bad("cut short"))?;
        let header = FrameHeader::read(rest, bytes.len())?;
        if header.kind != FrameKind::LogBatch {
            return Err(Fault::Bad("not a batch"));
        }
        let payload = rest
            .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes)
            .ok_or(Fault::Bad("cut short"))?;
        header.check(payload)?;
        if header.version != FORMAT_VERSION {
            return Err(Fault::Version(header.version));
        }
        let prefix = BatchPrefix::decode(payload)?;
        if prefix.stamp != stamp || prefix.segment != segment || prefix.offset != offset as u64 {
            return Err(Fault::Bad("written elsewhere"));
        }
        let payload_end = offset + FRAME_HEADER_BYTES + header.payload_bytes;
        Ok(Self { prefix, end: aligned(payload_end), payload_end })
    }

    /// Its records, checked.
    pub(super) fn records(&self, bytes: &[u8]) -> Result<Vec<RawRecord>, Fault> {
        let offset = usize::try_from(self.prefix.offset).map_err(|_| Fault::Bad("offset"))?;
        let mut records = Vec::new();
        let mut begin = offset + BATCH_HEAD_BYTES;
        for _ in 0..self.prefix.records {
            let record = RawRecord::read(bytes, begin)?;
            begin = record.body.end;
            records.push(record);
        }
        if begin != self.payload_end {
            return Err(Fault::Bad("records do not fill their batch"));
        }
        Ok(records)
    }
}
