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
    let options = LogOptions { segment_bytes: SEGMENT_BYTES };
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
    files.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect()
}
