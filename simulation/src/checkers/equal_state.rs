//! Equal state: replicas that applied the same position hold the same data,
//! sessions and counters.
//!
//! Compared by logical hash, so it does not matter what lies in an overlay,
//! what in a store, and how far history was swept.
//! Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm" §5.3 (state machine safety); the bug catalogue's D6 and A6.

use std::collections::BTreeMap;

use actors::replica::apply::ReadHalf;
use cluster::ids::{LogIndex, ReplicaId, ShardId};

/// Positions remembered of a shard: two replicas may be seen at one position
/// at different times, and a copy shows what was pinned half a minute before.
const KEPT_MAX: usize = 64;

/// Hashes of states.
#[derive(Debug, Default)]
pub(super) struct EqualState {
    known: BTreeMap<ShardId, BTreeMap<LogIndex, (ReplicaId, u128)>>,
}

/// Replicas of a shard as they show themselves now.
pub(super) type Shown<'a> = [(ReplicaId, &'a ReadHalf)];

impl EqualState {
    /// Compares those that stand at one position; how many were.
    pub(super) fn compare(&mut self, shard: ShardId, shown: &Shown<'_>) -> Result<u64, String> {
        let mut compared = 0;
        for (replica, half) in shown {
            let index = half.reader.applied().0;
            let here = |(_, other): &&(ReplicaId, &ReadHalf)| other.reader.applied().0 == index;
            if !self.knows(shard, index) && shown.iter().filter(here).count() < 2 {
                continue;
            }
            compared += u64::from(self.see(shard, *replica, half)?);
        }
        Ok(compared)
    }

    /// Compares one replica with whoever was seen at its position, or will be; whether
    /// it could be read.
    pub(super) fn see(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        half: &ReadHalf,
    ) -> Result<bool, String> {
        // A state that was swept on meanwhile cannot be read any more.
        let view = half.reader.view(half.store.as_ref());
        let Some(hash) = view.ok().and_then(|view| half.reader.state_hash(&*view).ok()) else {
            return Ok(false);
        };
        self.note(shard, half.reader.applied().0, replica, hash)?;
        Ok(true)
    }

    /// Whether somebody was seen at this position.
    pub(super) fn knows(&self, shard: ShardId, index: LogIndex) -> bool {
        self.known.get(&shard).is_some_and(|known| known.contains_key(&index))
    }

    fn note(
        &mut self,
        shard: ShardId,
        index: LogIndex,
        replica: ReplicaId,
        hash: u128,
    ) -> Result<(), String> {
        let known = self.known.entry(shard).or_default();
        let (first, expected) = *known.entry(index).or_insert((replica, hash));
        while known.len() > KEPT_MAX {
            known.pop_first();
        }
        if hash == expected {
            return Ok(());
        }
        Err(format!("{first} and {replica} of {shard} differ in state at {index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_data_at_one_position_is_found_and_at_another_it_is_not() {
        let mut checker = EqualState::default();
        let note = |checker: &mut EqualState, index, replica, hash| {
            checker.note(ShardId(1), LogIndex(index), ReplicaId(replica), hash)
        };
        assert_eq!(note(&mut checker, 5, 1, 70), Ok(()));
        assert_eq!(note(&mut checker, 5, 2, 70), Ok(()));
        assert_eq!(note(&mut checker, 6, 2, 71), Ok(()));
        assert!(note(&mut checker, 6, 3, 70).is_err());
    }
}
