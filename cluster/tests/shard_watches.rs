//! Events against a naive model: ordered, unique, complete, from any kept place,
//! with what was there before, however answers are cut and whatever is swept.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use cluster::{
    limits::{VALUE_BYTES_MAX, WATCH_CHANGES_MAX},
    memory::MemoryEngine,
    mvcc::{
        compaction::BatchLimits,
        version::{Version, VersionKind},
    },
    shard::{
        reader::{ReadError, Reader},
        transaction::Keys,
        watch::{Event, EventKind, Place, Watch},
    },
};
use model::{Chance, Model, Replica, delete, key, ops, put};

const ALL: Version = Version(u64::MAX);

/// One event, said plainly: version, sub, key, value, value before.
type Plain = (Version, u32, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn plain(event: Event) -> Plain {
    let Event { kind, item, sub, previous } = event;
    let value = (kind == EventKind::Put).then_some(item.value);
    (item.modified, sub, item.key, value, previous.map(|item| item.value))
}

/// What a watch must show after `after`, up to `now`.
fn meant(model: &Model, watch: &Watch, after: Version, now: Version) -> Vec<Plain> {
    let mut events = Vec::new();
    let mut seen = std::collections::BTreeMap::<&[u8], usize>::new();
    for (version, sub, key, _) in &model.changes {
        // The changes of a key come in the order of its past.
        let turn = seen.entry(key).or_default();
        let past = &model.keys[key];
        let (at, before) = (&past[*turn], turn.checked_sub(1).map(|turn| &past[turn]));
        *turn += 1;
        let kind = if at.value.is_some() { EventKind::Put } else { EventKind::Delete };
        if *version > after && *version <= now && watch.wants(key, kind) {
            let before = before.and_then(|before| before.value.clone());
            let before = before.filter(|_| watch.previous);
            events.push((*version, *sub, key.clone(), at.value.clone(), before));
        }
    }
    events
}

/// Watches to the end in answers of a few bytes each.
fn watch_all(
    reader: &Reader,
    replica: &Replica,
    watch: &Watch,
    from: Place,
    bytes: usize,
) -> Result<Vec<Plain>, ReadError> {
    let view = replica.store.view().unwrap();
    let (mut place, mut events) = (from, Vec::new());
    loop {
        let part = reader.events(&*view, watch, place, bytes)?;
        assert!(part.upto > place || !part.more, "no progress at {place:?}");
        assert!(part.upto.is_whole() || part.more, "a version was left half told");
        place = part.upto;
        events.extend(part.events.into_iter().map(plain));
        if !part.more {
            assert_eq!(place, from.max(Place::after(reader.now())));
            return Ok(events);
        }
    }
}

fn watch(chance: &mut Chance) -> Watch {
    let keys = match chance.below(3) {
        0 => Keys::One(key(chance)),
        1 => Keys::prefix(key(chance)),
        _ => Keys::range("", ""),
    };
    let (puts, deletes) = [(true, true), (true, false), (false, true)][chance.index(3)];
    Watch { keys, puts, deletes, previous: chance.below(2) == 0 }
}

#[test]
fn random_watches_show_every_event_once_in_order_from_every_place_that_is_kept() {
    for (seed, kind) in [(1, VersionKind::Dense), (2, VersionKind::Hybrid), (3, VersionKind::Dense)]
    {
        let engine = MemoryEngine::default();
        let (mut replica, mut model) = (Replica::born(&engine, kind), Model::default());
        let mut chance = Chance(seed);
        let (mut shown, mut refused) = (0, 0);
        let mut kept: Vec<Reader> = Vec::new();
        for _ in 0..600 {
            let ops = ops(&mut chance);
            replica.write(ops.clone());
            model.write(&ops, replica.machine.version());
            if model.changes.is_empty() {
                continue;
            }
            match chance.below(24) {
                0 | 1 => replica.flush(),
                2 => {
                    replica.compact(model.changes[chance.index(model.changes.len())].0);
                }
                3 | 4 => {
                    let limits = BatchLimits {
                        changes_max: 1 + chance.index(30),
                        key_bytes_max: 900,
                        entries_max: 20,
                    };
                    replica.sweep(ALL, limits);
                }
                5 => {
                    kept.push(replica.machine.reader());
                    kept.drain(..kept.len().saturating_sub(3));
                }
                6 => {
                    kept.clear();
                    engine.crash();
                    replica.reopen(&engine);
                }
                _ => {}
            }
            kept.truncate(4);
            let newest = replica.machine.reader();
            for reader in kept.iter().chain([&newest]) {
                let asked = watch(&mut chance);
                let from = Place::before(model.changes[chance.index(model.changes.len())].0);
                match watch_all(reader, &replica, &asked, from, 1 + chance.index(200)) {
                    Ok(events) => {
                        shown += events.len();
                        let wanted = meant(&model, &asked, from.version, reader.now());
                        assert_eq!(events, wanted, "{asked:?} from {from:?}");
                    }
                    Err(ReadError::Compacted { at, compacted }) => {
                        refused += 1;
                        assert!(at.0 == from.version.0 + 1 && at < compacted);
                        assert!(at < replica.machine.compacted(), "{at} is kept");
                    }
                    Err(ReadError::Overtaken { now, compacted }) => {
                        assert!(now == reader.now() && now < compacted);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(shown > 2_500 && refused > 50, "{shown} shown, {refused} refused");
    }
}

#[test]
fn a_watch_may_begin_at_the_compacted_version_and_sees_what_it_replaced_and_deleted() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    replica.write(vec![put(b"a", b"1"), put(b"b", b"1")]);
    replica.write(vec![put(b"a", b"2"), delete(b"b")]);
    replica.write(vec![put(b"c", b"3")]);
    replica.compact(Version(3));
    replica.flush();
    while replica.sweep(ALL, BatchLimits::USUAL) {}
    let watch = Watch::of(Keys::range("", "")).with_previous();
    let from = |version| Place::before(Version(version));
    let events = watch_all(&replica.machine.reader(), &replica, &watch, from(3), 99).unwrap();
    let one = Some(b"1".to_vec());
    assert_eq!(
        events,
        [
            (Version(3), 0, b"a".to_vec(), Some(b"2".to_vec()), one.clone()),
            (Version(3), 1, b"b".to_vec(), None, one),
            (Version(4), 0, b"c".to_vec(), Some(b"3".to_vec()), None),
        ]
    );
    let gone = watch_all(&replica.machine.reader(), &replica, &watch, from(2), 99);
    assert_eq!(gone, Err(ReadError::Compacted { at: Version(2), compacted: Version(3) }));
}

#[test]
fn a_place_in_the_future_waits_where_it_is() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    replica.write(vec![put(b"a", b"1")]);
    let (watch, place) = (Watch::of("a"), Place::before(Version(9)));
    let view = replica.store.view().unwrap();
    let part = replica.machine.reader().events(&*view, &watch, place, 99).unwrap();
    assert_eq!((part.events.len(), part.upto, part.now), (0, place, Version(2)));
}

#[test]
fn what_matters_to_nobody_is_passed_in_steps_and_two_large_values_fit_one_answer() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    for chunk in 0..5 {
        let name = |n: usize| format!("{chunk}-{n}").into_bytes();
        replica.write((0..1_000).map(|n| put(&name(n), b"")).collect());
    }
    let view = replica.store.view().unwrap();
    let part =
        replica.machine.reader().events(&*view, &Watch::of("x"), Place::default(), 99).unwrap();
    assert!(part.more && part.events.is_empty());
    let count = u64::try_from(WATCH_CHANGES_MAX).unwrap();
    assert_eq!((part.upto.version.0 - 2) * 1_000 + u64::from(part.upto.sub) + 1, count);
    drop(view);
    let half = VALUE_BYTES_MAX / 2 + 1;
    replica.write(vec![put(b"x", &vec![1; half])]);
    replica.write(vec![put(b"x", &vec![2; half])]);
    let view = replica.store.view().unwrap();
    let watch = Watch::of("x").with_previous();
    let place = Place::before(replica.machine.version());
    let part = replica.machine.reader().events(&*view, &watch, place, 99).unwrap();
    let previous = part.events[0].previous.as_ref().unwrap();
    assert_eq!((previous.value.len(), previous.value_bytes), (0, half as u64));
}
