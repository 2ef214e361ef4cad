//! Who may write to a replica's store.
//!
//! Flushes run beside the replica's lane, so one may still be on its way when
//! its apply half is no longer the one that counts: the actor failed and was
//! started again, a snapshot brought another store, the replica is destroyed.
//! A late flush would put newer data under a machine that has not applied it
//! yet, and the same entries would then take effect twice. So each opening
//! takes a new turn, waits for a commit under way, and whoever has an older
//! turn commits nothing more. The gate belongs to the replica and outlives its
//! actors.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The turns at one replica's store.
///
/// A lock, and one that is held during a commit: two engine threads must not
/// write for one replica, and the second may only read what the first left.
#[derive(Debug, Default)]
pub struct StoreGate(Mutex<u64>);

/// The right to write, until somebody takes the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(u64);

impl StoreGate {
    fn lock(&self) -> MutexGuard<'_, u64> {
        // A panic in a commit leaves the number whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all earlier turns; waits for a commit under way.
    pub(super) fn enter(&self) -> Turn {
        let mut newest = self.lock();
        *newest += 1;
        Turn(*newest)
    }

    /// Runs `commit` if `turn` is still the newest.
    pub(super) fn commit<T>(&self, turn: Turn, commit: impl FnOnce() -> T) -> Option<T> {
        let newest = self.lock();
        (*newest == turn.0).then(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_when_the_next_begins() {
        let gate = StoreGate::default();
        let first = gate.enter();
        assert_eq!(gate.commit(first, || 1), Some(1));
        let second = gate.enter();
        assert_eq!(gate.commit(first, || 1), None);
        assert_eq!(gate.commit(second, || 2), Some(2));
    }
}
