//! The state machine against its model over LMDB, and LMDB as an engine.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

#[path = "../../cluster/tests/model/mod.rs"]
mod model;

use std::{
    fs,
    ops::{Bound, ControlFlow},
    path::Path,
    sync::Arc,
};

use cluster::{
    ids::{ClusterId, NodeId, StoreId},
    mvcc::{compaction::BatchLimits, version::VersionKind},
    ports::engine::{Engine, EngineError, Order, Store, Tree, View, Write},
};
use clusterdb::devices::lmdb::{LmdbConfig, LmdbEngine};

fn config() -> LmdbConfig {
    LmdbConfig { cluster: ClusterId(11), node: NodeId(12), map_bytes: 64 << 20 }
}

fn engine_with(root: &Path, config: LmdbConfig) -> LmdbEngine {
    LmdbEngine::new(root.join("stores"), root.join("quarantine"), config).unwrap()
}

fn engine(root: &Path) -> LmdbEngine {
    engine_with(root, config())
}

fn write(key: &[u8], value: &[u8]) -> Write {
    Write { tree: Tree::Latest, key: key.to_vec(), value: Some(value.to_vec()) }
}

/// Keys in `latest` between the bounds.
fn keys(view: &dyn View, from: Bound<&[u8]>, to: Bound<&[u8]>, order: Order) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    view.scan(Tree::Latest, from, to, order, &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

/// A record as the trees of a store hold them: what lies there is checked at
/// every opening.
fn record(key: &[u8], value: &[u8]) -> Write {
    use cluster::mvcc::{
        record::{Head, Record, RecordKind},
        version::Version,
    };
    let head = Head {
        kind: RecordKind::Value,
        versions: VersionKind::Dense,
        created: Version(1),
        modified: Version(1),
        sub: 0,
        changes: 1,
        lease: cluster::ids::LeaseId(0),
        other: 1,
    };
    write(key, &Record { head, value }.write(key))
}

fn has(view: &dyn View, key: &[u8], value: &[u8]) -> bool {
    view.get(Tree::Latest, key).unwrap() == record(key, value).value.as_deref()
}

#[test]
fn a_replica_over_lmdb_answers_as_the_model_does() {
    for (seed, kind) in [(1, VersionKind::Dense), (2, VersionKind::Hybrid)] {
        let root = tempfile::tempdir().unwrap();
        let applied = model::run(&engine(root.path()), kind, seed, 600);
        assert!(applied > 250, "seed {seed} applied {applied}");
    }
}

#[test]
fn a_store_keeps_what_was_committed_and_is_lent_as_one_handle() {
    let root = tempfile::tempdir().unwrap();
    let disk = engine(root.path());
    let store = disk.create(StoreId(1)).unwrap();
    assert!(Arc::ptr_eq(&store, &disk.open(StoreId(1)).unwrap()));
    assert_eq!(disk.create(StoreId(1)).unwrap_err(), EngineError::Exists(StoreId(1)));
    store.commit(&[record(b"k", b"v")]).unwrap();
    let old = store.view().unwrap();
    store.commit(&[record(b"k", b"w"), record(&[7; 1_024], &[8; 100_000])]).unwrap();
    assert!(has(&*old, b"k", b"v"), "a view never changes");
    drop(old);
    drop(store);
    let store = disk.open(StoreId(1)).unwrap();
    let view = store.view().unwrap();
    assert!(has(&*view, b"k", b"w"));
    assert!(has(&*view, &[7; 1_024], &[8; 100_000]));
    assert_eq!(disk.list().unwrap(), [StoreId(1)]);
    assert!(store.usage().unwrap().used_bytes > 100_000);
}

#[test]
fn scans_keep_their_bounds_in_both_directions_and_bear_empty_keys() {
    let root = tempfile::tempdir().unwrap();
    let store = engine(root.path()).create(StoreId(1)).unwrap();
    store.commit(&[write(b"a", b"1"), write(b"b", b"2"), write(b"c", b"3")]).unwrap();
    let view = store.view().unwrap();
    let (all, none) = (Bound::Unbounded, Vec::<Vec<u8>>::new());
    for order in [Order::Ascending, Order::Descending] {
        assert_eq!(keys(&*view, Bound::Included(b""), all, order).len(), 3);
        assert_eq!(keys(&*view, Bound::Excluded(b""), all, order).len(), 3);
        assert_eq!(keys(&*view, all, Bound::Excluded(b""), order), none);
        assert_eq!(keys(&*view, Bound::Excluded(b"b"), Bound::Included(b"b"), order), none);
        assert_eq!(keys(&*view, Bound::Included(b"c"), Bound::Excluded(b"a"), order), none);
    }
    assert_eq!(
        keys(&*view, Bound::Excluded(b"a"), Bound::Included(b"c"), Order::Descending),
        [b"c".to_vec(), b"b".to_vec()]
    );
    assert_eq!(view.get(Tree::Latest, b"").unwrap(), None);
    assert_eq!(view.get(Tree::Latest, &[1; 5_000]).unwrap(), None);
}

#[test]
fn a_full_map_refuses_the_batch_whole_and_takes_deletes_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let disk = engine_with(root.path(), LmdbConfig { map_bytes: 1 << 20, ..config() });
    let store = disk.create(StoreId(1)).unwrap();
    let mut kept = 0_u32;
    let refused = loop {
        match store.commit(&[record(&kept.to_be_bytes(), &[9; 20_000])]) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, EngineError::Full { .. }), "{refused}");
    let all = |store: &dyn Store| {
        let view = store.view().unwrap();
        keys(&*view, Bound::Unbounded, Bound::Unbounded, Order::Ascending).len()
    };
    assert!(kept > 10);
    assert_eq!(all(&*store), kept as usize, "the refused batch left something behind");
    for key in 0..kept / 2 {
        let key = key.to_be_bytes().to_vec();
        store.commit(&[Write { tree: Tree::Latest, key, value: None }]).unwrap();
    }
    store.commit(&[record(b"again", &[9; 20_000])]).unwrap();
    drop(store);
    // A larger map takes effect at the next opening.
    let store = engine(root.path()).open(StoreId(1)).unwrap();
    store.commit(&[record(b"large", &vec![1; 4 << 20])]).unwrap();
}

#[test]
fn a_store_beyond_a_lowered_limit_keeps_all_and_takes_deletes() {
    let root = tempfile::tempdir().unwrap();
    let large = engine(root.path());
    let store = large.create(StoreId(1)).unwrap();
    let all: Vec<_> = (0..40_u32).map(|key| record(&key.to_be_bytes(), &[9; 1 << 20])).collect();
    store.commit(&all).unwrap();
    drop(store);
    let small = engine_with(root.path(), LmdbConfig { map_bytes: 16 << 20, ..config() });
    let store = small.open(StoreId(1)).unwrap();
    let usage = store.usage().unwrap();
    assert!(usage.limit_bytes == 16 << 20 && usage.used_bytes > 40 << 20, "{usage:?}");
    // A delete copies first: pages of its own size and those on the way.
    let moved = Write { tree: Tree::History, ..record(b"old", &[9; 1 << 20]) };
    let gone = Write { tree: Tree::Latest, key: 0_u32.to_be_bytes().to_vec(), value: None };
    store.commit(&[moved, gone]).unwrap();
    assert!(store.view().unwrap().get(Tree::Latest, &39_u32.to_be_bytes()).unwrap().is_some());
}

#[test]
fn a_store_of_another_node_or_a_newer_format_is_refused() {
    let root = tempfile::tempdir().unwrap();
    drop(engine(root.path()).create(StoreId(1)).unwrap());
    let stranger = LmdbConfig { node: NodeId(99), ..config() };
    let refused = engine_with(root.path(), stranger).open(StoreId(1)).unwrap_err();
    assert!(matches!(refused, EngineError::Foreign { .. }), "{refused}");
    let disk = engine(root.path());
    let [one, two] = ["stores/store-1", "stores/store-2"].map(|name| root.path().join(name));
    fs::rename(&one, &two).unwrap();
    let refused = disk.open(StoreId(2)).unwrap_err();
    assert!(matches!(refused, EngineError::Foreign { .. }), "{refused}");
    fs::rename(&two, &one).unwrap();
    let store = disk.open(StoreId(1)).unwrap();
    let mut stamp = store.view().unwrap().get(Tree::Root, &[0; 8]).unwrap().unwrap().to_vec();
    stamp[0] = 2;
    store.commit(&[Write { tree: Tree::Root, key: vec![0; 8], value: Some(stamp) }]).unwrap();
    drop(store);
    let newer = EngineError::NewerFormat { store: StoreId(1), found: 2, supported: 1 };
    assert_eq!(disk.open(StoreId(1)).unwrap_err(), newer);
}

#[test]
fn quarantine_keeps_the_bytes_and_destroy_removes_them() {
    let root = tempfile::tempdir().unwrap();
    let disk = engine(root.path());
    for id in [1, 2] {
        disk.create(StoreId(id)).unwrap().commit(&[record(b"k", b"v")]).unwrap();
    }
    disk.quarantine(StoreId(1)).unwrap();
    assert!(root.path().join("quarantine/store-1.1/data.mdb").is_file());
    disk.destroy(StoreId(2)).unwrap();
    assert_eq!(disk.list().unwrap(), []);
    assert_eq!(disk.open(StoreId(1)).unwrap_err(), EngineError::Missing(StoreId(1)));
    assert_eq!(disk.destroy(StoreId(2)).unwrap_err(), EngineError::Missing(StoreId(2)));
    assert_eq!(fs::read_dir(root.path().join("stores")).unwrap().count(), 0);
}

#[test]
fn a_start_removes_what_a_crash_left_half_made_and_half_destroyed() {
    let root = tempfile::tempdir().unwrap();
    for name in [".new-store-4", ".gone-store-5"] {
        let half = root.path().join("stores").join(name);
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("data.mdb"), b"half").unwrap();
    }
    let disk = engine(root.path());
    assert_eq!(fs::read_dir(root.path().join("stores")).unwrap().count(), 0);
    disk.create(StoreId(4)).unwrap();
}

#[test]
fn a_missing_or_empty_file_is_damage_not_a_new_store() {
    let root = tempfile::tempdir().unwrap();
    let disk = engine(root.path());
    drop(disk.create(StoreId(1)).unwrap());
    let file = root.path().join("stores/store-1/data.mdb");
    fs::write(&file, b"").unwrap();
    let refused = disk.open(StoreId(1)).unwrap_err();
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
    fs::remove_file(&file).unwrap();
    let refused = disk.open(StoreId(1)).unwrap_err();
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
}

/// Room comes back while the store is in use: nobody has to stop and defragment.
#[test]
fn a_store_does_not_grow_over_rounds_of_puts_deletes_and_compactions() {
    const KEYS: u32 = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path());
    let mut replica = model::Replica::born(&engine, VersionKind::Dense);
    let (mut files, mut used) = (Vec::new(), Vec::new());
    for round in 0..12_u32 {
        for part in 0..KEYS / 100 {
            let key = |n: u32| format!("key/{:05}", part * 100 + n).into_bytes();
            // Half of the keys live for a round, others lose their value.
            let value = vec![u8::try_from(round).unwrap(); 1_000];
            let puts = (0..100).map(|n| model::put(&key(n), &value)).collect();
            replica.write(puts);
            let deletes = (0..100).step_by(2).map(|n| model::delete(&key(n))).collect();
            replica.write(deletes);
        }
        replica.flush();
        let mut batches = 0;
        let upto = replica.compact(replica.machine.reader().now());
        while replica.sweep(upto, BatchLimits::USUAL) {
            batches += 1;
            // Between any two batches it is written and read.
            replica.write(vec![model::put(b"between", &[1])]);
            assert!(replica.store.view().unwrap().get(Tree::Latest, b"key/00001").is_ok());
        }
        let usage = replica.store.usage().unwrap();
        used.push(usage.used_bytes);
        files.push(usage.file_bytes);
        println!("round {round}: {usage:?} after {batches} batches");
    }
    // Two megabytes are put each round; only the first rounds find their size.
    assert!(files[11] < files[3] + (1 << 20), "{files:?}");
    assert!(used[11] < used[3] + (1 << 20), "{used:?}");
}
