//! A key's first entry by its hash: chains that only ever grow at their head.
//!
//! A table serves as many entries as it has places. When a map outgrows it, a
//! table of twice the size is made; who reads an older point of the map goes on
//! with the older one.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use super::slots::Slots;

/// Entries the first table serves.
const FIRST: usize = 64;
/// Tables of 64, 128, … entries: more than there are numbers of 32 bits.
const TABLES: usize = 27;
/// Links of a chain that are followed. A chain is longer if somebody chose keys
/// for that; then the order is asked.
const LINKS_MAX: usize = 16;
/// The chain ends.
const END: u32 = u32::MAX;

/// What a chain tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// This is the key's first entry.
    First(u32),
    /// The key has none.
    Nothing,
    /// The chain is too long to tell.
    TooLong,
}

#[derive(Debug)]
struct Table {
    heads: Box<[AtomicU32]>,
    next: Box<[AtomicU32]>,
}

/// The tables of a map.
#[derive(Debug)]
pub(super) struct Tables {
    tables: [OnceLock<Table>; TABLES],
}

impl Default for Tables {
    fn default() -> Self {
        Self { tables: [const { OnceLock::new() }; TABLES] }
    }
}

impl Tables {
    /// Looks for a key among the first `len` entries; later ones may be found too.
    pub(super) fn first(&self, slots: &Slots, len: u32, hash: u32, key: &[u8]) -> Told {
        let Some(table) = self.tables[number(len)].get() else { return Told::Nothing };
        let mut link = table.head(hash).map_or(END, |head| head.load(Ordering::Acquire));
        for _ in 0..LINKS_MAX {
            // No entry has the number of an end.
            let Some(slot) = slots.get(link) else { return Told::Nothing };
            if slot.hash == hash && slot.key == key {
                return Told::First(link);
            }
            link = table.next.get(link as usize).map_or(END, |next| next.load(Ordering::Acquire));
        }
        Told::TooLong
    }

    /// The newest key with this hash, as far as its chain is followed.
    pub(super) fn newest(&self, slots: &Slots, len: u32, hash: u32) -> Option<u32> {
        let table = self.tables[number(len)].get()?;
        let mut link = table.head(hash)?.load(Ordering::Acquire);
        for _ in 0..LINKS_MAX {
            if slots.get(link)?.hash == hash {
                return Some(link);
            }
            link = table.next.get(link as usize)?.load(Ordering::Acquire);
        }
        None
    }

    /// Takes in the last entry, whose slot is filled: `id`.
    pub(super) fn take(&self, slots: &Slots, id: u32) {
        let number = number(id + 1);
        let table = self.tables[number].get_or_init(|| {
            let table = Table::new(FIRST << number);
            (0..id).for_each(|id| table.link(slots, id));
            table
        });
        table.link(slots, id);
    }
}

impl Table {
    fn new(capacity: usize) -> Self {
        let ends = || (0..capacity).map(|_| AtomicU32::new(END)).collect();
        Self { heads: ends(), next: ends() }
    }

    /// The capacity is a power of two.
    fn head(&self, hash: u32) -> Option<&AtomicU32> {
        self.heads.get(hash as usize & (self.heads.len() - 1))
    }

    /// Adds an entry to its chain if it is the first of its key.
    fn link(&self, slots: &Slots, id: u32) {
        let Some(slot) = slots.get(id).filter(|slot| slot.older.is_none()) else { return };
        if let (Some(head), Some(next)) = (self.head(slot.hash), self.next.get(id as usize)) {
            next.store(head.load(Ordering::Acquire), Ordering::Release);
            head.store(id, Ordering::Release);
        }
    }
}

/// Which table serves a map of `len` entries.
fn number(len: u32) -> usize {
    (len as usize).div_ceil(FIRST).next_power_of_two().ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_serves_as_many_entries_as_it_has_places() {
        let numbers = [0, 1, 64, 65, 128, 129, 256, 257].map(number);
        assert_eq!(numbers, [0, 0, 0, 1, 1, 2, 2, 3]);
        assert!(number(u32::MAX) < TABLES);
    }
}
