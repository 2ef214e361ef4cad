//! Building transactions by hand: a line for each thing that must hold and
//! each thing to do.
//!
//! ```
//! use cluster::{mvcc::version::Version, shard::transaction::{Compare, Step, Transaction}};
//!
//! let seen = Version(7);
//! let pay = Transaction::new()
//!     .when(Compare::modified("alice", seen))
//!     .then(Step::put("alice", "90"))
//!     .then(Step::put("bob", "110"))
//!     .otherwise(Step::get("alice"));
//! assert_eq!(pay.check(), Ok(()));
//! ```

use super::{Block, Compare, Keys, Put, Relation, Step, Target, Transaction};
use crate::{
    ids::LeaseId,
    mvcc::{layout::prefix_end, version::Version},
    shard::range::Range,
};

impl Transaction {
    /// One that compares nothing and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what must hold, beside what was added before.
    #[must_use]
    pub fn when(self, compare: Compare) -> Self {
        self.with_root(|root| root.compares.push(compare))
    }

    /// Adds a step to do if all of it holds.
    #[must_use]
    pub fn then(self, step: Step) -> Self {
        self.with_root(|root| root.then.push(step))
    }

    /// Adds a step to do if some of it does not hold.
    #[must_use]
    pub fn otherwise(self, step: Step) -> Self {
        self.with_root(|root| root.otherwise.push(step))
    }

    /// Adds a whole transaction to do if all of it holds.
    #[must_use]
    pub fn then_transact(mut self, inner: Self) -> Self {
        let nested = self.adopt(inner);
        self.then(nested)
    }

    /// Adds a whole transaction to do if some of it does not hold.
    #[must_use]
    pub fn otherwise_transact(mut self, inner: Self) -> Self {
        let nested = self.adopt(inner);
        self.otherwise(nested)
    }

    fn with_root(mut self, add: impl FnOnce(&mut Block)) -> Self {
        if let Some(root) = self.blocks.first_mut() {
            add(root);
        }
        self
    }

    /// Takes in another one's blocks; the step that does them.
    fn adopt(&mut self, inner: Self) -> Step {
        // A transaction of more blocks than a number counts is refused by its
        // number of steps; its places need not be right.
        let place = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        self.blocks.extend(inner.blocks.into_iter().map(|mut block| {
            for step in block.then.iter_mut().chain(&mut block.otherwise) {
                if let Step::Nested(child) = step {
                    *child = child.saturating_add(place);
                }
            }
            block
        }));
        Step::Nested(place)
    }
}

impl Keys {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let from = prefix.into();
        let to = prefix_end(&from).unwrap_or_default();
        Self::Range { from, to }
    }

    /// All keys in `from..to`.
    pub fn range(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        Self::Range { from: from.into(), to: to.into() }
    }
}

impl From<&str> for Keys {
    fn from(key: &str) -> Self {
        Self::One(key.into())
    }
}

impl From<Vec<u8>> for Keys {
    fn from(key: Vec<u8>) -> Self {
        Self::One(key)
    }
}

impl Compare {
    /// A condition in full.
    pub fn new(keys: impl Into<Keys>, is: Relation, target: Target) -> Self {
        Self { keys: keys.into(), is, target }
    }

    /// None of the keys is there.
    pub fn absent(keys: impl Into<Keys>) -> Self {
        Self::new(keys, Relation::Equal, Target::Changes(0))
    }

    /// The key is there.
    pub fn present(key: impl Into<Keys>) -> Self {
        Self::new(key, Relation::Greater, Target::Changes(0))
    }

    /// The value is this.
    pub fn value(keys: impl Into<Keys>, value: impl Into<Vec<u8>>) -> Self {
        Self::new(keys, Relation::Equal, Target::Value(value.into()))
    }

    /// The key was changed last by this version: nobody changed it since.
    pub fn modified(keys: impl Into<Keys>, version: Version) -> Self {
        Self::new(keys, Relation::Equal, Target::Modified(version))
    }
}

impl Put {
    /// Writes a value that hangs on no lease.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        let (key, value) = (key.into(), Some(value.into()));
        Self { key, value, lease: Some(LeaseId(0)), previous: false }
    }

    /// The same, hanging on a lease.
    #[must_use]
    pub fn under(self, lease: LeaseId) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// The same, telling what was there.
    #[must_use]
    pub fn showing_previous(self) -> Self {
        Self { previous: true, ..self }
    }
}

impl Step {
    /// Writes a value.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put(Put::new(key, value))
    }

    /// Deletes keys.
    pub fn delete(keys: impl Into<Keys>) -> Self {
        Self::Delete { keys: keys.into(), previous: false }
    }

    /// Reads keys with their values.
    pub fn get(keys: impl Into<Keys>) -> Self {
        Self::Read(Range::of(keys))
    }
}
