//! How many keys a shard holds, and their bytes: counted as they change, so that
//! nobody has to walk over them.

use rkyv::{Archive, Deserialize, Serialize};

/// Keys that are there now, and the bytes of them and their values. History is not
/// counted, nor what a store needs besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// What one command adds to a tally, or takes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TallyChange {
    keys: i64,
    bytes: i64,
}

impl TallyChange {
    /// A key of so many bytes goes from a value to another, of so many bytes each;
    /// none where there is none.
    pub fn note(&mut self, key_bytes: usize, before: Option<usize>, after: Option<usize>) {
        let bytes = |value: Option<usize>| value.map_or(0, |value| signed(key_bytes + value));
        self.keys += i64::from(after.is_some()) - i64::from(before.is_some());
        self.bytes += bytes(after) - bytes(before);
    }
}

impl Tally {
    /// The tally after a command.
    #[must_use]
    pub fn after(self, change: TallyChange) -> Self {
        debug_assert!(self.keys.checked_add_signed(change.keys).is_some(), "fewer than no keys");
        Self {
            keys: self.keys.saturating_add_signed(change.keys),
            bytes: self.bytes.saturating_add_signed(change.bytes),
        }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            keys: sum.keys.saturating_add(one.keys),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_follows_what_happens_to_a_key() {
        let mut change = TallyChange::default();
        change.note(3, None, Some(10));
        assert_eq!(Tally::default().after(change), Tally { keys: 1, bytes: 13 });
        change.note(3, Some(10), Some(4));
        assert_eq!(Tally::default().after(change), Tally { keys: 1, bytes: 7 });
        change.note(3, Some(4), None);
        assert_eq!(change, TallyChange::default());
    }
}
