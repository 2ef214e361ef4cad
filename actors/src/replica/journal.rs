//! The order in which one replica's records reach the log.
//!
//! One record is in flight at a time; what Raft wants written meanwhile waits
//! and is joined into the next record. So a busy disk makes larger records,
//! not longer queues, and a record the log had no room for is given again
//! before any later one. (Records of all replicas of a disk still share one
//! sync: the log joins them.) Joining stops at [`JOIN_BYTES_MAX`], far below
//! the largest record the log takes: a stalled disk must not end in a refusal.

use std::collections::VecDeque;

use cluster::{
    ids::LogIndex,
    ports::log::LogRecord,
    raft::types::{Entry, HardState, Payload},
};

/// Bytes beyond which a record takes no further entry: a longer write gains
/// nothing, and a record must fit a segment of the log, 16 MiB at least. One
/// entry alone may be larger: a request's, 4 MiB.
const JOIN_BYTES_MAX: usize = 1 << 20;

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
    /// Bytes of the last waiting record.
    last_bytes: usize,
    /// The log had no room: nothing is given to it until the alarm rings.
    resting: bool,
    /// Whether the alarm is set; one is enough.
    alarm: bool,
}

impl Journal {
    /// Adds a Raft step, joined to the last waiting one where that can be, in
    /// several records where it is long: a follower that catches up takes many
    /// appends in one step.
    pub(super) fn push_step(
        &mut self,
        number: u64,
        hard_state: Option<HardState>,
        mut entries: Vec<Entry>,
    ) {
        while let Some(rest) = split_long(&mut entries) {
            let before = entries
                .first()
                .map_or(LogIndex(0), |first| LogIndex(first.index.0.saturating_sub(1)));
            // What is durable before the rest is must not count as committed.
            let hard_state =
                hard_state.map(|state| HardState { commit: state.commit.min(before), ..state });
            let part = LogRecord::Ready { hard_state, entries };
            self.waiting.push_back((Written::Own, part));
            entries = rest;
        }
        self.push_short_step(number, hard_state, entries);
    }

    fn push_short_step(&mut self, number: u64, hard_state: Option<HardState>, entries: Vec<Entry>) {
        let bytes = entries.iter().map(entry_bytes).sum::<usize>();
        if let Some((Written::Steps(last), LogRecord::Ready { hard_state: state, entries: joined })) =
            self.waiting.back_mut()
            && self.last_bytes + bytes <= JOIN_BYTES_MAX
        {
            self.last_bytes += bytes;
            *last = number;
            *state = hard_state.or(*state);
            if let Some(first) = entries.first() {
                joined.retain(|entry| entry.index < first.index);
            }
            joined.extend(entries);
            return;
        }
        self.last_bytes = bytes;
        self.waiting.push_back((Written::Steps(number), LogRecord::Ready { hard_state, entries }));
    }

    /// Adds a record of another kind.
    pub(super) fn push(&mut self, written: Written, record: LogRecord) {
        self.waiting.push_back((written, record));
    }

    /// Adds a record that lets the log forget, before all others: it speaks of
    /// what is durable already, and a full log takes nothing else.
    pub(super) fn push_trim(&mut self, record: LogRecord) {
        self.waiting.push_front((Written::Own, record));
        self.resting = false;
    }

    /// The next record to append, if none is in flight.
    pub(super) fn next(&mut self) -> Option<LogRecord> {
        if self.in_flight.is_some() || self.resting {
            return None;
        }
        let (written, record) = self.waiting.pop_front()?;
        self.in_flight = Some((written, record.clone()));
        Some(record)
    }

    /// Whether the record in flight changes term, vote or commit.
    pub(super) fn in_flight_votes(&self) -> bool {
        let votes =
            |record: &LogRecord| matches!(record, LogRecord::Ready { hard_state: Some(_), .. });
        self.in_flight.as_ref().is_some_and(|(_, record)| votes(record))
    }

    /// The record in flight is durable.
    pub(super) fn done(&mut self) -> Option<Written> {
        self.in_flight.take().map(|(written, _)| written)
    }

    /// The log had no room: the record waits again, before all others, until
    /// [`Self::rested`]. True when an alarm must be set for that.
    pub(super) fn again(&mut self) -> bool {
        self.resting = true;
        if let Some(record) = self.in_flight.take() {
            if self.waiting.is_empty() {
                // It may have grown as far as it should.
                self.last_bytes = JOIN_BYTES_MAX;
            }
            self.waiting.push_front(record);
        }
        !std::mem::replace(&mut self.alarm, true)
    }

    /// The alarm rang.
    pub(super) fn rested(&mut self) {
        self.resting = false;
        self.alarm = false;
    }

    /// Forgets what waits. The record in flight goes on, and its completion
    /// means nothing any more.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
        if let Some((written, _)) = &mut self.in_flight {
            *written = Written::Own;
        }
    }
}

/// Cuts entries so that one record can take them; what is left, if anything.
fn split_long(entries: &mut Vec<Entry>) -> Option<Vec<Entry>> {
    let mut bytes = 0;
    let cut = entries.iter().position(|entry| {
        bytes += entry_bytes(entry);
        bytes > JOIN_BYTES_MAX
    });
    // At least one: an entry is never cut.
    let cut = cut?.max(1);
    (cut < entries.len()).then(|| entries.split_off(cut))
}

/// About what an entry takes in a record.
fn entry_bytes(entry: &Entry) -> usize {
    const ENVELOPE_BYTES: usize = 64;
    ENVELOPE_BYTES
        + match &entry.payload {
            Payload::Command(bytes) => bytes.len(),
            Payload::Empty | Payload::Configuration(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use cluster::ids::{ReplicaId, Term};

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index: LogIndex(index), term: Term(term), payload: Payload::Empty }
    }

    fn state(commit: u64) -> HardState {
        HardState { term: Term(1), vote: ReplicaId(1), commit: LogIndex(commit) }
    }

    #[test]
    fn steps_that_wait_are_joined_and_later_entries_replace_earlier_ones() {
        let mut journal = Journal::default();
        journal.push_step(1, Some(state(0)), vec![entry(1, 1)]);
        assert!(journal.next().is_some());
        journal.push_step(2, Some(state(1)), vec![entry(2, 1), entry(3, 1)]);
        journal.push_step(3, None, vec![entry(3, 2)]);
        assert!(journal.next().is_none(), "one record is in flight at a time");
        assert_eq!(journal.done(), Some(Written::Steps(1)));
        let joined = LogRecord::Ready {
            hard_state: Some(state(1)),
            entries: vec![entry(2, 1), entry(3, 2)],
        };
        assert_eq!(journal.next(), Some(joined));
        assert_eq!(journal.done(), Some(Written::Steps(3)));
        assert_eq!(journal.next(), None);
    }

    #[test]
    fn a_stalled_disk_does_not_join_records_beyond_what_the_log_takes() {
        let big = |index| Entry {
            index: LogIndex(index),
            term: Term(1),
            payload: Payload::Command(vec![0; JOIN_BYTES_MAX / 4]),
        };
        let mut journal = Journal::default();
        for index in 1..=40 {
            journal.push_step(index, None, vec![big(index)]);
        }
        let (mut records, mut upto) = (0, 0);
        while let Some(LogRecord::Ready { entries, .. }) = journal.next() {
            let bytes: usize = entries.iter().map(entry_bytes).sum();
            assert!(bytes <= JOIN_BYTES_MAX, "{bytes}");
            assert_eq!(entries.first().map(|entry| entry.index.0), Some(upto + 1));
            upto += entries.len() as u64;
            assert_eq!(journal.done(), Some(Written::Steps(upto)), "a number for all before it");
            records += 1;
        }
        assert_eq!((upto, records), (40, 14));
    }

    #[test]
    fn a_long_step_takes_several_records_and_is_done_with_the_last() {
        let big = |index| Entry {
            index: LogIndex(index),
            term: Term(2),
            payload: Payload::Command(vec![0; JOIN_BYTES_MAX / 3]),
        };
        let mut journal = Journal::default();
        journal.push_step(7, Some(state(9)), (5..=9).map(big).collect());
        let mut records = Vec::new();
        while let Some(LogRecord::Ready { hard_state, entries }) = journal.next() {
            let entries: Vec<u64> = entries.iter().map(|entry| entry.index.0).collect();
            records.push((hard_state.unwrap().commit.0, entries, journal.done().unwrap()));
        }
        // Of five entries the first two are no committed ones before the last is there.
        let expected = [
            (4, vec![5, 6], Written::Own),
            (6, vec![7, 8], Written::Own),
            (9, vec![9], Written::Steps(7)),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn a_step_after_a_snapshot_waits_behind_it() {
        let mut journal = Journal::default();
        journal.push_step(1, Some(state(1)), vec![entry(1, 1)]);
        let hard_state = HardState { term: Term(2), vote: ReplicaId(0), commit: LogIndex(9) };
        let (store, index, term) = (cluster::ids::StoreId(4), LogIndex(9), Term(2));
        let installed = LogRecord::Installed { store, index, term, hard_state };
        journal.push(Written::Installed(2), installed.clone());
        journal.push_step(3, None, vec![entry(10, 2)]);
        let mut order = Vec::new();
        while journal.next().is_some() {
            order.extend(journal.done());
        }
        assert_eq!(order, [Written::Steps(1), Written::Installed(2), Written::Steps(3)]);
    }

    #[test]
    fn the_record_in_flight_of_an_abandoned_journal_is_not_taken_for_a_later_one() {
        let mut journal = Journal::default();
        journal.push_step(1, Some(state(1)), vec![]);
        assert!(journal.next().is_some());
        journal.push_step(2, Some(state(2)), vec![]);
        journal.abandon();
        journal.push(Written::Destroyed, LogRecord::Destroyed);
        assert_eq!(journal.next(), None, "the first is still in flight");
        assert_eq!(journal.done(), Some(Written::Own));
        assert_eq!(journal.next(), Some(LogRecord::Destroyed));
        assert_eq!(journal.done(), Some(Written::Destroyed));
    }

    #[test]
    fn a_record_without_room_is_given_again_first() {
        let mut journal = Journal::default();
        journal.push_step(1, Some(state(1)), vec![]);
        let first = journal.next();
        journal.push(Written::Destroyed, LogRecord::Destroyed);
        assert!(journal.again(), "an alarm is wanted");
        assert_eq!(journal.next(), None, "a log without room is left alone for a while");
        journal.rested();
        assert_eq!(journal.next(), first);
        assert!(journal.again());
        journal.rested();
        assert_eq!(journal.next(), first);
    }

    #[test]
    fn a_full_log_is_given_what_frees_room_first_and_one_alarm_is_set() {
        let mut journal = Journal::default();
        journal.push_step(1, Some(state(1)), vec![]);
        assert!(journal.next().is_some());
        assert!(journal.again());
        let trimmed = LogRecord::Trimmed { index: LogIndex(1), term: Term(1) };
        journal.push_trim(trimmed.clone());
        assert_eq!(journal.next(), Some(trimmed));
        assert_eq!(journal.done(), Some(Written::Own));
        assert!(journal.next().is_some());
        assert!(!journal.again(), "the alarm is set already");
    }
}
