//! Transactions inside one shard: compare, then do one thing or another, all
//! at one version.
//!
//! A transaction is a tree of [`Block`]s, kept flat: a step names its nested
//! block by a number above its own block's. So bytes from the wire are read
//! without recursion, however deep a stranger nests, and every walk ends.
//!
//! Meaning, as etcd's, so that its door translates and decides nothing:
//! - all compares, the nested ones too, see the state *before* the transaction;
//! - steps run in order and see what the steps before them wrote;
//! - a compare over a range holds if every key in it satisfies it; where there
//!   is no key, version numbers compare as zero and no value compares at all;
//! - no branch writes a key twice, nor writes what it deletes.
//!
//! Source: etcd's KV API (`Txn`); what is checked when is argued in
//! `cluster/docs/decisions/2026-11-25-transactions.md`.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

mod build;
mod check;

pub use check::check_keys;

#[cfg(test)]
mod tests;

use std::{cmp::Ordering, ops::Bound};

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    leases::LeaseError,
    range::{Range, RangeResult},
};
use crate::{
    ids::LeaseId,
    limits::{
        KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_DEPTH_MAX, TRANSACTION_KEYS_MAX,
        TRANSACTION_OPS_MAX, TRANSACTION_REPLY_BYTES_MAX, VALUE_BYTES_MAX,
    },
    mvcc::version::Version,
    request::Item,
};

/// A transaction: its root block first, each other one named by one step.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Transaction {
    /// The blocks.
    pub blocks: Vec<Block>,
}

/// If all compares hold, the steps of `then`, else those of `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Block {
    /// What must hold; nothing holds always.
    pub compares: Vec<Compare>,
    /// Steps if it does.
    pub then: Vec<Step>,
    /// Steps if it does not.
    pub otherwise: Vec<Step>,
}

/// The keys a compare or a step speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Keys {
    /// This one.
    One(Vec<u8>),
    /// All in `from..to`; an empty `to` means to the end.
    Range {
        /// First key.
        from: Vec<u8>,
        /// First key that is not meant; empty for none.
        to: Vec<u8>,
    },
}

/// A condition on keys.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Compare {
    /// Which keys.
    pub keys: Keys,
    /// How what is there relates to the target.
    pub is: Relation,
    /// What it is compared with.
    pub target: Target,
}

/// How two things relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They differ.
    NotEqual,
    /// What is there is less than the target.
    Less,
    /// What is there is greater than the target.
    Greater,
}

/// What a compare looks at, and with what it compares it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Target {
    /// The value.
    Value(Vec<u8>),
    /// Changes since the key was created; zero if it is not there. etcd calls
    /// it the key's version.
    Changes(u64),
    /// The version that created the key; zero if it is not there.
    Created(Version),
    /// The version that changed the key last; zero if it is not there.
    Modified(Version),
    /// The lease the key hangs on; zero for none.
    Lease(LeaseId),
}

/// One step of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Step {
    /// Writes a key.
    Put(Put),
    /// Deletes keys; none there is no error.
    Delete {
        /// Which.
        keys: Keys,
        /// Whether to show what they were.
        previous: bool,
    },
    /// Reads keys, as of now only.
    Read(Range),
    /// Does another block, by its place.
    Nested(u32),
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Vec<u8>,
    /// The value; none to leave it as it is, which a key that is not there refuses.
    pub value: Option<Vec<u8>>,
    /// The lease it shall hang on, zero for none; none to leave it as it is,
    /// which a key that is not there refuses.
    pub lease: Option<LeaseId>,
    /// Whether to show what it was.
    pub previous: bool,
}

/// What one step came to.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StepResult {
    /// Written.
    Put {
        /// What it was, if that was asked and it was there.
        previous: Option<Item>,
    },
    /// Deleted.
    Deleted {
        /// How many.
        count: u32,
        /// What they were, in order, if that was asked.
        previous: Vec<Item>,
    },
    /// Read.
    Read(RangeResult),
    /// A nested block was done.
    Nested {
        /// Whether its compares held.
        succeeded: bool,
        /// So many of the results that follow are those of its steps.
        results: u32,
    },
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Transacted {
    /// The version it has: that of its changes, or the newest it saw.
    pub version: Version,
    /// Whether the compares of the root block held.
    pub succeeded: bool,
    /// Whether it changed a key.
    pub changed: bool,
    /// What its steps came to, in the order they ran. None in the answer to a
    /// late retry, when a shard full of unread answers has dropped them: what
    /// is said above holds, only what was read is gone.
    pub results: Option<Vec<StepResult>>,
}

/// Why a transaction is none, or is too large.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum TransactionError {
    /// Its blocks are no tree.
    #[error("the transaction's blocks do not form a tree")]
    Malformed,
    /// Too many blocks inside each other.
    #[error("transactions are nested at most {TRANSACTION_DEPTH_MAX} deep")]
    TooDeep,
    /// More than one log entry takes.
    #[error("a transaction takes at most {TRANSACTION_OPS_MAX} compares and steps in all, not {0}")]
    TooManyOps(u64),
    /// A key is empty or too long.
    #[error("a key takes 1 to {KEY_BYTES_MAX} bytes, not {0}")]
    InvalidKey(u64),
    /// A range that ends before it begins.
    #[error("a range of keys ends before it begins")]
    InvalidRange,
    /// Its values are too large.
    #[error("the values of one transaction take at most {VALUE_BYTES_MAX} bytes (4 MiB), not {0}")]
    TooLarge(u64),
    /// A branch writes a key twice, or writes what it deletes.
    #[error("duplicate key given in txn request: one branch changes the key {0} twice")]
    DuplicateKey(String),
    /// A read of the past: versions that are gone would part replicas.
    #[error("a transaction reads the present: read an old version by itself")]
    ReadsThePast,
    /// A key whose value or lease is to stay as it is, and that is not there.
    #[error("key not found: {0} has no value or lease that could stay")]
    NoSuchKey(String),
    /// A lease that a put names.
    #[error(transparent)]
    Lease(LeaseError),
    /// Seen at apply: nothing was changed.
    #[error(
        "what a transaction reads takes at most {TRANSACTION_REPLY_BYTES_MAX} bytes (1 MiB) before its last key: set a limit, or leave values out"
    )]
    ReadsTooMuch,
    /// Seen at apply: nothing was changed.
    #[error(
        "the ranges of one transaction meet at most {TRANSACTION_KEYS_MAX} keys of {TRANSACTION_BYTES_MAX} bytes in all: use smaller ranges"
    )]
    TouchesTooMuch,
}

impl Default for Transaction {
    fn default() -> Self {
        Self { blocks: vec![Block::default()] }
    }
}

impl Block {
    /// The steps of one branch.
    pub fn branch(&self, succeeded: bool) -> &[Step] {
        if succeeded { &self.then } else { &self.otherwise }
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.then.iter().chain(&self.otherwise)
    }
}

impl Keys {
    /// Where they lie.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::One(key) => (Bound::Included(key), Bound::Included(key)),
            Self::Range { from, to } => {
                let to = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(&to[..]) };
                (Bound::Included(from), to)
            }
        }
    }

    /// Whether a key is among them.
    pub fn contain(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key == one.as_slice(),
            Self::Range { from, to } => {
                key >= from.as_slice() && (to.is_empty() || key < to.as_slice())
            }
        }
    }

    /// Bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::One(key) => key.len(),
            Self::Range { from, to } => from.len() + to.len(),
        }
    }
}

impl Relation {
    /// Whether what is there, ordered so against the target, satisfies it.
    pub fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::NotEqual => found.is_ne(),
            Self::Less => found.is_lt(),
            Self::Greater => found.is_gt(),
        }
    }
}

impl Transacted {
    /// About the bytes its results take in memory and in a stored record.
    pub fn result_bytes(&self) -> usize {
        self.results.iter().flatten().map(StepResult::bytes).sum()
    }
}

impl StepResult {
    fn bytes(&self) -> usize {
        let items = match self {
            Self::Read(result) => &result.items[..],
            Self::Put { previous } => previous.as_slice(),
            Self::Deleted { previous, .. } => &previous[..],
            Self::Nested { .. } => &[],
        };
        size_of::<Self>() + items.iter().map(item_bytes).sum::<usize>()
    }
}

/// About the bytes an item takes in an answer.
pub fn item_bytes(item: &Item) -> usize {
    size_of::<Item>() + item.key.len() + item.value.len()
}
