//! Short words for the tests of the log.

use std::{ops::RangeInclusive, sync::Arc};

use crate::{
    ids::{ClusterId, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term, VolumeId},
    log::{LogOptions, LogStamp, OpenError, Recovery, SegmentedLog},
    memory::MemoryFiles,
    ports::{files::Files, log::LogRecord},
    raft::types::{Entry, HardState, Payload},
};

pub(super) const SEGMENT_BYTES: usize = 4096;

pub(super) fn stamp() -> LogStamp {
    LogStamp { cluster: ClusterId(1 << 96), node: NodeId(2 << 96), disk: 0 }
}

pub(super) fn open(files: &MemoryFiles) -> Result<(SegmentedLog, Recovery), OpenError> {
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, begun: false };
    SegmentedLog::open(Arc::new(files.clone()), stamp(), options)
}

pub(super) fn created(shard: u64) -> LogRecord {
    LogRecord::Created {
        shard: ShardId(shard),
        volume: VolumeId(7),
        store: StoreId(shard),
        index: LogIndex(0),
        term: Term(0),
    }
}

pub(super) fn entries(term: u64, range: RangeInclusive<u64>) -> Vec<Entry> {
    let entry = |index: u64| Entry {
        index: LogIndex(index),
        term: Term(term),
        payload: Payload::Command(format!("{term}/{index}").into_bytes()),
    };
    range.map(entry).collect()
}

pub(super) fn big(index: u64, bytes: usize) -> Vec<Entry> {
    let payload = Payload::Command(vec![7; bytes]);
    vec![Entry { index: LogIndex(index), term: Term(2), payload }]
}

pub(super) fn ready(term: u64, range: RangeInclusive<u64>) -> LogRecord {
    let hard_state = HardState { term: Term(term), vote: ReplicaId(0), commit: LogIndex(0) };
    LogRecord::Ready { hard_state: Some(hard_state), entries: entries(term, range) }
}

pub(super) fn trimmed(index: u64, term: u64) -> LogRecord {
    LogRecord::Trimmed { index: LogIndex(index), term: Term(term) }
}

pub(super) fn segments(files: &MemoryFiles) -> Vec<String> {
    let is_segment = |name: &String| name.contains(".segment");
    files.list().unwrap().into_iter().filter(is_segment).collect()
}

/// Seeded chance: splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    pub(super) fn place(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}
