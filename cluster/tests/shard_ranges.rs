//! Ranges against a naive model, and what puts and deletes tell of before.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use cluster::{
    ids::LeaseId,
    limits::RANGE_BYTES_MAX,
    memory::MemoryEngine,
    mvcc::{
        compaction::BatchLimits,
        version::{Version, VersionKind},
    },
    request::Item,
    shard::{
        command::{Action, Outcome, Refusal},
        range::{Range, RangeResult, Show, Sort, SortBy, Span},
        reader::ReadError,
        transaction::{Keys, Put, Step, StepResult, Transacted, Transaction, TransactionError},
    },
};
use model::{Chance, Model, Replica, key, ops, put};

fn dense() -> Replica {
    Replica::born(&MemoryEngine::default(), VersionKind::Dense)
}

fn range(replica: &Replica, range: &Range) -> Result<RangeResult, ReadError> {
    let reader = replica.machine.reader();
    reader.range(&*replica.store.view().unwrap(), range).map(|(result, _)| result)
}

fn names(result: &RangeResult) -> Vec<String> {
    result.items.iter().map(|item| String::from_utf8(item.key.clone()).unwrap()).collect()
}

fn span(chance: &mut Chance, model: &Model) -> Span {
    let mut bound = || match chance.below(3) {
        0 => {
            model.changes.get(chance.index(model.changes.len().max(1))).map_or(Version(0), |c| c.0)
        }
        _ => Version(0),
    };
    Span { from: bound(), to: bound() }
}

fn random(chance: &mut Chance, model: &Model) -> Range {
    let keys = match chance.below(4) {
        0 => Keys::One(key(chance)),
        1 => Keys::prefix(key(chance)),
        2 => Keys::range(key(chance), ""),
        _ => {
            let (a, b) = (key(chance), key(chance));
            Keys::range(a.clone().min(b.clone()), a.max(b))
        }
    };
    let by = [SortBy::Key, SortBy::Changes, SortBy::Created, SortBy::Modified, SortBy::Value];
    Range {
        keys,
        at: None,
        limit: u32::try_from(chance.below(6)).unwrap(),
        show: [Show::Items, Show::Heads, Show::Count][chance.index(3)],
        sort: Sort { by: by[chance.index(5)], descending: chance.below(2) == 0 },
        created: span(chance, model),
        modified: span(chance, model),
        count: chance.below(2) == 0,
    }
}

/// Keys with values, whether there are more, how many there are.
type Plain = (Vec<(Vec<u8>, Vec<u8>)>, bool, u64);

/// What a range means, said plainly.
fn meant(model: &Model, range: &Range, at: Version) -> Plain {
    let within = |key: &[u8]| match &range.keys {
        Keys::One(one) => key == one.as_slice(),
        Keys::Range { from, to } => {
            key >= from.as_slice() && (to.is_empty() || key < to.as_slice())
        }
    };
    let all: Vec<_> = model
        .keys
        .keys()
        .filter(|key| within(key))
        .filter_map(|key| Some((key.clone(), model.at(key, at)?.clone())))
        .collect();
    let count = if range.count { all.len() as u64 } else { 0 };
    if range.show == Show::Count {
        return (Vec::new(), false, count);
    }
    let inside = |span: Span, version: Version| {
        span.from <= version && (span.to == Version(0) || version <= span.to)
    };
    let mut kept: Vec<_> = all
        .into_iter()
        .filter(|(_, past)| {
            inside(range.created, past.created) && inside(range.modified, past.version)
        })
        .collect();
    kept.sort_by(|(a_key, a), (b_key, b)| {
        let order = match range.sort.by {
            SortBy::Key => a_key.cmp(b_key),
            SortBy::Changes => a.changes.cmp(&b.changes),
            SortBy::Created => a.created.cmp(&b.created),
            SortBy::Modified => a.version.cmp(&b.version),
            SortBy::Value => a.value.cmp(&b.value),
        };
        if range.sort.descending { order.reverse() } else { order }
    });
    let limit = if range.limit == 0 { usize::MAX } else { range.limit as usize };
    let more = kept.len() > limit;
    let shown = |(key, past): (Vec<u8>, model::Past)| {
        (key, if range.show == Show::Heads { Vec::new() } else { past.value.unwrap() })
    };
    (kept.into_iter().take(limit).map(shown).collect(), more, count)
}

#[test]
fn random_ranges_mean_what_a_naive_model_means_now_and_at_every_kept_version() {
    for (seed, kind) in [(1, VersionKind::Dense), (2, VersionKind::Hybrid), (3, VersionKind::Dense)]
    {
        let engine = MemoryEngine::default();
        let (mut replica, mut model) = (Replica::born(&engine, kind), Model::default());
        let mut chance = Chance(seed);
        let mut shown = 0;
        for _ in 0..400 {
            let ops = ops(&mut chance);
            replica.write(ops.clone());
            model.write(&ops, replica.machine.version());
            match chance.below(20) {
                0 => replica.flush(),
                1 if !model.changes.is_empty() => {
                    let at = model.changes[chance.index(model.changes.len())].0;
                    replica.compact(at);
                    replica.flush();
                    replica.sweep(Version(u64::MAX), BatchLimits::USUAL);
                }
                _ => {}
            }
            if model.changes.is_empty() {
                continue;
            }
            for _ in 0..6 {
                let asked = random(&mut chance, &model);
                let at = model.changes[chance.index(model.changes.len())].0;
                let now = replica.machine.reader().now();
                let (asked, at) =
                    if chance.below(2) == 0 { (asked.at(at), at) } else { (asked, now) };
                let found = range(&replica, &asked);
                let compacted = replica.machine.compacted();
                if at < compacted {
                    assert_eq!(found, Err(ReadError::Compacted { at, compacted }));
                    continue;
                }
                let found = found.unwrap();
                let items: Vec<_> =
                    found.items.iter().map(|i| (i.key.clone(), i.value.clone())).collect();
                shown += items.len();
                assert_eq!(
                    (items, found.more, found.count),
                    meant(&model, &asked, at),
                    "{asked:?} at {at}"
                );
            }
        }
        assert!(shown > 2_000, "only {shown} keys were shown");
    }
}

#[test]
fn a_version_that_is_gone_or_not_there_yet_is_an_error_that_says_so() {
    let mut replica = dense();
    replica.write(vec![put(b"k", b"1")]);
    replica.write(vec![put(b"k", b"2")]);
    replica.compact(Version(3));
    let at = |version| range(&replica, &Range::of("k").at(Version(version)));
    assert_eq!(at(2), Err(ReadError::Compacted { at: Version(2), compacted: Version(3) }));
    assert_eq!(at(3).unwrap().items[0].value, b"2");
    assert_eq!(at(4), Err(ReadError::Future { at: Version(4), now: Version(3) }));
}

#[test]
fn a_new_dense_store_begins_at_version_one_and_is_empty_there() {
    let replica = dense();
    assert_eq!(replica.machine.version(), Version(1));
    let all = Range::of(Keys::range("", "")).counted().at(Version(1));
    assert_eq!(range(&replica, &all), Ok(RangeResult::default()));
}

#[test]
fn an_answer_is_cut_where_it_is_too_large_and_refused_if_it_must_be_sorted() {
    let mut replica = dense();
    let value = vec![7; RANGE_BYTES_MAX / 2];
    for name in [b"a", b"b", b"c", b"d"] {
        replica.write(vec![put(name, &value)]);
    }
    let all = Range::of(Keys::range("", "")).counted();
    let cut = range(&replica, &all).unwrap();
    assert_eq!((names(&cut), cut.more, cut.count), (vec!["a".into(), "b".into()], true, 4));
    let rest = range(&replica, &Range::of(Keys::range("b\0", ""))).unwrap();
    assert_eq!((names(&rest), rest.more), (vec!["c".into(), "d".into()], false));
    let sorted = all.sorted(SortBy::Key, true);
    assert!(matches!(range(&replica, &sorted), Err(ReadError::TooLarge(_))));
    let heads = range(&replica, &sorted.heads().limit(1)).unwrap();
    assert_eq!((names(&heads), heads.items[0].value_bytes), (vec!["d".into()], value.len() as u64));
}

fn transact(replica: &mut Replica, transaction: Transaction) -> Outcome {
    replica.command(0, Action::Transact { request: None, transaction })
}

fn step(replica: &mut Replica, step: Step) -> Result<(StepResult, Version), TransactionError> {
    let outcome = transact(replica, Transaction::new().then(step));
    if let Outcome::Refused(Refusal::Transaction(error)) = outcome {
        return Err(error);
    }
    let Outcome::Transacted(Transacted { results, version, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    Ok((results.unwrap().remove(0), version))
}

fn item(key: &str, value: &str, (created, modified, changes): (u64, u64, u64)) -> Item {
    Item {
        key: key.into(),
        value: value.into(),
        value_bytes: value.len() as u64,
        created: Version(created),
        modified: Version(modified),
        changes,
        modified_ms: 0,
        lease: LeaseId(0),
    }
}

fn timeless(item: Item) -> Item {
    Item { modified_ms: 0, ..item }
}

#[test]
fn a_put_shows_what_was_there_and_keeps_what_it_is_told_to_keep() {
    let mut replica = dense();
    let shown = |replica: &mut Replica, put: Put| {
        let (result, version) = step(replica, Step::Put(put)).unwrap();
        let StepResult::Put { previous } = result else { panic!("{result:?}") };
        (previous.map(timeless), version)
    };
    let first = Put::new("k", "1").showing_previous();
    assert_eq!(shown(&mut replica, first), (None, Version(2)));
    let second =
        Put { value: Some(b"2".to_vec()), lease: None, ..Put::new("k", "").showing_previous() };
    assert_eq!(shown(&mut replica, second), (Some(item("k", "1", (2, 2, 1))), Version(3)));
    let same = Put { value: None, ..Put::new("k", "") };
    assert_eq!(shown(&mut replica, same), (None, Version(4)));
    let now = range(&replica, &Range::of("k")).unwrap().items.remove(0);
    assert_eq!(timeless(now), item("k", "2", (2, 4, 3)));
    for keeping in
        [Put { value: None, ..Put::new("x", "") }, Put { lease: None, ..Put::new("x", "1") }]
    {
        let refused = step(&mut replica, Step::Put(keeping));
        assert_eq!(refused, Err(TransactionError::NoSuchKey("x".into())));
    }
    let unknown = step(&mut replica, Step::Put(Put::new("k", "3").under(LeaseId(9))));
    assert!(matches!(unknown, Err(TransactionError::Lease(_))), "{unknown:?}");
    assert_eq!(replica.machine.version(), Version(4), "what is refused moves nothing");
}

#[test]
fn a_delete_of_a_range_counts_and_shows_its_keys_at_one_version() {
    let mut replica = dense();
    replica.write(vec![put(b"a1", b"x"), put(b"a2", b"y"), put(b"b", b"z")]);
    let delete = |previous| Step::Delete { keys: Keys::prefix("a"), previous };
    let (deleted, version) = step(&mut replica, delete(true)).unwrap();
    let StepResult::Deleted { count: 2, previous } = deleted else { panic!("{deleted:?}") };
    let previous: Vec<_> = previous.into_iter().map(timeless).collect();
    assert_eq!(previous, [item("a1", "x", (2, 2, 1)), item("a2", "y", (2, 2, 1))]);
    assert_eq!(version, Version(3));
    let reader = replica.machine.reader();
    let changes = reader.changes(&*replica.store.view().unwrap(), Version(2), 9).unwrap().changes;
    let subs: Vec<_> = changes.iter().map(|c| (c.version, c.sub, c.key.as_slice())).collect();
    assert_eq!(subs, [(Version(3), 0, &b"a1"[..]), (Version(3), 1, b"a2")]);
    let nothing = step(&mut replica, delete(true)).unwrap();
    assert_eq!(nothing, (StepResult::Deleted { count: 0, previous: Vec::new() }, Version(3)));
}

#[test]
fn a_transaction_reads_ranges_as_they_are_asked_for_and_never_the_past() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"3"), put(b"b", b"1")]);
    replica.write(vec![put(b"c", b"2")]);
    let sorted = Range::of(Keys::range("", "")).sorted(SortBy::Value, true).limit(2).counted();
    let (read, _) = step(&mut replica, Step::Read(sorted)).unwrap();
    let StepResult::Read(read) = read else { panic!("{read:?}") };
    assert_eq!((names(&read), read.more, read.count), (vec!["a".into(), "c".into()], true, 3));
    let equal = Range::of(Keys::range("", "")).sorted(SortBy::Modified, true);
    let (read, _) = step(&mut replica, Step::Read(equal)).unwrap();
    let StepResult::Read(read) = read else { panic!("{read:?}") };
    assert_eq!(names(&read), ["c", "a", "b"], "equal ones keep the order of their keys");
    let past = Transaction::new().then(Step::Read(Range::of("a").at(Version(2))));
    assert_eq!(past.check(), Err(TransactionError::ReadsThePast));
    let refusal = Refusal::Transaction(TransactionError::ReadsThePast);
    assert_eq!(transact(&mut replica, past), Outcome::Refused(refusal));
}
