//! A log that is watched: what it says to be durable is told to the checkers.
//!
//! It stands between a machine's actors and its log, so it hears the log's own
//! word and not what replicas make of it. It changes nothing.

use std::sync::Arc;

use cluster::{
    ids::{LogIndex, ReplicaId},
    ports::log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
    raft::types::{Entry, Payload},
};

use crate::{checkers::Checkers, node::Diary};

/// The log of one boot, watched.
#[derive(Debug)]
pub(crate) struct WitnessedLog {
    pub(crate) log: Arc<dyn LogStore>,
    pub(crate) checkers: Checkers,
    pub(crate) diary: Diary,
}

/// A record without what its entries carry, which is nobody's business here.
fn outline(record: &LogRecord) -> LogRecord {
    let LogRecord::Ready { hard_state, entries } = record else { return record.clone() };
    let bare =
        |entry: &Entry| Entry { index: entry.index, term: entry.term, payload: Payload::Empty };
    LogRecord::Ready { hard_state: *hard_state, entries: entries.iter().map(bare).collect() }
}

impl LogStore for WitnessedLog {
    fn append(&self, replica: ReplicaId, record: LogRecord, done: Done<Result<(), LogError>>) {
        let (checkers, diary, copy) = (self.checkers.clone(), self.diary.clone(), outline(&record));
        let told = move |result: Result<(), LogError>| {
            if result.is_ok() {
                if matches!(copy, LogRecord::Trimmed { .. }) {
                    diary.count("log trimmed");
                }
                if checkers.durable(replica, &copy) {
                    diary.count("log truncated");
                }
            }
            done(result);
        };
        self.log.append(replica, record, Box::new(told));
    }

    fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        done: Done<Result<Vec<Entry>, LogError>>,
    ) {
        self.log.read(replica, from, to, bytes_max, done);
    }

    fn recover(&self, replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>>) {
        self.log.recover(replica, done);
    }

    fn pins(&self, done: Done<LogPins>) {
        self.log.pins(done);
    }
}
