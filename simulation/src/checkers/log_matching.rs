//! Log matching: two logs that hold an entry of the same position and term
//! hold the same entry there, and the same before it.
//!
//! Each durable entry is compared with what any log held at its position and
//! term: what it carries, and the term of the entry before it. The rest
//! follows by induction. Source: Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm", figure 3.

use std::collections::BTreeMap;

use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, Term},
    raft::types::{Entry, Payload},
};
use xxhash_rust::xxh3::xxh3_64;

use super::logs::Logs;

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct Known {
    replica: ReplicaId,
    payload: u64,
    /// Term of the entry before it, once a log that knows it was met.
    before: Option<Term>,
}

/// Every entry any log held.
#[derive(Debug, Default)]
pub(super) struct LogMatching {
    entries: BTreeMap<(ShardId, LogIndex, Term), Known>,
}

impl LogMatching {
    /// Judges entries that lie in a log by now, one after the other.
    pub(super) fn entries(
        &mut self,
        logs: &Logs,
        replica: ReplicaId,
        entries: &[Entry],
    ) -> Result<(), String> {
        let Some(shard) = logs.shard_of(replica) else { return Ok(()) };
        for entry in entries {
            let before = entry.index.0.checked_sub(1).map(LogIndex);
            let before = before.and_then(|before| logs.of(replica)?.term_of(before));
            let seen = Known { replica, payload: digest(&entry.payload), before };
            let known = self.entries.entry((shard, entry.index, entry.term)).or_insert(seen);
            let parted = known.before.is_some() && before.is_some() && known.before != before;
            if parted || known.payload != seen.payload {
                let (index, term, first) = (entry.index, entry.term, known.replica);
                let what = if parted { "what lies before" } else { "what is" };
                return Err(format!(
                    "{first} and {replica} of {shard} differ in {what} {index} of {term}"
                ));
            }
            known.before = known.before.or(before);
        }
        Ok(())
    }
}

/// An entry with a digest in place of what it carries. A leader's first entry
/// stays what it is.
pub(crate) fn outline(entry: &Entry) -> Entry {
    let payload = match &entry.payload {
        Payload::Empty => Payload::Empty,
        carried @ (Payload::Command(_) | Payload::Configuration(_)) => {
            Payload::Command(digest(carried).to_le_bytes().to_vec())
        }
    };
    Entry { index: entry.index, term: entry.term, payload }
}

fn digest(payload: &Payload) -> u64 {
    match payload {
        Payload::Empty => 0,
        Payload::Command(bytes) => xxh3_64(bytes),
        Payload::Configuration(change) => xxh3_64(format!("{change:?}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use cluster::ports::log::LogRecord;

    use super::{
        super::logs::samples::{born, entry, entry_with},
        *,
    };

    fn judged(records: &[(u64, LogRecord)]) -> Result<(), String> {
        let (mut logs, mut checker) = (Logs::default(), LogMatching::default());
        for (replica, record) in records {
            logs.durable(ReplicaId(*replica), record);
            if let LogRecord::Ready { entries, .. } = record {
                checker.entries(&logs, ReplicaId(*replica), entries)?;
            }
        }
        Ok(())
    }

    #[test]
    fn entries_of_one_term_that_carry_different_things_are_found() {
        let carries = |byte| entry_with(1, 1, Payload::Command(vec![byte]));
        assert_eq!(judged(&[(1, born()), (2, born()), (1, carries(7)), (2, carries(7))]), Ok(()));
        assert!(judged(&[(1, born()), (2, born()), (1, carries(7)), (2, carries(8))]).is_err());
    }

    #[test]
    fn logs_that_part_before_an_entry_they_share_are_found() {
        let first = [(1, born()), (2, born()), (1, entry(1, 1)), (2, entry(1, 2))];
        let shared = [(1, entry(2, 3)), (2, entry(2, 3))];
        assert_eq!(judged(&first), Ok(()), "nothing is shared yet");
        assert!(judged(&first.into_iter().chain(shared).collect::<Vec<_>>()).is_err());
    }
}
