//! Transactions: against a naive model, and one by one where a model is silent.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::collections::BTreeMap;

use cluster::{
    ids::{LeaseId, SessionId},
    limits::{
        KEPT_REPLY_BYTES_MAX, TRANSACTION_KEYS_MAX, TRANSACTION_REPLY_BYTES_MAX, VALUE_BYTES_MAX,
    },
    memory::MemoryEngine,
    mvcc::version::{Version, VersionKind},
    shard::{
        command::{Action, Outcome, Refusal, SessionRequest},
        descriptor::Predicate,
        range::{Range, RangeResult, Show},
        reader::ReadError,
        root::ShardRole,
        transaction::{
            Block, Compare, Keys, Put, Relation, Step, StepResult, Target, Transacted, Transaction,
            TransactionError,
        },
    },
};
use model::{Chance, Replica, delete, put};

fn dense() -> Replica {
    Replica::born(&MemoryEngine::default(), VersionKind::Dense)
}

fn deleted(count: u32) -> StepResult {
    StepResult::Deleted { count, previous: Vec::new() }
}

fn transact(replica: &mut Replica, transaction: Transaction) -> Outcome {
    replica.command(0, Action::Transact { request: None, transaction })
}

fn done(replica: &mut Replica, transaction: Transaction) -> Transacted {
    let Outcome::Transacted(done) = transact(replica, transaction) else { panic!("refused") };
    done
}

/// The same without an entry, of one that changes nothing.
fn look(replica: &Replica, transaction: &Transaction) -> Transacted {
    let view = replica.store.view().unwrap();
    let looked = replica.machine.reader().look(&*view, transaction).unwrap();
    let Outcome::Transacted(done) = looked else { panic!("{looked:?}") };
    done
}

fn holds(replica: &mut Replica, compare: Compare) -> bool {
    done(replica, Transaction::new().when(compare)).succeeded
}

/// What a key is, as the naive model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    created: Version,
    modified: Version,
    changes: u64,
}

#[derive(Clone, Default)]
struct Naive(BTreeMap<Vec<u8>, Entry>);

impl Naive {
    fn under(&self, keys: &Keys) -> Vec<(Vec<u8>, Entry)> {
        let within = |key: &Vec<u8>| match keys {
            Keys::One(one) => key == one,
            Keys::Range { from, to } => key >= from && (to.is_empty() || key < to),
        };
        self.0.iter().filter(|(key, _)| within(key)).map(|(k, e)| (k.clone(), e.clone())).collect()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let one = |entry: Option<&Entry>| {
            let number = |of: fn(&Entry) -> u64| entry.map_or(0, of);
            let order = match &compare.target {
                Target::Value(value) => match entry {
                    None => return false,
                    Some(entry) => entry.value.cmp(value),
                },
                Target::Changes(n) => number(|e| e.changes).cmp(n),
                Target::Created(v) => number(|e| e.created.0).cmp(&v.0),
                Target::Modified(v) => number(|e| e.modified.0).cmp(&v.0),
                Target::Lease(n) => 0.cmp(&n.0),
            };
            match compare.is {
                Relation::Equal => order.is_eq(),
                Relation::NotEqual => order.is_ne(),
                Relation::Less => order.is_lt(),
                Relation::Greater => order.is_gt(),
            }
        };
        let found = self.under(&compare.keys);
        if found.is_empty() { one(None) } else { found.iter().all(|(_, entry)| one(Some(entry))) }
    }

    /// Runs a block; all compares ask `before`.
    fn block(
        &mut self,
        before: &Self,
        transaction: &Transaction,
        block: &Block,
        version: Version,
        results: &mut Vec<StepResult>,
    ) -> bool {
        let succeeded = block.compares.iter().all(|compare| before.holds(compare));
        for step in if succeeded { &block.then } else { &block.otherwise } {
            match step {
                Step::Put(Put { key, value, .. }) => {
                    let old = self.0.get(key);
                    let entry = Entry {
                        value: value.clone().unwrap(),
                        created: old.map_or(version, |old| old.created),
                        modified: version,
                        changes: old.map_or(1, |old| old.changes + 1),
                    };
                    self.0.insert(key.clone(), entry);
                    results.push(StepResult::Put { previous: None });
                }
                Step::Delete { keys, .. } => {
                    let found = self.under(keys);
                    for (key, _) in &found {
                        self.0.remove(key);
                    }
                    results.push(deleted(u32::try_from(found.len()).unwrap()));
                }
                Step::Read(range) => {
                    let found = self.under(&range.keys);
                    let limit = if range.limit == 0 { 1_000 } else { range.limit as usize };
                    let more = found.len() > limit;
                    let count = 0;
                    let item = |(key, entry): (Vec<u8>, Entry)| cluster::request::Item {
                        key,
                        value_bytes: entry.value.len() as u64,
                        value: if range.show == Show::Heads { Vec::new() } else { entry.value },
                        created: entry.created,
                        modified: entry.modified,
                        changes: entry.changes,
                        modified_ms: 0,
                        lease: LeaseId(0),
                    };
                    let items = found.into_iter().take(limit).map(item).collect();
                    results.push(StepResult::Read(RangeResult { items, more, count }));
                }
                Step::Nested(child) => {
                    let place = results.len();
                    results.push(StepResult::Put { previous: None });
                    let child = &transaction.blocks[*child as usize];
                    let succeeded = self.block(before, transaction, child, version, results);
                    let inside = u32::try_from(results.len() - place - 1).unwrap();
                    results[place] = StepResult::Nested { succeeded, results: inside };
                }
            }
        }
        succeeded
    }
}

const NAMES: [&str; 6] = ["a", "ab", "b", "c", "ca", "d"];

fn name(chance: &mut Chance) -> String {
    NAMES[chance.index(NAMES.len())].to_owned()
}

fn keys(chance: &mut Chance) -> Keys {
    match chance.below(4) {
        0 => Keys::prefix(name(chance)),
        1 => {
            let (from, to) = (name(chance), name(chance));
            if to < from { Keys::range(to, from) } else { Keys::range(from, to) }
        }
        _ => Keys::One(name(chance).into()),
    }
}

fn compare(chance: &mut Chance, last: Version) -> Compare {
    let is = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
    let near = Version(last.0.saturating_sub(chance.below(4)) * chance.below(2));
    let target = match chance.below(5) {
        0 => Target::Value(chance.below(3).to_string().into()),
        1 => Target::Changes(chance.below(3)),
        2 => Target::Created(near),
        3 => Target::Modified(near),
        _ => Target::Lease(LeaseId(chance.below(2))),
    };
    Compare { keys: keys(chance), is: is[chance.index(4)], target }
}

fn random(chance: &mut Chance, last: Version, depth: u32) -> Transaction {
    let mut transaction = Transaction::new();
    for _ in 0..chance.below(3) {
        transaction = transaction.when(compare(chance, last));
    }
    for _ in 0..chance.below(5) {
        let step = match chance.below(5) {
            0 | 1 => Step::put(name(chance), chance.below(3).to_string()),
            2 => Step::delete(keys(chance)),
            3 => {
                let limit = u32::try_from(chance.below(4)).unwrap();
                let range = Range::of(keys(chance)).limit(limit);
                Step::Read(if chance.below(2) == 0 { range.heads() } else { range })
            }
            _ if depth > 0 => {
                let inner = random(chance, last, depth - 1);
                transaction = if chance.below(2) == 0 {
                    transaction.then_transact(inner)
                } else {
                    transaction.otherwise_transact(inner)
                };
                continue;
            }
            _ => Step::get(Keys::range("", "")),
        };
        transaction =
            if chance.below(2) == 0 { transaction.then(step) } else { transaction.otherwise(step) };
    }
    transaction
}

/// The model knows no wall clock.
fn without_times(done: &Transacted) -> Vec<StepResult> {
    let mut results = done.results.clone().unwrap();
    for result in &mut results {
        if let StepResult::Read(RangeResult { items, .. }) = result {
            for item in items {
                item.modified_ms = 0;
            }
        }
    }
    results
}

#[test]
fn random_transactions_do_what_a_naive_model_does() {
    let mut read_only = 0;
    for kind in [VersionKind::Dense, VersionKind::Hybrid] {
        for seed in 0..60 {
            let mut chance = Chance(seed);
            let engine = MemoryEngine::default();
            let mut replica = Replica::born(&engine, kind);
            let mut naive = Naive::default();
            let mut last = replica.machine.version();
            let mut ran = 0;
            for _ in 0..120 {
                match chance.below(12) {
                    0 => replica.flush(),
                    1 => {
                        engine.crash();
                        replica.reopen(&engine);
                    }
                    _ => {}
                }
                let transaction = random(&mut chance, last, 2);
                if transaction.check().is_err() {
                    continue;
                }
                ran += 1;
                let before = naive.clone();
                let looked = (!transaction.writes()).then(|| look(&replica, &transaction));
                let done = done(&mut replica, transaction.clone());
                if let Some(looked) = looked {
                    read_only += 1;
                    assert_eq!(looked.results, done.results, "seed {seed} {transaction:?}");
                    assert_eq!(looked.succeeded, done.succeeded, "seed {seed} {transaction:?}");
                }
                let mut results = Vec::new();
                let root = &transaction.blocks[0];
                let version = done.version;
                let succeeded = naive.block(&before, &transaction, root, version, &mut results);
                assert_eq!(done.succeeded, succeeded, "seed {seed} {transaction:?}");
                assert_eq!(without_times(&done), results, "seed {seed} {transaction:?}");
                let wrote = results.iter().any(|result| match result {
                    StepResult::Put { .. } => true,
                    StepResult::Deleted { count, .. } => *count > 0,
                    StepResult::Read(_) | StepResult::Nested { .. } => false,
                });
                assert_eq!(done.changed, wrote, "seed {seed} {transaction:?}");
                match (kind, wrote) {
                    (VersionKind::Dense, true) => assert_eq!(version.0, last.0 + 1),
                    (VersionKind::Dense, false) => assert_eq!(version, last),
                    (VersionKind::Hybrid, _) => assert!(version > last),
                }
                last = version;
                let now = naive.under(&Keys::range("", ""));
                let reader = replica.machine.reader();
                let view = replica.store.view().unwrap();
                let page = reader.list(&*view, b"", None, 100, None, true).unwrap();
                let listed: Vec<_> = page.items.into_iter().map(|i| (i.key, i.value)).collect();
                assert_eq!(listed, now.into_iter().map(|(k, e)| (k, e.value)).collect::<Vec<_>>());
            }
            assert!(ran > 50, "only {ran} transactions were well formed");
        }
    }
    assert!(read_only > 500, "only {read_only} changed nothing");
}

#[test]
fn a_look_through_a_view_that_has_gone_on_is_refused() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    let reader = replica.machine.reader();
    replica.write(vec![put(b"a", b"2")]);
    replica.flush();
    let view = replica.store.view().unwrap();
    let get = Transaction::new().then(Step::get("a"));
    assert_eq!(reader.look(&*view, &get), Err(ReadError::GoneOn { now: Version(2) }));
    drop(view);
    let StepResult::Read(read) = &look(&replica, &get).results.unwrap()[0] else { panic!() };
    assert_eq!(read.items[0].value, b"2");
}

#[test]
fn a_look_refuses_what_an_entry_does() {
    let shard = Predicate::Range { from: b"a".to_vec(), to: b"c".to_vec() };
    let engine = MemoryEngine::default();
    let replica = Replica::born_as(&engine, VersionKind::Dense, ShardRole::Data, &shard);
    let (reader, view) = (replica.machine.reader(), replica.store.view().unwrap());
    let outside = Transaction::new().then(Step::get("c"));
    assert_eq!(reader.look(&*view, &outside), Ok(Outcome::Refused(Refusal::WrongShard)));
}

#[test]
fn compares_of_an_absent_key_are_etcds() {
    let mut replica = dense();
    for target in [
        Target::Changes(0),
        Target::Created(Version(0)),
        Target::Modified(Version(0)),
        Target::Lease(LeaseId(0)),
    ] {
        let is = |is| Compare::new("a", is, target.clone());
        assert!(holds(&mut replica, is(Relation::Equal)), "{target:?}");
        assert!(!holds(&mut replica, is(Relation::NotEqual)), "{target:?}");
        assert!(!holds(&mut replica, is(Relation::Greater)), "{target:?}");
    }
    for is in [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater] {
        let compare = Compare::new("a", is, Target::Value(Vec::new()));
        assert!(!holds(&mut replica, compare), "{is:?}: what is not there has no value");
    }
}

#[test]
fn a_compare_over_a_range_asks_every_key_in_it() {
    let mut replica = dense();
    replica.write(vec![put(b"a1", b"x"), put(b"a2", b"x"), put(b"b", b"y")]);
    assert!(holds(&mut replica, Compare::value(Keys::prefix("a"), "x")));
    assert!(!holds(&mut replica, Compare::value(Keys::range("a", ""), "x")));
    assert!(holds(&mut replica, Compare::present(Keys::prefix("a"))));
    assert!(holds(&mut replica, Compare::absent(Keys::prefix("c"))));
}

#[test]
fn nested_compares_see_the_state_before_and_reads_what_was_written_before_them() {
    let mut replica = dense();
    let inner = Transaction::new().when(Compare::absent("a")).then(Step::get("a"));
    let outer = Transaction::new().then(Step::put("a", "1")).then_transact(inner);
    let done = done(&mut replica, outer);
    let results = done.results.unwrap();
    assert_eq!(
        results[..2],
        [StepResult::Put { previous: None }, StepResult::Nested { succeeded: true, results: 1 }]
    );
    let StepResult::Read(RangeResult { items, .. }) = &results[2] else { panic!("{results:?}") };
    assert_eq!((items[0].value.as_slice(), items[0].modified), (&b"1"[..], Version(2)));
}

#[test]
fn a_transaction_that_changes_nothing_moves_no_dense_revision() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    let nothing = Transaction::new().then(Step::delete("b")).then(Step::get("a"));
    let outcome = done(&mut replica, nothing);
    assert_eq!((outcome.version, outcome.changed), (Version(2), false));
    assert_eq!(done(&mut replica, Transaction::new()).version, Version(2));
    let two = Transaction::new().then(Step::put("b", "1")).then(Step::delete("a"));
    assert_eq!(done(&mut replica, two).version, Version(3));
    let reader = replica.machine.reader();
    let changes = reader.changes(&*replica.store.view().unwrap(), Version(2), 9).unwrap().changes;
    let subs: Vec<_> = changes.iter().map(|c| (c.version, c.sub, c.key.as_slice())).collect();
    assert_eq!(subs, [(Version(3), 0, &b"b"[..]), (Version(3), 1, b"a")]);
}

#[test]
fn keys_of_another_shard_and_malformed_trees_are_refused_at_apply_too() {
    let shard = Predicate::Range { from: b"a".to_vec(), to: b"c".to_vec() };
    let engine = MemoryEngine::default();
    let mut replica = Replica::born_as(&engine, VersionKind::Dense, ShardRole::Data, &shard);
    for foreign in [
        Transaction::new().then(Step::put("c", "1")),
        Transaction::new().when(Compare::absent("c")),
        Transaction::new().otherwise(Step::get(Keys::prefix("c"))),
        Transaction::new().then(Step::delete(Keys::range("b", ""))),
    ] {
        assert_eq!(transact(&mut replica, foreign), Outcome::Refused(Refusal::WrongShard));
    }
    let blocks = vec![Block { then: vec![Step::Nested(0)], ..Block::default() }];
    let refusal = Refusal::Transaction(TransactionError::Malformed);
    assert_eq!(transact(&mut replica, Transaction { blocks }), Outcome::Refused(refusal));
    let mut catalog =
        Replica::born_as(&MemoryEngine::default(), VersionKind::Dense, ShardRole::Catalog, &shard);
    let refused = transact(&mut catalog, Transaction::new());
    assert_eq!(refused, Outcome::Refused(Refusal::WrongKind));
}

#[test]
fn what_reads_or_touches_too_much_changes_nothing() {
    let mut replica = dense();
    // With its key a little more than half.
    let half = vec![0; TRANSACTION_REPLY_BYTES_MAX / 2];
    replica.write(vec![put(b"a", &half), put(b"aa", &half), put(b"b", b"")]);
    let reads = Transaction::new().then(Step::put("c", "1")).then(Step::get(Keys::range("a", "c")));
    let refusal = Refusal::Transaction(TransactionError::ReadsTooMuch);
    assert_eq!(transact(&mut replica, reads), Outcome::Refused(refusal));
    let one_by_one = ["a", "aa", "b"].map(Step::get).into_iter();
    let reads = one_by_one.fold(Transaction::new().then(Step::put("c", "1")), Transaction::then);
    let refusal = Refusal::Transaction(TransactionError::ReadsTooMuch);
    assert_eq!(transact(&mut replica, reads), Outcome::Refused(refusal));
    for chunk in 0..=TRANSACTION_KEYS_MAX / 1_000 {
        let name = |n: usize| format!("k{:05}", chunk * 1_000 + n).into_bytes();
        replica.write((0..1_000).map(|n| put(&name(n), b"")).collect());
    }
    let version = replica.machine.version();
    let all = Transaction::new().then(Step::put("c", "1")).then(Step::delete(Keys::prefix("k")));
    let refusal = Refusal::Transaction(TransactionError::TouchesTooMuch);
    assert_eq!(transact(&mut replica, all), Outcome::Refused(refusal));
    assert_eq!(replica.machine.version(), version, "nothing was changed");
    let fits = Keys::range("k", format!("k{TRANSACTION_KEYS_MAX:05}"));
    let most = done(&mut replica, Transaction::new().then(Step::delete(fits)));
    let count = u32::try_from(TRANSACTION_KEYS_MAX).unwrap();
    assert_eq!(most.results, Some(vec![deleted(count)]));
}

/// What can be put can be shown: as a page of a list, an answer ends behind the key that
/// fills it.
#[test]
fn the_last_key_that_is_shown_may_be_of_any_size() {
    let mut replica = dense();
    let large = vec![7; VALUE_BYTES_MAX];
    replica.write(vec![put(b"a", b"small")]);
    replica.write(vec![put(b"b", &large)]);
    replica.write(vec![put(b"c", &large)]);
    let shown = |results: Option<Vec<StepResult>>| -> Vec<usize> {
        let items = |result| match result {
            StepResult::Read(read) => read.items,
            StepResult::Put { previous } => previous.into_iter().collect(),
            StepResult::Deleted { previous, .. } => previous,
            StepResult::Nested { .. } => Vec::new(),
        };
        results.unwrap().into_iter().flat_map(items).map(|item| item.value.len()).collect()
    };
    for step in [
        Step::get("b"),
        Step::Read(Range::of(Keys::range("b", "d")).limit(1)),
        Step::get(Keys::range("a", "c")),
        Step::Put(Put { previous: true, ..Put::new("b", large.clone()) }),
        Step::Delete { keys: Keys::range("a", "c"), previous: true },
    ] {
        let done = done(&mut replica, Transaction::new().then(step.clone()));
        assert_eq!(shown(done.results).last(), Some(&large.len()), "{step:?}");
    }
    replica.write(vec![put(b"b", &large)]);
    let both = Step::get(Keys::range("b", "d"));
    let refusal = Refusal::Transaction(TransactionError::ReadsTooMuch);
    assert_eq!(transact(&mut replica, Transaction::new().then(both)), Outcome::Refused(refusal));
}

fn open(replica: &mut Replica) -> SessionId {
    let Outcome::Session(session) = replica.command(0, Action::OpenSession) else { panic!() };
    session
}

fn ask(
    replica: &mut Replica,
    session: SessionId,
    number: u64,
    answered: u64,
    transaction: &Transaction,
) -> Transacted {
    let request = Some(SessionRequest { session, number, answered });
    let action = Action::Transact { request, transaction: transaction.clone() };
    let Outcome::Transacted(done) = replica.command(0, action) else { panic!("refused") };
    done
}

#[test]
fn a_retry_gets_the_same_answer_also_after_a_crash_and_when_nothing_was_changed() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let session = open(&mut replica);
    let take = Transaction::new()
        .when(Compare::absent("lock"))
        .then(Step::put("lock", "me"))
        .then(Step::get("lock"))
        .otherwise(Step::get("lock"));
    let taken = ask(&mut replica, session, 1, 0, &take);
    let missed = ask(&mut replica, session, 2, 0, &take);
    assert!(taken.succeeded && !missed.succeeded);
    replica.flush();
    replica.write(vec![delete(b"lock")]);
    engine.crash();
    replica.reopen(&engine);
    assert_eq!(ask(&mut replica, session, 1, 0, &take), taken);
    // A late copy must not take the other branch once the lock is free.
    assert_eq!(ask(&mut replica, session, 2, 0, &take), missed);
    assert_eq!(replica.machine.version(), Version(3));
}

#[test]
fn unread_answers_are_bounded_and_the_idle_longest_lose_what_they_read_first() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let (idle, busy) = (open(&mut replica), open(&mut replica));
    let part = TRANSACTION_REPLY_BYTES_MAX / 2;
    replica.write(vec![put(b"a", &vec![1; part])]);
    let read = Transaction::new().then(Step::put("b", "1")).then(Step::get("a"));
    let first = ask(&mut replica, idle, 1, 0, &read);
    replica.command(1, Action::Close);
    let fit = u64::try_from(KEPT_REPLY_BYTES_MAX / part).unwrap();
    for number in 1..fit - 1 {
        ask(&mut replica, busy, number, 0, &read);
    }
    assert_eq!(ask(&mut replica, idle, 1, 0, &read), first, "all fit so far");
    // The retry was a use of the session: let the other be the newer one.
    replica.command(1, Action::Close);
    let last = ask(&mut replica, busy, fit - 1, 0, &read);
    replica.flush();
    engine.crash();
    replica.reopen(&engine);
    let forgotten = Transacted { results: None, ..first };
    assert_eq!(ask(&mut replica, idle, 1, 0, &read), forgotten);
    assert_eq!(ask(&mut replica, busy, fit - 1, 0, &read), last);
    // What its sender has read takes no room.
    for number in fit..fit + 20 {
        ask(&mut replica, busy, number, number - 1, &read);
        assert!(ask(&mut replica, busy, number, number - 1, &read).results.is_some());
    }
}
