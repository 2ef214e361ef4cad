//! Where entries lie: slots that are filled once, in order, and never emptied.
//!
//! Chunks of [`CHUNK_SLOTS`] hang on levels that double, so that nothing moves
//! when it grows and a reader needs no copy of a directory to find its way.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;

use super::order::Tower;

/// Slots made at once: 7 KiB, what a quiet shard pays for its first entry.
const CHUNK_SLOTS: usize = 64;
/// Levels of 1, 2, 4, … chunks: more than there are numbers of 32 bits.
const LEVELS: usize = 27;

/// One entry: a key with one of the values it had. What a search reads lies
/// together at its beginning.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    /// Empty but for the first entry of a key.
    pub(super) key: Bytes,
    /// Of the first entry of a key: its place in the order.
    pub(super) tower: Tower,
    pub(super) hash: u32,
    /// Of the first entry of a key: its newest one.
    pub(super) newest: AtomicU32,
    /// The entry of the same key before this one.
    pub(super) older: Option<u32>,
    pub(super) value: Option<Bytes>,
}

type Chunk = Box<[OnceLock<Slot>]>;

/// All entries of a map.
#[derive(Debug)]
pub(super) struct Slots {
    levels: [OnceLock<Box<[OnceLock<Chunk>]>>; LEVELS],
}

impl Default for Slots {
    fn default() -> Self {
        Self { levels: [const { OnceLock::new() }; LEVELS] }
    }
}

impl Slots {
    /// The entry of a number; none if there is none yet.
    pub(super) fn get(&self, id: u32) -> Option<&Slot> {
        let (level, chunk, place) = position(id);
        self.levels.get(level)?.get()?.get(chunk)?.get()?.get(place)?.get()
    }

    /// Fills a slot; gives the entry back if somebody else has.
    pub(super) fn fill(&self, id: u32, slot: Slot) -> Result<(), Box<Slot>> {
        let (level, chunk, place) = position(id);
        let chunks = self.levels[level].get_or_init(|| empty(1 << level));
        let slots = chunks[chunk].get_or_init(|| empty(CHUNK_SLOTS));
        slots[place].set(slot).map_err(Box::new)
    }
}

fn empty<T>(count: usize) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

/// Level, chunk within it, slot within that.
fn position(id: u32) -> (usize, usize, usize) {
    let id = id as usize;
    let chunk = id / CHUNK_SLOTS + 1;
    let level = chunk.ilog2() as usize;
    (level, chunk - (1 << level), id % CHUNK_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own_and_the_last_one_has_one() {
        let places: std::collections::BTreeSet<_> = (0..1_000).map(position).collect();
        assert_eq!(places.len(), 1_000);
        let (level, chunk, _) = position(u32::MAX);
        assert!(level < LEVELS && chunk < 1 << level);
    }
}
