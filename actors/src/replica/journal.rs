//! The order in which one replica's records reach the log.
//!
//! One record is in flight at a time; what Raft wants written meanwhile waits
//! and is joined into the next record. So a busy disk makes larger records,
//! not longer queues, and a record the log had no room for is given again
//! before any later one. (Records of all replicas of a disk still share one
//! sync: the log joins them.)

use std::collections::VecDeque;

use cluster::{
    ports::log::LogRecord,
    raft::types::{Entry, HardState, Payload},
};

/// Bytes of entries up to which steps are joined into one record: beyond it a
/// longer write gains nothing, and a record must fit a segment of the log.
const JOINED_BYTES_MAX: usize = 8 << 20;

/// What a record's completion means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Raft steps up to this number are durable.
    Steps(u64),
    /// The birth is durable.
    Born,
    /// A record of our own that nobody waits for is durable.
    Own,
    /// A snapshot became the replica's store; with it steps up to this number.
    Installed(u64),
    /// The end of the replica is durable.
    Destroyed,
}

/// Records on their way to the log.
#[derive(Debug, Default)]
pub(super) struct Journal {
    waiting: VecDeque<(Written, LogRecord)>,
    in_flight: Option<(Written, LogRecord)>,
    /// Bytes of entries joined into the last waiting record.
    joined_bytes: usize,
}

impl Journal {
    /// Adds a Raft step, joined to the last waiting one where that can be.
    pub(super) fn push_step(
        &mut self,
        number: u64,
        hard_state: Option<HardState>,
        entries: Vec<Entry>,
    ) {
        let bytes = entries_bytes(&entries);
        if let Some((Written::Steps(last), LogRecord::Ready { hard_state: state, entries: joined })) =
            self.waiting.back_mut()
            && self.joined_bytes + bytes <= JOINED_BYTES_MAX
        {
            self.joined_bytes += bytes;
            *last = number;
            *state = hard_state.or(*state);
            if let Some(first) = entries.first() {
                joined.retain(|entry| entry.index < first.index);
            }
            joined.extend(entries);
            return;
        }
        self.joined_bytes = bytes;
        self.waiting.push_back((Written::Steps(number), LogRecord::Ready { hard_state, entries }));
    }

    /// Adds a record of another kind.
    pub(super) fn push(&mut self, written: Written, record: LogRecord) {
        self.waiting.push_back((written, record));
    }

    /// The next record to append, if none is in flight.
    pub(super) fn next(&mut self) -> Option<LogRecord> {
        if self.in_flight.is_some() {
            return None;
        }
        let (written, record) = self.waiting.pop_front()?;
        self.in_flight = Some((written, record.clone()));
        Some(record)
    }

    /// The record in flight is durable.
    pub(super) fn done(&mut self) -> Option<Written> {
        self.in_flight.take().map(|(written, _)| written)
    }

    /// The log had no room: the record waits again, before all others.
    pub(super) fn again(&mut self) {
        if let Some(record) = self.in_flight.take() {
            self.waiting.push_front(record);
        }
    }
}

fn entries_bytes(entries: &[Entry]) -> usize {
    let bytes = |entry: &Entry| match &entry.payload {
        Payload::Command(bytes) => bytes.len(),
        Payload::Empty | Payload::Configuration(_) => 0,
    };
    entries.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use cluster::ids::{LogIndex, ReplicaId, Term};

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index: LogIndex(index), term: Term(term), payload: Payload::Empty }
    }

    fn state(commit: u64) -> Option<HardState> {
        Some(HardState { term: Term(1), vote: ReplicaId(1), commit: LogIndex(commit) })
    }

    #[test]
    fn steps_that_wait_are_joined_and_later_entries_replace_earlier_ones() {
        let mut journal = Journal::default();
        journal.push_step(1, state(0), vec![entry(1, 1)]);
        assert!(journal.next().is_some());
        journal.push_step(2, state(1), vec![entry(2, 1), entry(3, 1)]);
        journal.push_step(3, None, vec![entry(3, 2)]);
        assert!(journal.next().is_none(), "one record is in flight at a time");
        assert_eq!(journal.done(), Some(Written::Steps(1)));
        let joined =
            LogRecord::Ready { hard_state: state(1), entries: vec![entry(2, 1), entry(3, 2)] };
        assert_eq!(journal.next(), Some(joined));
        assert_eq!(journal.done(), Some(Written::Steps(3)));
        assert_eq!(journal.next(), None);
    }

    #[test]
    fn steps_are_joined_only_as_far_as_a_record_fits_a_segment() {
        let mut journal = Journal::default();
        let large = |index| Entry {
            payload: Payload::Command(vec![0; JOINED_BYTES_MAX / 2]),
            ..entry(index, 1)
        };
        for index in 1..=5 {
            journal.push_step(index, None, vec![large(index)]);
        }
        let mut steps = Vec::new();
        while journal.next().is_some() {
            steps.extend(journal.done());
        }
        assert_eq!(steps, [Written::Steps(2), Written::Steps(4), Written::Steps(5)]);
    }

    #[test]
    fn a_record_without_room_is_given_again_first() {
        let mut journal = Journal::default();
        journal.push_step(1, state(1), vec![]);
        let first = journal.next();
        journal.push(Written::Destroyed, LogRecord::Destroyed);
        journal.again();
        assert_eq!(journal.next(), first);
    }
}
