//! Watches: the changes of some keys after a place, in their order.
//!
//! A watch is a *place* and nothing else. Whoever watches asks for what comes
//! after its place and is told the next one; what happened lies in the tree
//! `changes` until it is compacted. So nothing is buffered for a reader that is
//! slow, nothing is lost with a server, and any replica of the shard may be asked
//! next: one that is behind answers later, never differently.
//!
//! Only whoever waits for something that has not happened yet is remembered, in
//! the [`Hub`]: which keys, and whom to wake. It costs [`WATCHER_BYTES`] and its
//! keys, and it holds no event.
//!
//! Invariants (A1 of the bug catalogue):
//! - events come in the order of version and sub-version, each once, none left
//!   out: a place is exact to the change, so an answer may be cut anywhere;
//! - what was compacted is refused by name, never skipped;
//! - the place only moves over changes that were looked at, so a place without
//!   events is a progress that can be relied on;
//! - a place in the future waits and is never taken back to the present.
//!
//! Source: etcd's watch API; its lost, doubled and early events.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use rkyv::{Archive, Deserialize, Serialize};

use super::transaction::{Keys, item_bytes};
use crate::{
    mvcc::{layout::read_change_key, version::Version},
    request::Item,
    units::Instant,
};

/// About what one waiting watcher takes in memory beside its keys: three entries
/// of ordered maps, the asker's channel and its deadline.
pub const WATCHER_BYTES: usize = 512;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Watch {
    /// Which keys.
    pub keys: Keys,
    /// Whether writes matter.
    pub puts: bool,
    /// Whether deletes matter.
    pub deletes: bool,
    /// Whether to tell what was there before.
    pub previous: bool,
}

/// A place between two changes of a shard.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
pub struct Place {
    /// The version of the last change before it.
    pub version: Version,
    /// That change's place within its version; the highest number for all of it.
    pub sub: u32,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as it is from then on; of one that was deleted only the key and
    /// the version.
    pub item: Item,
    /// Its place within its version.
    pub sub: u32,
    /// What was there before, if that was asked. Its value is left out if both
    /// are too large for one answer; it can be read at the version before.
    pub previous: Option<Item>,
}

/// Part of what happened.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Events {
    /// What happened after the place asked for, in order.
    pub events: Vec<Event>,
    /// All of it up to here: the place to ask after next.
    pub upto: Place,
    /// Whether more has happened already.
    pub more: bool,
    /// The newest version when this was read.
    pub now: Version,
}

impl Event {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { version: self.item.modified, sub: self.sub }
    }

    /// About the bytes of its items, in memory and in a message.
    pub fn bytes(&self) -> usize {
        item_bytes(&self.item) + self.previous.as_ref().map_or(0, item_bytes)
    }
}

impl Watch {
    /// All changes of these keys.
    pub fn of(keys: impl Into<Keys>) -> Self {
        Self { keys: keys.into(), puts: true, deletes: true, previous: false }
    }

    /// The same, with what was there before.
    #[must_use]
    pub fn with_previous(self) -> Self {
        Self { previous: true, ..self }
    }

    /// Whether a change matters.
    pub fn wants(&self, key: &[u8], kind: EventKind) -> bool {
        let kind = match kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        };
        kind && self.keys.contain(key)
    }

    /// Bytes one that waits takes.
    pub fn bytes(&self) -> usize {
        WATCHER_BYTES + 2 * self.keys.bytes()
    }
}

impl Place {
    /// After all changes of a version.
    pub fn after(version: Version) -> Self {
        Self { version, sub: u32::MAX }
    }

    /// Before all changes of a version: a watch that begins there sees them.
    pub fn before(version: Version) -> Self {
        Self::after(Version(version.0.saturating_sub(1)))
    }

    /// Whether its version was seen whole.
    pub fn is_whole(self) -> bool {
        self.sub == u32::MAX
    }
}

/// Who waits for changes of one shard, and for which. `T` is whom to wake.
///
/// The hub learns what was applied from the places of the changes, in order. It
/// wakes whoever waits for one of their keys; what happened they read themselves,
/// so being woken for nothing costs a look and changes nothing.
#[derive(Debug)]
pub struct Hub<T> {
    last: u64,
    waiting: BTreeMap<u64, Waiting<T>>,
    /// Who waits for one key.
    by_key: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    /// Who waits for a range of keys, by its beginning. A change looks at all
    /// that begin before its key.
    by_range: BTreeSet<(Vec<u8>, u64)>,
    by_end: BTreeSet<(Instant, u64)>,
    /// Everything up to this version was told.
    seen: Version,
}

#[derive(Debug)]
struct Waiting<T> {
    keys: Keys,
    ends: Instant,
    whom: T,
}

impl<T> Default for Hub<T> {
    fn default() -> Self {
        Self {
            last: 0,
            waiting: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_range: BTreeSet::new(),
            by_end: BTreeSet::new(),
            seen: Version(0),
        }
    }
}

impl<T> Hub<T> {
    /// Remembers who has seen all up to `upto` and waits for more until `ends`.
    ///
    /// # Errors
    /// Gives `whom` back if more was told already: look again.
    pub fn wait(&mut self, keys: &Keys, upto: Version, ends: Instant, whom: T) -> Result<(), T> {
        if upto < self.seen {
            return Err(whom);
        }
        self.last += 1;
        let id = self.last;
        match keys {
            Keys::One(key) => {
                self.by_key.entry(key.clone()).or_default().insert(id);
            }
            Keys::Range { from, .. } => {
                self.by_range.insert((from.clone(), id));
            }
        }
        self.by_end.insert((ends, id));
        self.waiting.insert(id, Waiting { keys: keys.clone(), ends, whom });
        Ok(())
    }

    /// Changes up to a version were applied; `changes` are their places in the
    /// changes tree, none if nobody noted them. Whoever must look.
    pub fn applied(&mut self, upto: Version, changes: Option<&[impl AsRef<[u8]>]>) -> Vec<T> {
        self.seen = self.seen.max(upto);
        let Some(changes) = changes else { return self.drain() };
        let mut woken = BTreeSet::new();
        for (_, _, key) in changes.iter().filter_map(|place| read_change_key(place.as_ref())) {
            woken.extend(self.by_key.get(key).into_iter().flatten());
            let upto = (Bound::Unbounded, Bound::Included((key.to_vec(), u64::MAX)));
            let begun = self.by_range.range(upto).map(|(_, id)| *id);
            woken.extend(begun.filter(|id| {
                self.waiting.get(id).is_some_and(|waiting| waiting.keys.contain(key))
            }));
        }
        woken.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Everybody, for what is here may have changed in any way.
    pub fn drain(&mut self) -> Vec<T> {
        let ids: Vec<u64> = self.waiting.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Who has waited long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        let over = self.by_end.iter().take_while(|(ends, _)| *ends <= now);
        let ids: Vec<u64> = over.map(|(_, id)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Forgets whom nobody waits for.
    pub fn retain(&mut self, waits: impl Fn(&T) -> bool) {
        let gone = self.waiting.iter().filter(|(_, waiting)| !waits(&waiting.whom));
        let ids: Vec<u64> = gone.map(|(id, _)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// When the first of them has waited long enough.
    pub fn first_end(&self) -> Option<Instant> {
        self.by_end.first().map(|(ends, _)| *ends)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn remove(&mut self, id: u64) -> Option<T> {
        let Waiting { keys, ends, whom } = self.waiting.remove(&id)?;
        match keys {
            Keys::One(key) => {
                if let Some(ids) = self.by_key.get_mut(&key) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
            Keys::Range { from, .. } => {
                self.by_range.remove(&(from, id));
            }
        }
        self.by_end.remove(&(ends, id));
        Some(whom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::layout::change_key;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn places(keys: &[&str]) -> Vec<Vec<u8>> {
        keys.iter().map(|key| change_key(Version(9), 0, key.as_bytes())).collect()
    }

    fn woken(hub: &mut Hub<u32>, keys: &[&str]) -> Vec<u32> {
        hub.applied(Version(9), Some(&places(keys)))
    }

    #[test]
    fn whoever_waits_for_a_changed_key_is_woken_once_and_nobody_else() {
        let mut hub = Hub::default();
        for (whom, keys) in [
            (1, Keys::from("a")),
            (2, Keys::from("b")),
            (3, Keys::prefix("a")),
            (4, Keys::range("b", "d")),
            (5, Keys::range("", "")),
        ] {
            hub.wait(&keys, Version(8), at(100), whom).unwrap();
        }
        assert_eq!(woken(&mut hub, &["ab", "ac"]), [3, 5]);
        assert_eq!(woken(&mut hub, &["c"]), [4]);
        assert_eq!(woken(&mut hub, &["x"]), [0; 0]);
        assert_eq!(woken(&mut hub, &["a", "b"]), [1, 2]);
        assert!(hub.is_empty() && hub.by_key.is_empty() && hub.by_range.is_empty());
    }

    #[test]
    fn whoever_looked_before_the_last_change_was_told_must_look_again() {
        let mut hub = Hub::default();
        hub.applied(Version(9), Some(&places(&["a"])));
        assert_eq!(hub.wait(&"a".into(), Version(8), at(1), 7), Err(7));
        assert_eq!(hub.wait(&"a".into(), Version(9), at(1), 7), Ok(()));
        assert_eq!(hub.applied(Version(10), None::<&[Vec<u8>]>), [7], "nobody noted the keys");
    }

    #[test]
    fn waiting_ends_in_the_order_of_deadlines_and_askers_that_left_are_forgotten() {
        let mut hub = Hub::default();
        for (whom, ms) in [(1, 30), (2, 10), (3, 20)] {
            hub.wait(&"a".into(), Version(0), at(ms), whom).unwrap();
        }
        assert_eq!(hub.first_end(), Some(at(10)));
        assert_eq!(hub.expire(at(20)), [2, 3]);
        hub.retain(|whom| *whom != 1);
        assert_eq!((hub.len(), hub.first_end()), (0, None));
    }
}
