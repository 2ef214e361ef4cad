//! What requests to a key space mean, said once more.
//!
//! It shares the product's words (what is asked, what is answered) and none of its
//! sense: what a range shows, whether a compare holds and what a step does are
//! written here anew, slow and plain.

use std::{cmp::Ordering, collections::BTreeMap, rc::Rc};

use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::Item,
    shard::{
        command::Op,
        range::{Range, RangeResult, Show, SortBy, Span},
        transaction::{
            Compare, Keys, Put, Relation, Step, StepResult, Target, Transacted, Transaction,
            TransactionError,
        },
    },
};
use rpds::RedBlackTreeMap;

use super::{Answer, Call, reads_the_past};

pub(super) type Rows = BTreeMap<Vec<u8>, Item>;

/// A key space at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    revision: Version,
    /// What was there at each revision.
    past: RedBlackTreeMap<Version, Rc<Rows>>,
    /// What lies before it was let go of.
    compacted: Version,
    /// A name of all changes, in their order.
    chain: u128,
}

impl Space {
    pub(super) fn empty(revision: Version) -> Self {
        let past = RedBlackTreeMap::new().insert(revision, Rc::default());
        Self { revision, past, compacted: Version(0), chain: 0 }
    }

    /// The version that the next change makes.
    pub(super) fn next(&self) -> Version {
        Version(self.revision.0 + 1)
    }

    /// The version of now.
    pub(super) fn now(&self) -> Version {
        self.revision
    }

    /// What is there now.
    pub(super) fn rows(&self) -> Rc<Rows> {
        self.at(self.revision)
    }

    pub(super) fn mark(&self) -> (u128, Version) {
        (self.chain, self.compacted)
    }

    fn at(&self, version: Version) -> Rc<Rows> {
        let known = self.past.range(..=version).next_back();
        known.map(|(_, rows)| rows.clone()).unwrap_or_default()
    }

    /// What is there after a call, if this was its answer; if it has none, only if it
    /// changes something. `name` is the change's.
    pub(super) fn step(&self, call: &Call, answer: Option<&Answer>, name: usize) -> Option<Self> {
        match (call, answer) {
            (Call::Compact(version), Some(Answer::Compacted)) => {
                self.without(self.compacted.max(*version))
            }
            // Whoever is told that history is gone may be the first to hear of it. Of a
            // compaction a leader may say so that is none any more, and knows less.
            (Call::Compact(asked), Some(Answer::Gone(upto))) if asked <= upto => {
                self.without(self.compacted.max(*upto))
            }
            (Call::Range(Range { at: Some(asked), .. }), Some(Answer::Gone(upto)))
                if asked < upto && *upto >= self.compacted =>
            {
                self.without(*upto)
            }
            (_, Some(answer)) => {
                let (space, expected) = self.answer(call, name);
                agrees(&expected, answer).then_some(space)
            }
            (_, None) => Some(self.answer(call, name).0).filter(|space| space.chain != self.chain),
        }
    }

    /// The same without the history before a version, unless that lies in the future.
    fn without(&self, compacted: Version) -> Option<Self> {
        (compacted <= self.revision).then(|| Self { compacted, ..self.clone() })
    }

    /// What a call comes to.
    pub(super) fn answer(&self, call: &Call, name: usize) -> (Self, Answer) {
        let now = self.rows();
        match call {
            Call::Get(key) => (self.clone(), Answer::Item(now.get(key.as_bytes()).cloned())),
            Call::Range(range) => (self.clone(), self.show(range)),
            Call::Compact(version) => (
                self.clone(),
                if *version > self.revision { Answer::Future } else { Answer::Compacted },
            ),
            Call::Write(ops) => {
                let mut change = Change::of(&now, self.next());
                let mut deleted = 0;
                for op in ops {
                    match op {
                        Op::Put { key, value } => change.put(key, value.clone(), LeaseId(0)),
                        Op::Delete { key } => deleted += u32::from(change.delete(key).is_some()),
                    }
                }
                let space = self.after(change, name);
                let version = space.revision;
                (space, Answer::Written { version, deleted })
            }
            Call::DeleteRange(keys) => {
                let mut change = Change::of(&now, self.next());
                let previous = change.delete_all(keys);
                let space = self.after(change, name);
                let (version, count) = (space.revision, count_of(&previous));
                (space, Answer::Deleted { version, count, previous })
            }
            Call::Transact(transaction) => self.transact(&now, transaction, name),
        }
    }

    fn show(&self, range: &Range) -> Answer {
        let at = range.at.unwrap_or(self.revision);
        if at > self.revision {
            return Answer::Future;
        }
        if at < self.compacted {
            return Answer::Gone(self.compacted);
        }
        Answer::Range { result: show(&self.at(at), range), at, now: self.revision }
    }

    fn transact(&self, now: &Rows, transaction: &Transaction, name: usize) -> (Self, Answer) {
        if reads_the_past(transaction) {
            return (self.clone(), Answer::Refused(TransactionError::ReadsThePast));
        }
        let mut run =
            Run { now, transaction, change: Change::of(now, self.next()), results: vec![] };
        let succeeded = match run.block(0) {
            Ok(succeeded) => succeeded,
            Err(refused) => return (self.clone(), Answer::Refused(refused)),
        };
        let (changed, results) = (run.change.is_any, Some(run.results));
        let space = self.after(run.change, name);
        let version = space.revision;
        (space, Answer::Transacted(Transacted { version, succeeded, changed, results }))
    }

    fn after(&self, change: Change, name: usize) -> Self {
        if !change.is_any {
            return self.clone();
        }
        let chain = [&self.chain.to_le_bytes()[..], &name.to_le_bytes()].concat();
        Self {
            revision: change.version,
            past: self.past.insert(change.version, Rc::new(change.rows)),
            compacted: self.compacted,
            chain: xxhash_rust::xxh3::xxh3_128(&chain),
        }
    }

    /// For people: what is here, and what a call comes to.
    pub(super) fn expects(&self, call: &Call) -> String {
        let rows: Vec<String> = self.rows().values().map(super::show::item).collect();
        let (revision, compacted) = (self.revision, self.compacted);
        let (_, answer) = self.answer(call, 0);
        format!(
            "at {revision}, compacted at {compacted}, where {} would answer {answer}",
            rows.join(" ")
        )
    }
}

/// Whether what was answered is what should be. A late retry of a transaction may hear
/// less of it.
fn agrees(expected: &Answer, answer: &Answer) -> bool {
    match (expected, answer) {
        (Answer::Transacted(expected), Answer::Transacted(told)) if told.results.is_none() => {
            Transacted { results: None, ..expected.clone() } == *told
        }
        _ => expected == answer,
    }
}

fn count_of(items: &[Item]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// Rows on their way to a version.
struct Change {
    rows: Rows,
    version: Version,
    is_any: bool,
}

impl Change {
    fn of(rows: &Rows, version: Version) -> Self {
        Self { rows: rows.clone(), version, is_any: false }
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, lease: LeaseId) {
        let old = self.rows.get(key);
        let item = Item {
            key: key.to_vec(),
            value_bytes: value.len() as u64,
            value,
            created: old.map_or(self.version, |old| old.created),
            modified: self.version,
            changes: old.map_or(1, |old| old.changes + 1),
            modified_ms: 0,
            lease,
        };
        self.rows.insert(key.to_vec(), item);
        self.is_any = true;
    }

    fn delete(&mut self, key: &[u8]) -> Option<Item> {
        let old = self.rows.remove(key);
        self.is_any |= old.is_some();
        old
    }

    fn delete_all(&mut self, keys: &Keys) -> Vec<Item> {
        let all: Vec<Vec<u8>> = self.rows.keys().filter(|key| names(keys, key)).cloned().collect();
        all.iter().filter_map(|key| self.delete(key)).collect()
    }
}

/// A transaction on its way.
struct Run<'a> {
    /// What was there before it: compares see nothing else.
    now: &'a Rows,
    transaction: &'a Transaction,
    change: Change,
    results: Vec<StepResult>,
}

impl Run<'_> {
    /// Runs a block; whether its compares held.
    fn block(&mut self, place: usize) -> Result<bool, TransactionError> {
        let transaction = self.transaction;
        let block = transaction.blocks.get(place).ok_or(TransactionError::Malformed)?;
        let succeeded = block.compares.iter().all(|compare| holds(self.now, compare));
        for step in if succeeded { &block.then } else { &block.otherwise } {
            match step {
                Step::Put(put) => self.put(put)?,
                Step::Delete { keys, previous } => {
                    let gone = self.change.delete_all(keys);
                    let count = count_of(&gone);
                    let previous = if *previous { gone } else { Vec::new() };
                    self.results.push(StepResult::Deleted { count, previous });
                }
                Step::Read(range) => {
                    self.results.push(StepResult::Read(show(&self.change.rows, range)));
                }
                Step::Nested(child) => {
                    let at = self.results.len();
                    self.results.push(StepResult::Nested { succeeded: false, results: 0 });
                    let child = usize::try_from(*child).map_err(|_| TransactionError::Malformed)?;
                    let succeeded = self.block(child)?;
                    let inside = self.results.len() - at - 1;
                    let results = u32::try_from(inside).unwrap_or(u32::MAX);
                    self.results[at] = StepResult::Nested { succeeded, results };
                }
            }
        }
        Ok(succeeded)
    }

    fn put(&mut self, put: &Put) -> Result<(), TransactionError> {
        let old = self.change.rows.get(&put.key).cloned();
        let absent = || TransactionError::NoSuchKey(put.key.escape_ascii().to_string());
        let kept =
            |wanted: bool| if wanted { old.clone().ok_or_else(absent).map(Some) } else { Ok(None) };
        let value = kept(put.value.is_none())?.map(|old| old.value);
        let lease = kept(put.lease.is_none())?.map(|old| old.lease);
        let value = put.value.clone().or(value).unwrap_or_default();
        self.change.put(&put.key, value, put.lease.or(lease).unwrap_or(LeaseId(0)));
        self.results.push(StepResult::Put { previous: old.filter(|_| put.previous) });
        Ok(())
    }
}

/// Whether keys name this one.
fn names(keys: &Keys, key: &[u8]) -> bool {
    match keys {
        Keys::One(one) => one == key,
        Keys::Range { from, to } => {
            from.as_slice() <= key && (to.is_empty() || key < to.as_slice())
        }
    }
}

fn holds(rows: &Rows, compare: &Compare) -> bool {
    let mut named = rows.values().filter(|item| names(&compare.keys, &item.key)).peekable();
    if named.peek().is_some() {
        return named.all(|item| relates(compare, Some(item)));
    }
    relates(compare, None)
}

fn relates(compare: &Compare, item: Option<&Item>) -> bool {
    let number = |of: fn(&Item) -> u64, target: u64| item.map_or(0, of).cmp(&target);
    let order = match &compare.target {
        Target::Value(value) => match item {
            Some(item) => item.value.cmp(value),
            None => return false,
        },
        Target::Changes(changes) => number(|item| item.changes, *changes),
        Target::Created(version) => number(|item| item.created.0, version.0),
        Target::Modified(version) => number(|item| item.modified.0, version.0),
        Target::Lease(lease) => number(|item| item.lease.0, lease.0),
    };
    match compare.is {
        Relation::Equal => order == Ordering::Equal,
        Relation::NotEqual => order != Ordering::Equal,
        Relation::Less => order == Ordering::Less,
        Relation::Greater => order == Ordering::Greater,
    }
}

fn show(rows: &Rows, range: &Range) -> RangeResult {
    let named: Vec<&Item> = rows.values().filter(|item| names(&range.keys, &item.key)).collect();
    let count = if range.count { named.len() as u64 } else { 0 };
    if range.show == Show::Count {
        return RangeResult { items: Vec::new(), more: false, count };
    }
    let within = |span: Span, version: Version| {
        version >= span.from && (span.to == Version(0) || version <= span.to)
    };
    let passes =
        |item: &&Item| within(range.created, item.created) && within(range.modified, item.modified);
    let mut items: Vec<Item> = named.into_iter().filter(passes).cloned().collect();
    items.sort_by(|a, b| {
        let order = match range.sort.by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Changes => a.changes.cmp(&b.changes),
            SortBy::Created => a.created.cmp(&b.created),
            SortBy::Modified => a.modified.cmp(&b.modified),
            SortBy::Value => a.value.cmp(&b.value),
        };
        if range.sort.descending { order.reverse() } else { order }
    });
    let limit = if range.limit == 0 { usize::MAX } else { range.limit as usize };
    let more = items.len() > limit;
    items.truncate(limit);
    if range.show == Show::Heads {
        for item in &mut items {
            item.value = Vec::new();
        }
    }
    RangeResult { items, more, count }
}
