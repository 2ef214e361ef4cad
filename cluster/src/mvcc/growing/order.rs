//! The keys in their order: a skip list whose links only ever gain a member.
//!
//! One writer links, from the lowest level up; whoever reads meanwhile sees a
//! list with the new key or without it. How high a key stands follows from its
//! entry's number, so the same history gives the same list. The way back on the
//! lowest level is the writer's alone: beside a key it knows it finds a place
//! without a search.
//!
//! Source: Pugh, *Skip Lists: A Probabilistic Alternative to Balanced Trees* (1990).

use std::sync::atomic::{AtomicU32, Ordering};

use super::slots::Slots;

/// One key in four stands one level higher: 4¹² keys, 16 million.
const HEIGHT_MAX: usize = 12;
/// Levels that lie in the tower itself: fifteen keys in sixteen need no more.
const LOW: usize = 2;
/// Nothing follows.
const END: u32 = u32::MAX;
/// Levels on which what comes before a key is looked for by going back from it, and
/// the most steps of that: on average four for each level, for three keys in four
/// stand lower than the next one.
const CLIMB_LEVELS: usize = 3;
const CLIMB_STEPS: usize = 64;

/// What follows a key on each level it stands on.
#[derive(Debug)]
pub(super) struct Tower {
    low: [AtomicU32; LOW],
    /// What comes before it on the lowest level.
    before: AtomicU32,
    high: Box<[AtomicU32]>,
}

/// What a new key comes right after: another, or the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside(Option<u32>);

/// What a new key comes after, by level; none is the beginning.
pub(super) type Before = [Option<u32>; HEIGHT_MAX];

impl Tower {
    /// Stands nowhere: that of an entry whose key is in the order already.
    pub(super) fn none() -> Self {
        let end = || AtomicU32::new(END);
        Self { low: [end(), end()], before: end(), high: Box::default() }
    }

    fn of_height(height: usize) -> Self {
        let high = (LOW..height).map(|_| AtomicU32::new(END)).collect();
        Self { high, ..Self::none() }
    }

    fn link(&self, level: usize) -> Option<&AtomicU32> {
        self.low.get(level).or_else(|| self.high.get(level - LOW))
    }

    pub(super) fn next(&self, level: usize) -> Option<u32> {
        let next = self.link(level)?.load(Ordering::Acquire);
        (next != END).then_some(next)
    }

    fn before(&self) -> Option<u32> {
        let before = self.before.load(Ordering::Relaxed);
        (before != END).then_some(before)
    }

    fn set(&self, level: usize, next: Option<u32>) {
        if let Some(link) = self.link(level) {
            link.store(next.unwrap_or(END), Ordering::Release);
        }
    }
}

/// The order of a map's keys.
#[derive(Debug)]
pub(super) struct Order {
    /// Before all keys; the last of them comes before it.
    head: Tower,
}

impl Default for Order {
    fn default() -> Self {
        Self { head: Tower::of_height(HEIGHT_MAX) }
    }
}

impl Order {
    /// The last key before `key` on each level.
    pub(super) fn before(&self, slots: &Slots, key: &[u8]) -> Before {
        let mut before = [None; HEIGHT_MAX];
        let (mut at, mut tower) = (None, &self.head);
        // Known not to come before the key: not looked at again one level below.
        let mut wall = None;
        for level in (0..HEIGHT_MAX).rev() {
            while let Some(next) = tower.next(level).filter(|next| Some(*next) != wall)
                && let Some(slot) = slots.get(next)
            {
                if slot.key >= key {
                    wall = Some(next);
                    break;
                }
                (at, tower) = (Some(next), &slot.tower);
            }
            before[level] = at;
        }
        before
    }

    /// What a new entry's key comes after, on each level it will stand on: by a look
    /// behind the last key and before the one it may lie beside, or else by a search.
    pub(super) fn place(&self, slots: &Slots, id: u32, key: &[u8], near: Option<u32>) -> Before {
        let beside = self.beside(slots, key, near);
        let climbed = beside.and_then(|before| Self::climb(slots, before, height(id)));
        climbed.unwrap_or_else(|| self.before(slots, key))
    }

    /// What comes before a key, if it comes behind all or right before `near`.
    pub(super) fn beside(&self, slots: &Slots, key: &[u8], near: Option<u32>) -> Option<Beside> {
        self.behind_all(slots, key).or_else(|| Self::right_before(slots, key, near?))
    }

    fn behind_all(&self, slots: &Slots, key: &[u8]) -> Option<Beside> {
        let last = self.head.before()?;
        (slots.get(last)?.key < key).then_some(Beside(Some(last)))
    }

    fn right_before(slots: &Slots, key: &[u8], near: u32) -> Option<Beside> {
        let near = slots.get(near)?;
        let before = near.tower.before();
        let is_between = near.key > key
            && before.is_none_or(|before| slots.get(before).is_some_and(|slot| slot.key < key));
        is_between.then_some(Beside(before))
    }

    fn climb(slots: &Slots, Beside(mut before): Beside, levels: usize) -> Option<Before> {
        let (mut all, mut steps) = ([None; HEIGHT_MAX], 0);
        if levels > CLIMB_LEVELS {
            return None;
        }
        for (level, place) in all.iter_mut().enumerate().take(levels) {
            while let Some(id) = before.filter(|id| height(*id) <= level) {
                before = slots.get(id)?.tower.before();
                steps += 1;
                if steps > CLIMB_STEPS {
                    return None;
                }
            }
            *place = before;
        }
        Some(all)
    }

    /// The tower of a new entry between those it was looked for.
    pub(super) fn tower(&self, slots: &Slots, id: u32, before: &Before) -> Tower {
        let height = height(id);
        let tower = Tower::of_height(height);
        for (level, before) in before.iter().enumerate().take(height) {
            tower.set(level, self.at(slots, *before).and_then(|tower| tower.next(level)));
        }
        tower.before.store(before[0].unwrap_or(END), Ordering::Relaxed);
        tower
    }

    /// Shows a new entry to everybody; its slot is filled.
    pub(super) fn link(&self, slots: &Slots, id: u32, before: &Before) {
        if let Some(next) = self.at(slots, self.next(slots, before[0])) {
            next.before.store(id, Ordering::Relaxed);
        }
        for (level, before) in before.iter().enumerate().take(height(id)) {
            if let Some(tower) = self.at(slots, *before) {
                tower.set(level, Some(id));
            }
        }
    }

    /// The key after `at`, in order; after none, the first.
    pub(super) fn next(&self, slots: &Slots, at: Option<u32>) -> Option<u32> {
        self.at(slots, at)?.next(0)
    }

    fn at<'a>(&'a self, slots: &'a Slots, at: Option<u32>) -> Option<&'a Tower> {
        match at {
            None => Some(&self.head),
            Some(id) => slots.get(id).map(|slot| &slot.tower),
        }
    }
}

/// How many levels an entry stands on: one, and one more with a chance of a
/// quarter each, drawn from its number (splitmix64).
fn height(id: u32) -> usize {
    let mut mixed = u64::from(id).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed.trailing_zeros() as usize / 2 + 1).min(HEIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_in_four_stands_higher() {
        let high = |level| (0..65_536).filter(|id| height(*id) > level).count();
        for (level, expected) in [(0, 65_536), (1, 16_384), (2, 4_096), (3, 1_024)] {
            assert!(high(level).abs_diff(expected) <= expected / 10, "{level}: {}", high(level));
        }
    }
}
