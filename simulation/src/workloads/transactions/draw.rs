//! What clients of this workload ask next: drawn, but from what they saw, so that
//! compares hold as often as they fail.

use std::collections::BTreeMap;

use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::Item,
    shard::{
        command::Op,
        range::{Range, SortBy, Span},
        transaction::{Compare, Keys, Put, Relation, Step, StepResult, Target, Transaction},
    },
};

use super::{PREFIX, values::LARGE};
use crate::{
    oracle::keyspace::{Answer, Call},
    rng::Rng,
};

/// Leases that keys hang on.
pub(super) const LEASES: [LeaseId; 2] = [LeaseId(7), LeaseId(8)];
/// Versions that a compaction leaves, and of which a reader of the past may find some
/// gone.
const KEPT: u64 = 12;
/// Transactions inside each other.
const DEPTH: u32 = 3;
/// Draws of a transaction until one changes no key twice.
const TRIES: u32 = 8;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taste {
    /// All there is.
    Everything,
    /// The first keys in any order, among values of which few fit into an answer.
    SortedRanges,
}

/// What a client saw last, and how often it wrote.
#[derive(Debug)]
pub(crate) struct Sight {
    taste: Taste,
    keys: u32,
    writes: u32,
    now: Version,
    items: BTreeMap<Vec<u8>, Item>,
}

impl Sight {
    pub(crate) fn new(taste: Taste, keys: u32) -> Self {
        Self { taste, keys, writes: 0, now: Version(0), items: BTreeMap::new() }
    }

    /// Learns from an answer. What it does not show stays as it was seen: compares
    /// with what is old fail, as they should at times.
    pub(crate) fn see<'a>(&mut self, answer: &'a Answer) {
        let (now, items): (Version, Vec<&'a Item>) = match answer {
            Answer::Item(found) => (self.now, found.iter().collect()),
            Answer::Range { result, at, now } if at == now => (*now, result.items.iter().collect()),
            Answer::Written { version, .. } | Answer::Deleted { version, .. } => (*version, vec![]),
            Answer::Transacted(done) => {
                let read = |result: &'a StepResult| match result {
                    StepResult::Read(read) => read.items.iter().collect(),
                    StepResult::Put { .. }
                    | StepResult::Deleted { .. }
                    | StepResult::Nested { .. } => Vec::new(),
                };
                (done.version, done.results.iter().flatten().flat_map(read).collect())
            }
            Answer::Range { .. }
            | Answer::Refused(_)
            | Answer::Compacted
            | Answer::Gone(_)
            | Answer::Future => return,
        };
        self.now = self.now.max(now);
        for item in items {
            self.items.insert(item.key.clone(), item.clone());
        }
    }

    /// The next request. `number` makes values of clients differ.
    pub(crate) fn draw(&mut self, rng: &mut Rng, number: u32) -> Call {
        match self.taste {
            Taste::Everything => self.anything(rng, number),
            Taste::SortedRanges => self.sorted(rng, number),
        }
    }

    /// The first keys in some order, or what changes which they are.
    fn sorted(&mut self, rng: &mut Rng, number: u32) -> Call {
        match rng.below(10) {
            0..5 => {
                let range = Range { keys: Keys::prefix(PREFIX), ..self.range(rng) };
                let range = range.limit(2 + rng.number(3));
                Call::Range(if rng.chance(200_000) { range.at(self.past(rng)) } else { range })
            }
            5 if self.now.0 > KEPT => Call::Compact(Version(self.now.0 - KEPT)),
            _ => Call::Write(vec![self.op(rng, number)]),
        }
    }

    fn anything(&mut self, rng: &mut Rng, number: u32) -> Call {
        match rng.below(20) {
            0..2 => Call::Get(self.key(rng)),
            2..5 => Call::Range(self.range(rng)),
            5 => Call::Range(Range::of(Keys::prefix(PREFIX)).at(self.past(rng))),
            6..9 => {
                let puts = 1 + rng.below(2);
                let mut ops: Vec<Op> = (0..puts).map(|_| self.op(rng, number)).collect();
                ops.dedup_by(|a, b| a.key() == b.key());
                Call::Write(ops)
            }
            9 => Call::DeleteRange(self.few(rng)),
            10 if rng.chance(300_000) => {
                let past = Range::of(self.keys(rng)).at(self.past(rng));
                Call::Transact(self.transaction(rng, number).then(Step::Read(past)))
            }
            10 if self.now.0 > KEPT && rng.chance(500_000) => {
                Call::Compact(Version(self.now.0 - KEPT))
            }
            _ => Call::Transact(self.transaction(rng, number)),
        }
    }

    fn key(&self, rng: &mut Rng) -> String {
        format!("{PREFIX}{}", rng.below(u64::from(self.keys)))
    }

    fn value(&mut self, number: u32) -> String {
        self.writes += 1;
        let large = self.taste == Taste::SortedRanges && self.writes.is_multiple_of(2);
        format!("{number}-{}{}", self.writes, if large { LARGE } else { "" })
    }

    fn op(&mut self, rng: &mut Rng, number: u32) -> Op {
        let key = self.key(rng).into_bytes();
        if rng.chance(250_000) {
            return Op::Delete { key };
        }
        Op::Put { key, value: self.value(number).into() }
    }

    /// A version of the last few dozen; the oldest of them may be gone.
    fn past(&self, rng: &mut Rng) -> Version {
        Version(self.now.0.saturating_sub(rng.below(KEPT * 2)).max(1))
    }

    /// Two or three keys beside each other.
    fn few(&self, rng: &mut Rng) -> Keys {
        let from = rng.below(u64::from(self.keys));
        let to = from + 2 + rng.below(2);
        Keys::range(format!("{PREFIX}{from}"), format!("{PREFIX}{to}"))
    }

    fn keys(&self, rng: &mut Rng) -> Keys {
        match rng.below(6) {
            0 => Keys::prefix(PREFIX),
            1 | 2 => self.few(rng),
            _ => Keys::from(self.key(rng).as_str()),
        }
    }

    /// All a range can ask for.
    fn range(&self, rng: &mut Rng) -> Range {
        let by = [
            SortBy::Key,
            SortBy::Key,
            SortBy::Changes,
            SortBy::Created,
            SortBy::Modified,
            SortBy::Value,
        ];
        let by = rng.pick(&by).copied().unwrap_or_default();
        let mut range = Range::of(self.keys(rng)).sorted(by, rng.chance(300_000));
        range.limit = rng.number(4);
        range.count = rng.chance(500_000);
        match rng.below(8) {
            0 => range = range.heads(),
            1 => range = range.count_only(),
            2 => range.created = self.span(rng),
            3 => range.modified = self.span(rng),
            _ => {}
        }
        range
    }

    fn span(&self, rng: &mut Rng) -> Span {
        let from = self.past(rng);
        let to = if rng.chance(500_000) { Version(0) } else { Version(from.0 + KEPT) };
        Span { from, to }
    }

    fn transaction(&mut self, rng: &mut Rng, number: u32) -> Transaction {
        for _ in 0..TRIES {
            let drawn = self.block(rng, number, DEPTH);
            if drawn.check().is_ok() {
                return drawn;
            }
        }
        Transaction::new().then(Step::put(self.key(rng), self.value(number)))
    }

    fn block(&mut self, rng: &mut Rng, number: u32, depth: u32) -> Transaction {
        let mut all = Transaction::new();
        for _ in 0..rng.below(3) {
            all = all.when(self.compare(rng));
        }
        for _ in 0..=rng.below(2) {
            all = all.then(self.step(rng, number));
        }
        for _ in 0..=rng.below(2) {
            all = all.otherwise(self.step(rng, number));
        }
        if depth > 1 && rng.chance(250_000) {
            all = all.then_transact(self.block(rng, number, depth - 1));
        }
        if depth > 1 && rng.chance(150_000) {
            all = all.otherwise_transact(self.block(rng, number, depth - 1));
        }
        all
    }

    /// A compare that holds by what was seen, or misses it by a little.
    fn compare(&self, rng: &mut Rng) -> Compare {
        let keys = self.keys(rng);
        let item = match &keys {
            Keys::One(key) => self.items.get(key),
            Keys::Range { from, .. } => {
                self.items.range(from.clone()..).next().map(|(_, item)| item)
            }
        };
        let is = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
        let is = rng.pick(&is).copied().unwrap_or(Relation::Equal);
        let near = |rng: &mut Rng, number: u64| (number + rng.below(3)).saturating_sub(1);
        let target = match rng.below(5) {
            0 => Target::Value(item.map_or_else(|| b"3".to_vec(), |item| item.value.clone())),
            1 => Target::Changes(near(rng, item.map_or(0, |item| item.changes))),
            2 => Target::Created(Version(near(rng, item.map_or(0, |item| item.created.0)))),
            3 => Target::Modified(Version(near(rng, item.map_or(0, |item| item.modified.0)))),
            _ => Target::Lease(item.map_or(LeaseId(0), |item| item.lease)),
        };
        Compare::new(keys, is, target)
    }

    fn step(&mut self, rng: &mut Rng, number: u32) -> Step {
        match rng.below(10) {
            0..5 => {
                let put = Put::new(self.key(rng), self.value(number));
                let lease = match rng.below(6) {
                    0 => None,
                    1 => LEASES.first().copied(),
                    2 => LEASES.last().copied(),
                    _ => put.lease,
                };
                let value = put.value.filter(|_| !rng.chance(100_000));
                Step::Put(Put { value, lease, previous: rng.chance(500_000), ..put })
            }
            5..7 => {
                let keys = if rng.chance(500_000) {
                    self.few(rng)
                } else {
                    Keys::from(self.key(rng).as_str())
                };
                Step::Delete { keys, previous: rng.chance(500_000) }
            }
            _ => Step::Read(self.range(rng)),
        }
    }
}
