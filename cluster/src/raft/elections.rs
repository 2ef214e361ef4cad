//! Election timeouts from a seed.
//!
//! raft-rs draws a new timeout from the thread's generator inside every reset.
//! Simulation needs the same seed to give the same elections, so each draw is
//! replaced: whenever term or role moved since the last look, a timeout is
//! drawn here; otherwise the one drawn before is put back.
//!
//! Invariant: after [`Elections::settle`] raft-rs holds a number of ours.

use raft::{Raft, StateRole, Storage};

/// Weyl sequence with a finalizer: small, and the same on every machine and in
/// every release, which the standard generators do not promise.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators".
#[derive(Clone, Debug)]
pub(super) struct SplitMix(u64);

impl SplitMix {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }
}

/// The source of this replica's timeouts.
#[derive(Debug)]
pub(super) struct Elections {
    rng: SplitMix,
    ticks_min: usize,
    seen: Option<(u64, StateRole)>,
    drawn: usize,
}

impl Elections {
    pub(super) fn new(seed: u64, ticks_min: usize) -> Self {
        Self { rng: SplitMix::new(seed), ticks_min, seen: None, drawn: ticks_min }
    }

    /// Replaces what raft-rs drew. Must follow every call that can reset it.
    pub(super) fn settle<T: Storage>(&mut self, raft: &mut Raft<T>) {
        let now = (raft.term, raft.state);
        if self.seen != Some(now) {
            self.seen = Some(now);
            self.redraw(raft);
        } else if raft.randomized_election_timeout() != self.drawn {
            raft.set_randomized_election_timeout(self.drawn);
        }
    }

    /// Draws anew: for a replica that wakes with others at the same moment.
    pub(super) fn redraw<T: Storage>(&mut self, raft: &mut Raft<T>) {
        self.drawn = self.ticks_min + self.rng.below(self.ticks_min);
        raft.set_randomized_election_timeout(self.drawn);
    }
}
