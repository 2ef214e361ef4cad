//! What must hold inside, whatever clients saw. Fed by the actors' reports.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use cluster::ids::{LogIndex, ReplicaId, ShardId, Term};

/// The invariants of one world.
///
/// A lock, though there is one thread: the probe port is `Sync` by contract.
#[derive(Clone, Debug, Default)]
pub struct Invariants(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    leaders: BTreeMap<(ShardId, Term), ReplicaId>,
    applied: BTreeMap<(ShardId, LogIndex), (Term, ReplicaId)>,
    broken: Option<String>,
}

impl Invariants {
    /// Election safety: a term has at most one leader (Raft, figure 3).
    pub fn elected(&self, shard: ShardId, replica: ReplicaId, term: Term) {
        self.with(|inner| {
            let first = *inner.leaders.entry((shard, term)).or_insert(replica);
            if first != replica {
                inner.break_with(format!("{first} and {replica} both lead {shard} in {term}"));
            }
        });
    }

    /// State machine safety: all replicas apply the same entry at a position
    /// (Raft, figure 3).
    pub fn applied(&self, shard: ShardId, replica: ReplicaId, index: LogIndex, term: Term) {
        self.with(|inner| {
            let (first, by) = *inner.applied.entry((shard, index)).or_insert((term, replica));
            if first != term {
                inner.break_with(format!(
                    "{by} applied {shard} {index} of {first}, {replica} applied it of {term}"
                ));
            }
        });
    }

    /// Something happened that never may.
    pub fn broke(&self, what: String) {
        self.with(|inner| inner.break_with(what));
    }

    /// The first invariant broken, if any.
    pub fn broken(&self) -> Option<String> {
        self.with(|inner| inner.broken.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn break_with(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let invariants = Invariants::default();
        invariants.elected(ShardId(1), ReplicaId(1), Term(3));
        invariants.elected(ShardId(1), ReplicaId(1), Term(3));
        invariants.elected(ShardId(1), ReplicaId(2), Term(4));
        invariants.elected(ShardId(2), ReplicaId(5), Term(3));
        assert_eq!(invariants.broken(), None);
        invariants.elected(ShardId(1), ReplicaId(2), Term(3));
        assert!(invariants.broken().is_some());
    }

    #[test]
    fn different_entries_at_one_position_are_found() {
        let invariants = Invariants::default();
        invariants.applied(ShardId(1), ReplicaId(1), LogIndex(7), Term(3));
        invariants.applied(ShardId(1), ReplicaId(2), LogIndex(7), Term(3));
        assert_eq!(invariants.broken(), None);
        invariants.applied(ShardId(1), ReplicaId(3), LogIndex(7), Term(4));
        assert!(invariants.broken().is_some());
    }
}
