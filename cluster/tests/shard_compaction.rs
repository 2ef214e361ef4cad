//! Letting go of history: what goes, what stays, and what a reader is told.
//! The model of `shard_model.rs` sweeps at random; here is what it cannot see.

mod model;

use std::ops::{Bound, ControlFlow};

use cluster::{
    ids::{ReplicaId, StoreId},
    memory::MemoryEngine,
    mvcc::{
        compaction::BatchLimits,
        layout::{read_change_key, read_history_key},
        record::{Record, RecordKind},
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{Engine, Order, Store, Tree},
    shard::{
        machine::ShardMachine,
        reader::ReadError,
        snapshot::{PinnedSnapshot, SnapshotError, SnapshotReceiver, snapshot_piece},
    },
};
use model::{Chance, Model, Replica, compare, delete, ops, put};

const ALL: Version = Version(u64::MAX);
const FEW: BatchLimits = BatchLimits { changes_max: 5, key_bytes_max: 1_000, entries_max: 7 };

fn write(replica: &mut Replica, model: &mut Model, chance: &mut Chance) {
    let ops = ops(chance);
    replica.write(ops.clone());
    model.write(&ops, replica.machine.version());
    if chance.below(6) == 0 {
        replica.flush();
    }
}

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn entries(store: &dyn Store, tree: Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let view = store.view().unwrap();
    let (from, to) = (Bound::Unbounded, Bound::Unbounded);
    view.scan(tree, from, to, Order::Ascending, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// Nothing lies in the store that no read at `compacted` or later can find, nor
/// a watch that begins there.
#[track_caller]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn holds_only_what_can_be_read(store: &dyn Store, compacted: Version) {
    let floor = Version(compacted.0 - 1);
    for (place, _) in entries(store, Tree::Changes) {
        assert!(read_change_key(&place).unwrap().0 > floor);
    }
    let latest = entries(store, Tree::Latest);
    let mut last = None;
    for (place, bytes) in entries(store, Tree::History) {
        let (key, version, _) = read_history_key(&place).unwrap();
        if version > floor {
            continue;
        }
        let kind = Record::read(&key, &bytes).unwrap().head.kind;
        assert_eq!(kind, RecordKind::Value, "a tombstone of {key:?} stayed");
        assert_ne!(last.as_ref(), Some(&key), "two versions of {key:?} stayed");
        if let Ok(place) = latest.binary_search_by(|(other, _)| other.cmp(&key)) {
            let newest = Record::read(&key, &latest[place].1).unwrap().head.modified;
            assert!(newest > floor, "{key:?} is hidden by {newest}");
        }
        last = Some(key);
    }
}

#[test]
fn every_prefix_of_a_sweep_reads_the_same_and_the_whole_leaves_only_what_can_be_read() {
    for (seed, kind) in [(1, VersionKind::Dense), (2, VersionKind::Hybrid)] {
        let engine = MemoryEngine::default();
        let (mut replica, mut model) = (Replica::born(&engine, kind), Model::default());
        let mut chance = Chance(seed);
        (0..300).for_each(|_| write(&mut replica, &mut model, &mut chance));
        let middle = model.changes[model.changes.len() / 2].0;
        assert_eq!(replica.compact(middle), middle);
        replica.flush();
        let hash = replica.hash();
        let later: Vec<_> =
            model.changes.iter().map(|change| change.0).filter(|at| *at >= middle).collect();
        let mut batches = 0;
        loop {
            let more = replica.sweep(ALL, FEW);
            assert_eq!(replica.hash(), hash);
            for _ in 0..5 {
                let at = later[chance.index(later.len())];
                compare(&replica.machine.reader(), &*replica.store, &model, at, &mut chance);
            }
            batches += 1;
            if !more {
                break;
            }
        }
        assert!(batches > 20, "{batches} batches");
        holds_only_what_can_be_read(&*replica.store, middle);
        // To the end: of what was deleted nothing is left.
        let end = replica.compact_all();
        replica.flush();
        while replica.sweep(ALL, BatchLimits::USUAL) {}
        holds_only_what_can_be_read(&*replica.store, end);
        assert!(entries(&*replica.store, Tree::History).is_empty());
        assert_eq!(entries(&*replica.store, Tree::Changes).len(), 1, "the one to begin at");
    }
}

#[test]
fn one_key_written_very_often_is_swept_in_bounded_batches() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    for n in 0..5_000_u32 {
        replica.write(vec![put(b"hot", &n.to_le_bytes())]);
    }
    replica.write(vec![delete(b"hot")]);
    replica.compact_all();
    replica.flush();
    assert_eq!(entries(&*replica.store, Tree::History).len(), 5_001);
    let mut batches = 0;
    while replica.sweep(ALL, BatchLimits::USUAL) {
        batches += 1;
    }
    assert_eq!(batches, 2, "three batches of at most 2,048 changes");
    assert!(entries(&*replica.store, Tree::History).is_empty());
}

#[test]
fn what_a_flush_brings_after_a_sweep_goes_with_the_next_one() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Hybrid);
    replica.write(vec![put(b"a", b"1")]);
    replica.write(vec![put(b"a", b"2"), put(b"b", b"1")]);
    // Frozen, but not yet in the store, which the sweep finds empty.
    let flush = replica.machine.flush();
    replica.write(vec![delete(b"b")]);
    replica.compact_all();
    assert!(!replica.sweep(ALL, BatchLimits::USUAL));
    replica.store.commit(&flush.writes()).unwrap();
    assert!(!replica.sweep(ALL, BatchLimits::USUAL));
    replica.machine.flushed(&flush);
    replica.flush();
    assert!(!replica.sweep(ALL, BatchLimits::USUAL));
    holds_only_what_can_be_read(&*replica.store, replica.machine.compacted());
    assert!(entries(&*replica.store, Tree::History).is_empty());
    // And after a restart that applies all of it again.
    let hash = replica.hash();
    replica.reopen(&engine);
    assert_eq!(replica.hash(), hash);
}

#[test]
fn a_replica_that_restarts_behind_its_own_sweep_shows_no_half_history() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    for value in [b"1", b"2", b"3"] {
        replica.write(vec![put(b"k", value)]);
    }
    replica.flush();
    replica.compact(Version(4));
    assert!(!replica.sweep(ALL, BatchLimits::USUAL));
    // The root in the store knows nothing of the compaction; the sweep says so.
    replica.store = engine.open(model::STORE).unwrap();
    let view = replica.store.view().unwrap();
    let behind = ShardMachine::open(model::REPLICA, &*view).unwrap();
    let refused = behind.reader().get(&*view, b"k", Some(Version(2)), false);
    assert_eq!(refused, Err(ReadError::Compacted { at: Version(2), compacted: Version(3) }));
    let present = behind.reader().get(&*view, b"k", None, false).unwrap();
    assert_eq!(present.map(|item| item.value), Some(b"3".to_vec()));
}

/// Seed 2122 of the swarm: a leader lost power after a sweep and before a flush. To
/// apply the compaction again it needed its follower, who needed a snapshot.
#[test]
fn a_replica_that_restarts_behind_its_own_sweep_is_copied_all_the_same() {
    for (seed, kind) in [(1, VersionKind::Dense), (2, VersionKind::Hybrid)] {
        let engine = MemoryEngine::default();
        let (mut replica, mut model) = (Replica::born(&engine, kind), Model::default());
        let mut chance = Chance(seed);
        (0..200).for_each(|_| write(&mut replica, &mut model, &mut chance));
        replica.flush();
        let flushed = replica.log.len();
        (0..20).for_each(|_| {
            let ops = ops(&mut chance);
            replica.write(ops.clone());
            model.write(&ops, replica.machine.version());
        });
        let compacted = replica.compact(replica.machine.reader().now());
        // In part: a receiver must not take what is left for all there was.
        assert!(replica.sweep(ALL, FEW));
        let log = replica.log.split_off(flushed);
        replica.reopen(&engine);

        let store = engine.create(StoreId(9)).unwrap();
        let mut receiver = SnapshotReceiver::new(ReplicaId(77), 5);
        let pin = PinnedSnapshot::new(replica.machine.reader(), 1 << 20);
        while !receiver.is_complete() {
            let view = replica.store.view().unwrap();
            let piece = snapshot_piece(&pin, &*view, receiver.position(), 900).unwrap();
            drop(view);
            store.commit(&receiver.accept(&piece).unwrap()).unwrap();
            // A receiver that begins again where its store stands knows as much.
            let view = store.view().unwrap();
            receiver = SnapshotReceiver::resume(&*view, ReplicaId(77), 5).unwrap().unwrap();
        }
        let mut copy = ShardMachine::open(ReplicaId(77), &*store.view().unwrap()).unwrap();
        let refused = copy.reader().get(&*store.view().unwrap(), b"a", Some(Version(2)), false);
        assert!(matches!(refused, Err(ReadError::Compacted { .. })), "{refused:?}");
        for entry in &log {
            copy.apply(&*store.view().unwrap(), entry).unwrap();
            replica.machine.apply(&*replica.store.view().unwrap(), entry).unwrap();
        }
        assert_eq!(copy.compacted(), compacted);
        let hash = copy.reader().state_hash(&*store.view().unwrap()).unwrap();
        assert_eq!(hash, replica.hash());
        compare(&copy.reader(), &*store, &model, compacted, &mut chance);
    }
}

#[test]
fn compaction_never_passes_what_is_closed_and_never_falls() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Hybrid);
    replica.write(vec![put(b"k", b"1")]);
    let ahead = Version(Hlc(u64::MAX >> 1).0);
    assert_eq!(replica.compact(ahead), Version(0), "the future cannot be let go");
    let raised = replica.compact(replica.machine.reader().now());
    assert!(raised > Version(0));
    assert_eq!(replica.compact(Version(1)), raised);
    let later = replica.write(vec![put(b"k", b"2")]);
    let cluster::shard::command::Outcome::Written { version, .. } = later else { panic!() };
    assert!(version > raised);
}

#[test]
fn a_counted_version_is_found_by_its_time() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let mut written = Vec::new();
    for n in 0..40_u8 {
        replica.wall_ms += 1_000;
        replica.write(vec![put(&[n], b"1")]);
        written.push(replica.wall_ms);
        if n == 20 {
            replica.flush();
        }
    }
    replica.compact(Version(5));
    let reader = replica.machine.reader();
    let view = replica.store.view().unwrap();
    let at = |ms: u64| reader.version_at(&*view, Hlc(ms << 16)).unwrap();
    for (index, ms) in written.iter().enumerate().skip(4) {
        let version = Version(index as u64 + 2);
        assert_eq!((at(*ms), at(*ms + 500)), (version, version));
    }
    assert_eq!(at(written[1]), Version(5), "never below what is compacted");
    assert_eq!(at(u64::MAX >> 16), Version(41));
}

#[test]
fn a_snapshot_brings_no_history_that_cannot_be_read_and_outlives_compactions() {
    for (seed, kind) in [(1, VersionKind::Dense), (2, VersionKind::Hybrid)] {
        let engine = MemoryEngine::default();
        let (mut replica, mut model) = (Replica::born(&engine, kind), Model::default());
        let mut chance = Chance(seed);
        (0..300).for_each(|_| write(&mut replica, &mut model, &mut chance));
        let middle = model.changes[model.changes.len() / 2].0;
        replica.compact(middle);
        // Swept in part only: the snapshot leaves out the rest as well.
        replica.sweep(ALL, FEW);
        let pin = PinnedSnapshot::new(replica.machine.reader(), 1 << 20);
        let (pinned_hash, pinned_model) = (replica.hash(), model.clone());

        let store = engine.create(StoreId(9)).unwrap();
        let mut receiver = SnapshotReceiver::new(ReplicaId(77), 5);
        while !receiver.is_complete() {
            let view = replica.store.view().unwrap();
            let piece = snapshot_piece(&pin, &*view, receiver.position(), 900).unwrap();
            drop(view);
            store.commit(&receiver.accept(&piece).unwrap()).unwrap();
            (0..3).for_each(|_| write(&mut replica, &mut model, &mut chance));
            replica.compact_all();
            replica.sweep(pin.reader().floor(), FEW);
        }
        holds_only_what_can_be_read(&*store, middle);
        let view = store.view().unwrap();
        let machine = ShardMachine::open(ReplicaId(77), &*view).unwrap();
        assert_eq!(machine.compacted(), middle);
        assert_eq!(machine.reader().state_hash(&*view).unwrap(), pinned_hash);
        for change in pinned_model.changes.iter().filter(|change| change.0 >= middle) {
            compare(&machine.reader(), &*store, &pinned_model, change.0, &mut chance);
        }
        // Were more swept than the pin allows, it would not send holes.
        replica.flush();
        while replica.sweep(ALL, BatchLimits::USUAL) {}
        let view = replica.store.view().unwrap();
        let refused = snapshot_piece(&pin, &*view, &[], 900);
        assert!(
            matches!(refused, Err(SnapshotError::Read(ReadError::Compacted { .. }))),
            "{refused:?}"
        );
    }
}
