//! What a role permits: reading or writing a key or a range of keys.
//!
//! Permissions add up: a range that no single one covers is covered by those
//! that join without a gap, whichever roles they come from.

use rkyv::{Archive, Deserialize, Serialize};

use crate::shard::transaction::Keys;

/// What may be done to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Access {
    /// Read them and watch them.
    Read,
    /// Write and delete them, unseen.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether who has this has `wanted`.
    pub fn includes(self, wanted: Self) -> bool {
        self == Self::ReadWrite || self == wanted
    }
}

/// Access to keys.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Permission {
    /// What may be done.
    pub access: Access,
    /// To which keys.
    pub keys: Keys,
}

/// Stretches of keys that some permissions hold together: in order, none touches
/// the next. Made once for all that is asked of them.
#[derive(Debug)]
pub(super) struct Covered(Vec<Stretch>);

/// First key, and the first one that is not meant; none for no end.
type Stretch = (Vec<u8>, Option<Vec<u8>>);

impl Covered {
    /// What `granted` hold together.
    pub(super) fn by<'a>(granted: impl Iterator<Item = &'a Keys>) -> Self {
        let mut granted: Vec<_> = granted.map(stretch).collect();
        granted.sort_unstable();
        let mut joined: Vec<Stretch> = Vec::new();
        for (from, to) in granted {
            match joined.last_mut() {
                Some((_, None)) => break,
                Some((_, Some(end))) if from <= *end => match to {
                    Some(to) => *end = to.max(std::mem::take(end)),
                    None => set_endless(&mut joined),
                },
                Some(_) | None => joined.push((from, to)),
            }
        }
        Self(joined)
    }

    /// Whether they hold all of `wanted`.
    pub(super) fn holds(&self, wanted: &Keys) -> bool {
        let (from, to) = stretch(wanted);
        let behind = self.0.partition_point(|(begin, _)| *begin <= from);
        let Some((_, end)) = behind.checked_sub(1).and_then(|place| self.0.get(place)) else {
            return false;
        };
        match (end, to) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(to)) => to <= *end,
        }
    }
}

fn set_endless(joined: &mut [Stretch]) {
    if let Some((_, end)) = joined.last_mut() {
        *end = None;
    }
}

/// Keys as first one and first one that is not meant; none for no end. A range
/// of nothing counts as its first key: even that is nobody's without a grant.
fn stretch(keys: &Keys) -> Stretch {
    let after = |key: &[u8]| [key, &[0]].concat();
    match keys {
        Keys::One(key) => (key.clone(), Some(after(key))),
        Keys::Range { from, to } => {
            // No key is empty: the smallest is a single zero.
            let from = if from.is_empty() { vec![0] } else { from.clone() };
            let to = (!to.is_empty()).then(|| to.clone().max(after(&from)));
            (from, to)
        }
    }
}
