//! What a transaction does to the state.
//!
//! First every block that will run is decided, on the state before the
//! transaction; then the steps run in order, gathering changes that take effect
//! together. Whatever is refused on the way leaves nothing behind.
//!
//! Cost is bounded by the entry: single keys by its number of steps, ranges by
//! [`TRANSACTION_KEYS_MAX`] and [`TRANSACTION_BYTES_MAX`], answers by
//! [`TRANSACTION_REPLY_BYTES_MAX`]. These three are part of what an entry
//! means: all replicas must refuse alike.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::{Outcome, Refusal, ShardRole, Step};
use crate::{
    limits::{
        LIST_PAGE_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_KEYS_MAX, TRANSACTION_REPLY_BYTES_MAX,
    },
    mvcc::{
        record::Record,
        transaction::Transaction as Staged,
        version::{Hlc, Version},
    },
    ports::engine::EngineError,
    shard::{
        reader::item,
        transaction::{
            self, Compare, Keys, StepResult, Target, Transacted, Transaction, TransactionError,
            item_bytes,
        },
    },
};

/// Why a transaction ends early.
enum Halt {
    Refused(Refusal),
    Engine(EngineError),
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<TransactionError> for Halt {
    fn from(error: TransactionError) -> Self {
        Self::Refused(Refusal::Transaction(error))
    }
}

impl Step<'_> {
    pub(super) fn transact(
        &mut self,
        point: Hlc,
        transaction: &Transaction,
    ) -> Result<Outcome, EngineError> {
        if let Some(refusal) = self.transaction_refusal(transaction) {
            return Ok(Outcome::Refused(refusal));
        }
        let stamp = self.stamp(point);
        let staged = Staged::new(self.overlay, self.view, stamp);
        let mut run = Run {
            transaction,
            staged,
            path: BTreeMap::new(),
            met: Met::default(),
            results: Vec::new(),
            result_bytes: 0,
        };
        match run.decide().and_then(|()| run.block(0)) {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => return Ok(Outcome::Refused(refusal)),
            Err(Halt::Engine(error)) => return Err(error),
        }
        let (succeeded, results) = (run.succeeded(0), Some(run.results));
        let staged = run.staged.finish();
        let changed = !staged.is_empty();
        let version = self.commit(point, stamp, staged);
        Ok(Outcome::Transacted(Transacted { version, succeeded, changed, results }))
    }

    /// Why this transaction is not for this shard.
    fn transaction_refusal(&self, transaction: &Transaction) -> Option<Refusal> {
        if self.root.role == ShardRole::Catalog {
            return Some(Refusal::WrongKind);
        }
        if let Err(error) = transaction.check_form() {
            return Some(Refusal::Transaction(error));
        }
        let owned = transaction.lies_in(&self.root.descriptor.predicate);
        (!owned).then_some(Refusal::WrongShard)
    }
}

/// What the ranges of a transaction have met so far.
#[derive(Default)]
struct Met {
    keys: usize,
    bytes: usize,
}

impl Met {
    /// Counts one key; whether it still fits.
    fn add(&mut self, key: &[u8], record: &Record<'_>) -> bool {
        self.keys += 1;
        self.bytes += key.len() + record.value.len();
        self.keys <= TRANSACTION_KEYS_MAX && self.bytes <= TRANSACTION_BYTES_MAX
    }
}

/// A transaction on its way.
struct Run<'a, 't> {
    transaction: &'t Transaction,
    staged: Staged<'a>,
    /// Which blocks run, and whether their compares hold.
    path: BTreeMap<u32, bool>,
    met: Met,
    results: Vec<StepResult>,
    result_bytes: usize,
}

impl Run<'_, '_> {
    fn succeeded(&self, block: u32) -> bool {
        self.path.get(&block).copied().unwrap_or(false)
    }

    /// Decides which blocks run. Blocks come after those that name them.
    fn decide(&mut self) -> Result<(), Halt> {
        let mut live = BTreeSet::from([0]);
        for (place, block) in (0..).zip(&self.transaction.blocks) {
            if !live.contains(&place) {
                continue;
            }
            let mut succeeded = true;
            for compare in &block.compares {
                succeeded = succeeded && self.holds(compare)?;
            }
            self.path.insert(place, succeeded);
            live.extend(block.branch(succeeded).iter().filter_map(|step| match step {
                transaction::Step::Nested(child) => Some(*child),
                transaction::Step::Put { .. }
                | transaction::Step::Delete(_)
                | transaction::Step::Read { .. } => None,
            }));
        }
        Ok(())
    }

    fn holds(&mut self, compare: &Compare) -> Result<bool, Halt> {
        let (mut found, mut holds, mut fits) = (false, true, true);
        let (from, to) = compare.keys.bounds();
        let met = &mut self.met;
        self.staged.scan(from, to, &mut |key, record| {
            found = true;
            fits = met.add(key, record);
            holds = compare.is.holds(order(record, &compare.target));
            if fits && holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if !fits {
            return Err(TransactionError::TouchesTooMuch.into());
        }
        Ok(if found { holds } else { holds_absent(compare) })
    }

    /// Runs the steps of a block. Its depth is bounded by its shape.
    fn block(&mut self, place: u32) -> Result<(), Halt> {
        let transaction = self.transaction;
        let block = usize::try_from(place).ok().and_then(|place| transaction.blocks.get(place));
        let block = block.ok_or(TransactionError::Malformed)?;
        for step in block.branch(self.succeeded(place)) {
            match step {
                transaction::Step::Put { key, value } => {
                    self.staged.put(key, value)?;
                    self.results.push(StepResult::Put);
                }
                transaction::Step::Delete(keys) => {
                    let deleted = self.delete(keys)?;
                    self.results.push(StepResult::Deleted(deleted));
                }
                transaction::Step::Read { keys, limit, heads_only } => {
                    let read = self.read(keys, *limit, *heads_only)?;
                    self.results.push(read);
                }
                transaction::Step::Nested(child) => self.nested(*child)?,
            }
        }
        Ok(())
    }

    fn nested(&mut self, child: u32) -> Result<(), Halt> {
        let place = self.results.len();
        let succeeded = self.succeeded(child);
        self.results.push(StepResult::Nested { succeeded, results: 0 });
        self.block(child)?;
        let inside = u32::try_from(self.results.len() - place - 1).unwrap_or(u32::MAX);
        if let Some(StepResult::Nested { results, .. }) = self.results.get_mut(place) {
            *results = inside;
        }
        Ok(())
    }

    fn delete(&mut self, keys: &Keys) -> Result<u32, Halt> {
        let mut found = Vec::new();
        let mut fits = true;
        let (from, to) = keys.bounds();
        let met = &mut self.met;
        self.staged.scan(from, to, &mut |key, record| {
            found.push(key.to_vec());
            fits = met.add(key, record);
            if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if !fits {
            return Err(TransactionError::TouchesTooMuch.into());
        }
        let mut deleted = 0;
        for key in found {
            deleted += u32::from(self.staged.delete(&key)?);
        }
        Ok(deleted)
    }

    fn read(&mut self, keys: &Keys, limit: u32, heads_only: bool) -> Result<StepResult, Halt> {
        let limit = match usize::try_from(limit).unwrap_or(usize::MAX) {
            0 => LIST_PAGE_MAX,
            limit => limit.min(LIST_PAGE_MAX),
        };
        let (mut items, mut more, mut fits) = (Vec::new(), false, true);
        let (from, to) = keys.bounds();
        let (met, bytes) = (&mut self.met, &mut self.result_bytes);
        self.staged.scan(from, to, &mut |key, record| {
            if items.len() == limit {
                more = true;
                return ControlFlow::Break(());
            }
            let item = item(key, record, !heads_only);
            *bytes += item_bytes(&item);
            fits = met.add(key, record) && *bytes <= TRANSACTION_REPLY_BYTES_MAX;
            items.push(item);
            if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if fits {
            Ok(StepResult::Read { items, more })
        } else if *bytes > TRANSACTION_REPLY_BYTES_MAX {
            Err(TransactionError::ReadsTooMuch.into())
        } else {
            Err(TransactionError::TouchesTooMuch.into())
        }
    }
}

/// How what a record says stands to the target.
fn order(record: &Record<'_>, target: &Target) -> Ordering {
    let head = &record.head;
    match target {
        Target::Value(value) => record.value.cmp(value),
        Target::Changes(changes) => head.changes.cmp(changes),
        Target::Created(version) => head.created.cmp(version),
        Target::Modified(version) => head.modified.cmp(version),
        Target::Lease(lease) => head.lease.cmp(lease),
    }
}

/// Whether a compare holds where there is no key at all.
fn holds_absent(compare: &Compare) -> bool {
    let order = match &compare.target {
        // What is not there has no value, not even an empty one.
        Target::Value(_) => return false,
        Target::Changes(number) | Target::Lease(number) => 0.cmp(number),
        Target::Created(version) | Target::Modified(version) => Version(0).cmp(version),
    };
    compare.is.holds(order)
}
