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
    ids::LeaseId,
    limits::{TRANSACTION_BYTES_MAX, TRANSACTION_KEYS_MAX, TRANSACTION_REPLY_BYTES_MAX},
    mvcc::{
        draft::{Draft, Stamp},
        overlay::Overlay,
        record::Record,
        version::{Hlc, Version},
    },
    ports::engine::{EngineError, View},
    request::Item,
    shard::{
        leases::Leases,
        range::{Gather, Range},
        reader::item,
        root::Root,
        transaction::{
            self, Compare, Keys, Put, StepResult, Target, Transacted, Transaction,
            TransactionError, item_bytes,
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
        if let Some(refusal) = refusal(&self.root, transaction) {
            return Ok(Outcome::Refused(refusal));
        }
        let stamp = self.stamp(point);
        let draft = Draft::new(self.overlay, self.view, stamp);
        let mut run = Run::new(transaction, draft, self.root.leases.clone());
        match run.all() {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => return Ok(Outcome::Refused(refusal)),
            Err(Halt::Engine(error)) => return Err(error),
        }
        let (succeeded, results) = (run.succeeded(0), Some(run.results));
        let changed = run.draft.changes() > 0;
        let version = self.commit(point, stamp, run.draft);
        Ok(Outcome::Transacted(Transacted { version, succeeded, changed, results }))
    }
}

/// What a transaction that changes nothing comes to, without an entry: on the newest state
/// of these, which must be one.
///
/// # Errors
/// Those of the store.
pub(in crate::shard) fn look(
    root: &Root,
    overlay: &Overlay,
    view: &dyn View,
    transaction: &Transaction,
) -> Result<Outcome, EngineError> {
    if let Some(refusal) = refusal(root, transaction) {
        return Ok(Outcome::Refused(refusal));
    }
    // Nothing is written under it.
    let stamp = Stamp { versions: root.versions, version: root.now(), other: 0 };
    let mut run = Run::new(transaction, Draft::new(overlay, view, stamp), root.leases.clone());
    match run.all() {
        Ok(()) => {}
        Err(Halt::Refused(refusal)) => return Ok(Outcome::Refused(refusal)),
        Err(Halt::Engine(error)) => return Err(error),
    }
    assert_eq!(run.draft.changes(), 0, "a transaction that changes keys goes by the log");
    let (succeeded, results) = (run.succeeded(0), Some(run.results));
    let version = root.now();
    Ok(Outcome::Transacted(Transacted { version, succeeded, changed: false, results }))
}

/// Why this transaction is not for this shard.
fn refusal(root: &Root, transaction: &Transaction) -> Option<Refusal> {
    if root.role == ShardRole::Catalog {
        return Some(Refusal::WrongKind);
    }
    if let Err(error) = transaction.check_form() {
        return Some(Refusal::Transaction(error));
    }
    let owned = transaction.lies_in(&root.descriptor.predicate);
    (!owned).then_some(Refusal::WrongShard)
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
    draft: Draft<'a>,
    leases: Leases,
    /// Which blocks run, and whether their compares hold.
    path: BTreeMap<u32, bool>,
    met: Met,
    results: Vec<StepResult>,
    result_bytes: usize,
}

impl<'a, 't> Run<'a, 't> {
    fn new(transaction: &'t Transaction, draft: Draft<'a>, leases: Leases) -> Self {
        Self {
            transaction,
            draft,
            leases,
            path: BTreeMap::new(),
            met: Met::default(),
            results: Vec::new(),
            result_bytes: 0,
        }
    }

    fn all(&mut self) -> Result<(), Halt> {
        self.decide()?;
        self.block(0)?;
        self.check_leases()
    }

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
                transaction::Step::Put(_)
                | transaction::Step::Delete { .. }
                | transaction::Step::Read(_) => None,
            }));
        }
        Ok(())
    }

    fn holds(&mut self, compare: &Compare) -> Result<bool, Halt> {
        let (mut found, mut holds, mut fits) = (false, true, true);
        let (from, to) = compare.keys.bounds();
        let met = &mut self.met;
        self.draft.scan(from, to, &mut |key, record| {
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
                transaction::Step::Put(put) => {
                    let put = self.put(put)?;
                    self.results.push(put);
                }
                transaction::Step::Delete { keys, previous } => {
                    let deleted = self.delete(keys, *previous)?;
                    self.results.push(deleted);
                }
                transaction::Step::Read(range) => {
                    let read = self.read(range)?;
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

    fn put(&mut self, put: &Put) -> Result<StepResult, Halt> {
        let Put { key, value, lease, previous } = put;
        let old = self.draft.get(key)?;
        if old.is_none() && (value.is_none() || lease.is_none()) {
            return Err(TransactionError::NoSuchKey(key.escape_ascii().to_string()).into());
        }
        let kept_lease = old.map_or(LeaseId(0), |old| old.head.lease);
        let shown = old.filter(|_| *previous).map(|old| item(key, &old, true));
        let kept_value = old.filter(|_| value.is_none()).map(|old| old.value.to_vec());
        let lease = lease.unwrap_or(kept_lease);
        if lease != LeaseId(0) {
            self.leases.get(lease).map_err(TransactionError::Lease)?;
        }
        self.count_reply(shown.as_slice())?;
        let value = value.as_ref().or(kept_value.as_ref()).map_or(&[][..], Vec::as_slice);
        self.draft.put(key, value, lease)?;
        Ok(StepResult::Put { previous: shown })
    }

    fn delete(&mut self, keys: &Keys, previous: bool) -> Result<StepResult, Halt> {
        let (mut found, mut shown) = (Vec::new(), Vec::new());
        let mut fits = true;
        let (from, to) = keys.bounds();
        let met = &mut self.met;
        self.draft.scan(from, to, &mut |key, record| {
            found.push(key.to_vec());
            shown.extend(previous.then(|| item(key, record, true)));
            fits = met.add(key, record);
            if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if !fits {
            return Err(TransactionError::TouchesTooMuch.into());
        }
        self.count_reply(&shown)?;
        let mut count = 0;
        for key in found {
            count += u32::from(self.draft.delete(&key)?);
        }
        Ok(StepResult::Deleted { count, previous: shown })
    }

    fn read(&mut self, range: &Range) -> Result<StepResult, Halt> {
        // One byte more than fits, so that what does not is noticed.
        let left = (TRANSACTION_REPLY_BYTES_MAX + 1).saturating_sub(self.result_bytes);
        // The order of all keys decides which are shown, but only those count.
        let bytes_max = if range.is_in_order() { left } else { usize::MAX };
        let mut gather = Gather::new(range, bytes_max);
        let mut fits = true;
        let (from, to) = range.keys.bounds();
        let met = &mut self.met;
        self.draft.scan(from, to, &mut |key, record| {
            let flow = gather.take(key, record);
            if flow.is_continue() {
                fits = met.add(key, record);
            }
            if fits { flow } else { ControlFlow::Break(()) }
        })?;
        if !fits {
            return Err(TransactionError::TouchesTooMuch.into());
        }
        let cut = gather.bytes() >= bytes_max;
        let result = gather.finish().map_err(|_| TransactionError::ReadsTooMuch)?;
        if cut && result.more && !range.is_full(result.items.len()) {
            return Err(TransactionError::ReadsTooMuch.into());
        }
        self.count_reply(&result.items)?;
        Ok(StepResult::Read(result))
    }

    /// Counts what is shown; it must fit an answer. As a page of a list does, that ends
    /// behind the item that fills it: what can be put can be shown, however large it is.
    fn count_reply(&mut self, shown: &[Item]) -> Result<(), Halt> {
        for item in shown {
            if self.result_bytes > TRANSACTION_REPLY_BYTES_MAX {
                return Err(TransactionError::ReadsTooMuch.into());
            }
            self.result_bytes += item_bytes(item);
        }
        Ok(())
    }

    /// No lease may get more keys than its end can delete in one step.
    fn check_leases(&mut self) -> Result<(), Halt> {
        for (lease, more) in self.draft.attached() {
            if *more > 0 {
                self.leases.check_room(*lease, *more).map_err(TransactionError::Lease)?;
            }
        }
        Ok(())
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
        Target::Changes(number) | Target::Lease(LeaseId(number)) => 0.cmp(number),
        Target::Created(version) | Target::Modified(version) => Version(0).cmp(version),
    };
    compare.is.holds(order)
}
