//! What is refused before a transaction is proposed, by clients and by the
//! leader alike; apply checks the form alone, so that limits may change.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound,
};

use super::{Block, Compare, Keys, Step, Target, Transaction, TransactionError};
use crate::{
    limits::{KEY_BYTES_MAX, TRANSACTION_DEPTH_MAX, TRANSACTION_OPS_MAX, VALUE_BYTES_MAX},
    shard::{descriptor::Predicate, range::Range},
};

impl Transaction {
    /// Judges all that can be judged without a shard.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), TransactionError> {
        let ops = self.ops();
        if ops > TRANSACTION_OPS_MAX {
            return Err(TransactionError::TooManyOps(ops as u64));
        }
        self.check_form()?;
        let bytes = self.value_bytes();
        if bytes > VALUE_BYTES_MAX {
            return Err(TransactionError::TooLarge(bytes as u64));
        }
        self.check_duplicates()
    }

    /// What apply must be able to rely on: blocks that are a tree of a bearable
    /// depth, and keys that a store takes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_form(&self) -> Result<(), TransactionError> {
        self.check_tree()?;
        self.puts().try_for_each(|key| check_key(key, 1))?;
        self.keys().try_for_each(check_keys)?;
        let past = |step: &Step| matches!(step, Step::Read(range) if range.at.is_some());
        if self.steps().any(past) { Err(TransactionError::ReadsThePast) } else { Ok(()) }
    }

    /// Whether all its keys are a shard's.
    pub fn lies_in(&self, predicate: &Predicate) -> bool {
        let owned = |keys: &Keys| match keys {
            Keys::One(key) => predicate.owns(key),
            Keys::Range { from, to } => predicate.covers(from, to),
        };
        self.puts().all(|key| predicate.owns(key)) && self.keys().all(owned)
    }

    fn check_tree(&self) -> Result<(), TransactionError> {
        let malformed = || TransactionError::Malformed;
        // Depth of each block still to come; zero while no step has named it.
        let mut depths: VecDeque<u32> = vec![0; self.blocks.len()].into();
        *depths.front_mut().ok_or_else(malformed)? = 1;
        for (place, block) in self.blocks.iter().enumerate() {
            let depth = depths.pop_front().filter(|depth| *depth > 0).ok_or_else(malformed)?;
            if depth > TRANSACTION_DEPTH_MAX {
                return Err(TransactionError::TooDeep);
            }
            for child in block.children() {
                let later = child.checked_sub(place + 1).ok_or_else(malformed)?;
                let known = depths.get_mut(later).filter(|depth| **depth == 0);
                *known.ok_or_else(malformed)? = depth + 1;
            }
        }
        Ok(())
    }

    /// Compares and steps in all.
    pub fn ops(&self) -> usize {
        let ops = |block: &Block| block.compares.len() + block.then.len() + block.otherwise.len();
        self.blocks.iter().map(ops).sum()
    }

    /// All keys and ranges it compares, deletes or reads.
    pub fn keys(&self) -> impl Iterator<Item = &Keys> {
        self.compares().map(|compare| &compare.keys).chain(self.steps().filter_map(Step::keys))
    }

    /// The keys it may put.
    pub fn puts(&self) -> impl Iterator<Item = &[u8]> {
        self.steps().filter_map(Step::put_key)
    }

    /// Whether it may change anything.
    pub fn writes(&self) -> bool {
        self.steps().any(|step| match step {
            Step::Put(_) | Step::Delete { .. } => true,
            Step::Read(_) | Step::Nested(_) => false,
        })
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        let keys: usize = self.keys().map(Keys::bytes).sum();
        keys + self.value_bytes()
    }

    fn value_bytes(&self) -> usize {
        let compared = |compare: &Compare| match &compare.target {
            Target::Value(value) => value.len(),
            Target::Changes(_) | Target::Created(_) | Target::Modified(_) | Target::Lease(_) => 0,
        };
        let put = |step: &Step| match step {
            Step::Put(put) => put.value.as_ref().map_or(0, Vec::len),
            Step::Delete { .. } | Step::Read(_) | Step::Nested(_) => 0,
        };
        let compared: usize = self.compares().map(compared).sum();
        compared + self.steps().map(put).sum::<usize>()
    }

    fn compares(&self) -> impl Iterator<Item = &Compare> {
        self.blocks.iter().flat_map(|block| &block.compares)
    }

    /// All its steps, of both branches of each block.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.blocks.iter().flat_map(Block::steps)
    }

    /// No branch puts a key twice or puts what it deletes, whatever its nested
    /// blocks decide. Children come after their parents, so going backwards
    /// each block's changes are known before its parent asks for them.
    fn check_duplicates(&self) -> Result<(), TransactionError> {
        let mut known: VecDeque<Changes<'_>> = VecDeque::new();
        for (place, block) in self.blocks.iter().enumerate().rev() {
            let mut both = Changes::default();
            for steps in [&block.then, &block.otherwise] {
                let mut branch = Changes::default();
                for step in steps {
                    branch.join(match step {
                        Step::Put(put) => Changes::put(&put.key),
                        Step::Delete { keys, .. } => Changes::delete(keys),
                        Step::Read(_) => continue,
                        Step::Nested(child) => {
                            let later = usize::try_from(*child).ok();
                            let later = later.and_then(|child| child.checked_sub(place + 1));
                            let nested = later.and_then(|later| known.get_mut(later));
                            std::mem::take(nested.ok_or(TransactionError::Malformed)?)
                        }
                    })?;
                }
                // Only one branch runs, so between them nothing is twice.
                both.puts.extend(branch.puts);
                both.deletes.extend(branch.deletes);
            }
            known.push_front(both);
        }
        Ok(())
    }
}

/// What a branch may change.
#[derive(Default)]
struct Changes<'t> {
    puts: BTreeSet<&'t [u8]>,
    deletes: Vec<&'t Keys>,
}

impl<'t> Changes<'t> {
    fn put(key: &'t [u8]) -> Self {
        Self { puts: [key].into(), deletes: Vec::new() }
    }

    fn delete(keys: &'t Keys) -> Self {
        Self { puts: BTreeSet::new(), deletes: vec![keys] }
    }

    /// Takes in what the same branch may change too.
    fn join(&mut self, other: Self) -> Result<(), TransactionError> {
        let twice = other.puts.iter().find(|key| self.puts.contains(*key)).copied();
        let deleted =
            || self.puts_under(&other.deletes).or_else(|| other.puts_under(&self.deletes));
        if let Some(key) = twice.or_else(deleted) {
            return Err(TransactionError::DuplicateKey(key.escape_ascii().to_string()));
        }
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        Ok(())
    }

    fn puts_under(&self, deletes: &[&Keys]) -> Option<&'t [u8]> {
        let first = |keys: &&Keys| self.puts.range::<[u8], _>(keys.bounds()).next().copied();
        deletes.iter().find_map(first)
    }
}

impl Block {
    fn children(&self) -> impl Iterator<Item = usize> {
        self.steps().filter_map(|step| match step {
            Step::Nested(child) => Some(usize::try_from(*child).unwrap_or(usize::MAX)),
            Step::Put(_) | Step::Delete { .. } | Step::Read(_) => None,
        })
    }
}

impl Step {
    fn keys(&self) -> Option<&Keys> {
        match self {
            Self::Delete { keys, .. } | Self::Read(Range { keys, .. }) => Some(keys),
            Self::Put(_) | Self::Nested(_) => None,
        }
    }

    fn put_key(&self) -> Option<&[u8]> {
        match self {
            Self::Put(put) => Some(&put.key),
            Self::Delete { .. } | Self::Read(_) | Self::Nested(_) => None,
        }
    }
}

fn check_key(key: &[u8], bytes_min: usize) -> Result<(), TransactionError> {
    if (bytes_min..=KEY_BYTES_MAX).contains(&key.len()) {
        Ok(())
    } else {
        Err(TransactionError::InvalidKey(key.len() as u64))
    }
}

/// Judges the form of a range of keys.
///
/// # Errors
/// If a key is too long, or the range ends before it begins.
pub fn check_keys(keys: &Keys) -> Result<(), TransactionError> {
    match keys {
        Keys::One(key) => check_key(key, 1),
        Keys::Range { from, to } => {
            check_key(from, 0)?;
            check_key(to, 0)?;
            match keys.bounds() {
                (_, Bound::Excluded(to)) if to < from.as_slice() => {
                    Err(TransactionError::InvalidRange)
                }
                (_, Bound::Excluded(_) | Bound::Included(_) | Bound::Unbounded) => Ok(()),
            }
        }
    }
}
