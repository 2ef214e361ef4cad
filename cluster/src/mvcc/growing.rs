//! An ordered map that only grows, and whose clones are points of it.
//!
//! Apply writes such a map with every command and shows it to readers with every
//! batch. In a persistent tree each write then copies a path of nodes that the
//! readers hold, and counts references on both sides of it; a quarter of the
//! processor time of apply went there. Here nothing is ever copied or moved: an
//! entry takes the next slot ([`slots`]), a key is found by its hash ([`table`])
//! and has a place in the order ([`order`]). A clone is the same map and how many
//! entries it had: who holds it passes over all later ones.
//!
//! A new key's place costs most: a search from level to level meets memory that no
//! cache holds. Versions of a key come right before its last one, and changes behind
//! all others; maps of these are told so ([`GrowingMap::by_place`]), look there first,
//! and need no hash of whole keys, for each is written once.
//!
//! Invariants:
//! - a clone shows what was there when it was made, whatever is written since;
//! - one clone writes at a time: one that finds the slot behind its entries taken
//!   goes on in a copy of its own (nobody does, but it would be right);
//! - links are stored after what they lead to, and loaded before it is read;
//! - what it holds is given back as a whole, when the last clone goes. So it suits
//!   a layer of an overlay, which lives from one flush to the next, and whose
//!   overwritten values the history holds anyway.
//!
//! Source: the append-only log with a chain per key of FASTER (Chandramouli et
//! al., SIGMOD 2018); for the order see there.

mod order;
mod slots;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;

use self::{
    order::{Order, Tower},
    slots::{Slot, Slots},
    table::{Tables, Told},
};

/// The map, at one point.
#[derive(Clone, Default)]
pub(super) struct GrowingMap {
    /// None while it is empty: most maps of most shards are.
    shared: Option<Arc<Shared>>,
    /// How many entries it has: a number stands for 100 bytes and more, so that
    /// 32 bits are enough for any memory.
    len: u32,
    found: Found,
}

/// How a key is found.
#[derive(Clone, Copy, Debug, Default)]
enum Found {
    /// By its hash.
    #[default]
    Hash,
    /// In the order, beside the newest key that differs from it in so many bytes of
    /// its end only.
    Place { suffix: usize },
}

impl Found {
    /// Only to find keys: nothing that anybody sees follows from it.
    fn hash(self, key: &[u8]) -> u32 {
        let hashed = match self {
            Self::Hash => key,
            Self::Place { suffix } => &key[..key.len().saturating_sub(suffix)],
        };
        let hash = xxhash_rust::xxh3::xxh3_64(hashed);
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        let half = hash as u32;
        half
    }
}

#[derive(Debug, Default)]
struct Shared {
    slots: Slots,
    tables: Tables,
    order: Order,
}

/// An entry as it is seen from a point: a key, and its value or that it is deleted.
pub(super) type Shown<'a> = (&'a Bytes, &'a Option<Bytes>);

impl GrowingMap {
    /// A map of keys that are written once each, and mostly behind all others or right
    /// before the last one that differs in no more than the `suffix` bytes of its end.
    pub(super) fn by_place(suffix: usize) -> Self {
        Self { found: Found::Place { suffix }, ..Self::default() }
    }

    /// Writes a key; what the value it replaced had of bytes, if there was one.
    pub(super) fn insert(&mut self, key: &Bytes, value: Option<Bytes>) -> Option<usize> {
        let shared = Arc::clone(self.shared.get_or_insert_default());
        match shared.write(self.found, self.len, key, value) {
            Ok(replaced) => {
                self.len += 1;
                replaced
            }
            Err(taken) => {
                let mut own = Self { found: self.found, ..Self::default() };
                for (key, value) in self.iter() {
                    own.insert(key, value.clone());
                }
                *self = own;
                self.insert(key, taken.value)
            }
        }
    }

    /// What is written under a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let shared = self.shared.as_deref()?;
        let first = match self.found {
            Found::Hash => shared.first(self.len, self.found.hash(key), key),
            Found::Place { .. } => shared.first_in_order(key),
        }?;
        shared.shown(self.len, first).map(|(_, value)| value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Shown<'_>> {
        self.range((Bound::Unbounded, Bound::Unbounded))
    }

    /// The entries between the bounds, in order.
    pub(super) fn range<'a>(
        &'a self,
        (from, to): (Bound<&[u8]>, Bound<&'a [u8]>),
    ) -> impl Iterator<Item = Shown<'a>> {
        let shared = self.shared.as_deref();
        let mut next = shared.and_then(|shared| shared.seek(from));
        let ids = std::iter::from_fn(move || {
            let (shared, id) = (shared?, next?);
            next = shared.order.next(&shared.slots, Some(id));
            Some((shared, id))
        });
        let within = move |(key, _): &Shown<'a>| match to {
            Bound::Included(to) => *key <= to,
            Bound::Excluded(to) => *key < to,
            Bound::Unbounded => true,
        };
        ids.filter_map(|(shared, id)| shared.shown(self.len, id)).take_while(within)
    }
}

impl fmt::Debug for GrowingMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Shared {
    /// Writes an entry behind `id` others; bytes of the value it replaced, or the
    /// entry if its slot is taken.
    fn write(
        &self,
        found: Found,
        id: u32,
        key: &Bytes,
        value: Option<Bytes>,
    ) -> Result<Option<usize>, Box<Slot>> {
        let hash = found.hash(key);
        let (known, near) = match found {
            Found::Hash => (self.first(id, hash, key), None),
            Found::Place { .. } => (None, self.tables.newest(&self.slots, id, hash)),
        };
        let replaced = match known.and_then(|known| self.slots.get(known)) {
            Some(first) => Some(self.write_again(id, first, value)?),
            None => self.write_in_order(id, (hash, key), value, near)?,
        };
        self.tables.take(&self.slots, id);
        Ok(replaced)
    }

    /// The same where only the order tells whether there is such a key.
    fn write_in_order(
        &self,
        id: u32,
        (hash, key): (u32, &Bytes),
        value: Option<Bytes>,
        near: Option<u32>,
    ) -> Result<Option<usize>, Box<Slot>> {
        let before = self.order.place(&self.slots, id, key, near);
        let next = self.order.next(&self.slots, before[0]).and_then(|next| self.slots.get(next));
        if let Some(same) = next.filter(|next| next.key == key) {
            return self.write_again(id, same, value).map(Some);
        }
        let tower = self.order.tower(&self.slots, id, &before);
        let (key, newest) = (key.clone(), AtomicU32::new(id));
        self.slots.fill(id, Slot { key, tower, hash, newest, older: None, value })?;
        self.order.link(&self.slots, id, &before);
        Ok(None)
    }

    fn write_again(&self, id: u32, first: &Slot, value: Option<Bytes>) -> Result<usize, Box<Slot>> {
        let older = first.newest.load(Ordering::Acquire);
        // Its key is that of the first.
        let (key, tower, newest) = (Bytes::new(), Tower::none(), AtomicU32::new(id));
        let slot = Slot { key, tower, hash: first.hash, newest, older: Some(older), value };
        self.slots.fill(id, slot)?;
        first.newest.store(id, Ordering::Release);
        let replaced = self.slots.get(older).and_then(|older| older.value.as_ref());
        Ok(replaced.map_or(0, Bytes::len))
    }

    /// A key's first entry. It may be later than the point asked for.
    fn first(&self, len: u32, hash: u32, key: &[u8]) -> Option<u32> {
        match self.tables.first(&self.slots, len, hash, key) {
            Told::First(first) => Some(first),
            Told::Nothing => None,
            Told::TooLong => self.first_in_order(key),
        }
    }

    fn first_in_order(&self, key: &[u8]) -> Option<u32> {
        let at = self.seek(Bound::Included(key))?;
        self.slots.get(at).filter(|slot| slot.key == key).map(|_| at)
    }

    /// The first key from a bound on.
    fn seek(&self, from: Bound<&[u8]>) -> Option<u32> {
        let from_key = |key| {
            let [before, ..] = self.order.before(&self.slots, key);
            self.order.next(&self.slots, before)
        };
        match from {
            Bound::Unbounded => self.order.next(&self.slots, None),
            Bound::Included(key) => from_key(key),
            Bound::Excluded(key) => {
                let at = from_key(key)?;
                let same = self.slots.get(at).is_some_and(|slot| slot.key == key);
                if same { self.order.next(&self.slots, Some(at)) } else { Some(at) }
            }
        }
    }

    /// What the key of a first entry has at the point of `len` entries.
    fn shown(&self, len: u32, first: u32) -> Option<Shown<'_>> {
        if first >= len {
            return None;
        }
        let key = &self.slots.get(first)?.key;
        let mut id = self.slots.get(first)?.newest.load(Ordering::Acquire);
        while id >= len {
            id = self.slots.get(id)?.older?;
        }
        Some((key, &self.slots.get(id)?.value))
    }
}
