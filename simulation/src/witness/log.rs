//! A log that is watched: what it says to be durable is told to the checkers.

use std::sync::Arc;

use cluster::{
    ids::{LogIndex, ReplicaId},
    ports::log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
    raft::types::Entry,
};

use crate::{
    checkers::{self, Checkers},
    node::Diary,
};

/// The log of one boot, watched.
#[derive(Debug)]
pub(crate) struct WitnessedLog {
    pub(crate) log: Arc<dyn LogStore>,
    pub(crate) checkers: Checkers,
    pub(crate) diary: Diary,
}

/// A record with digests of what its entries carry: the bytes are copied often
/// enough.
fn outline(record: &LogRecord) -> LogRecord {
    let LogRecord::Ready { hard_state, entries } = record else { return record.clone() };
    let entries = entries.iter().map(checkers::outline).collect();
    LogRecord::Ready { hard_state: *hard_state, entries }
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
