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

/// Whether `granted` together hold all of `wanted`.
pub(super) fn cover<'a>(granted: impl Iterator<Item = &'a Keys>, wanted: &Keys) -> bool {
    let (mut reach, end) = stretch(wanted);
    let mut granted: Vec<_> = granted.map(stretch).collect();
    granted.sort_unstable();
    for (from, to) in granted {
        if from > reach {
            return false;
        }
        match to {
            None => return true,
            Some(to) => reach = reach.max(to),
        }
        if end.as_ref().is_some_and(|end| reach >= *end) {
            return true;
        }
    }
    false
}

/// Keys as first one and first one that is not meant; none for no end. A range
/// of nothing counts as its first key: even that is nobody's without a grant.
fn stretch(keys: &Keys) -> (Vec<u8>, Option<Vec<u8>>) {
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
