//! The versioned store as a library: what the guide to it shows, against a node
//! inside this process.
#![expect(
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::unused_async,
    reason = "a test fails by panicking, and a guide is followed as it is written"
)]

use std::{path::Path, sync::Arc, time::Duration};

use cluster::limits::VALUE_BYTES_MAX;
use clusterdb::storage::{
    Backend, BackendConfig, BackendError, BackendResult, CompactionMode, Compactor, Compare, Event,
    KeyIndex, KeyValue, MvccStore, OpResponse, RangeResult, RequestOp, Revision, StorageError,
    StorageResult, Version,
};
use futures_util::StreamExt;

fn config(data_dir: &Path) -> BackendConfig {
    BackendConfig {
        data_dir: data_dir.to_path_buf(),
        cache_size_mb: 64,
        flush_interval_ms: 100,
        compression: false,
    }
}

fn open(data_dir: &Path) -> Arc<MvccStore> {
    let backend = Backend::new(config(data_dir)).expect("a node");
    Arc::new(MvccStore::new(backend).expect("a store"))
}

/// As in the guide: a service over the store, asked from tasks.
struct KvService {
    store: Arc<MvccStore>,
}

#[derive(Default)]
struct RangeRequest {
    key: Vec<u8>,
    range_end: Vec<u8>,
    revision: i64,
    limit: i64,
    count_only: bool,
}

impl KvService {
    async fn range(&self, request: RangeRequest) -> StorageResult<RangeResult> {
        self.store.range(
            &request.key,
            &request.range_end,
            request.revision,
            request.limit,
            request.count_only,
        )
    }
}

fn text(error: StorageError) -> String {
    match error {
        StorageError::NotFound => "Key not found".to_owned(),
        StorageError::Conflict(_) => "Transaction conflict".to_owned(),
        StorageError::InvalidArgument(text) => text,
        StorageError::Mvcc(text) => format!("MVCC error: {text}"),
        StorageError::Backend(error) => format!("Backend error: {error}"),
        _ => "Storage error".to_owned(),
    }
}

fn keys(kvs: &[KeyValue]) -> Vec<&[u8]> {
    kvs.iter().map(|kv| kv.key.as_slice()).collect()
}

#[tokio::test]
async fn the_guide_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let service = KvService { store: store.clone() };
    let empty = service.range(RangeRequest { key: b"key1".to_vec(), ..Default::default() }).await;
    assert_eq!(empty.unwrap().count, 0);
    assert_eq!(store.current_revision(), 1, "of an empty store, as in etcd");

    let (revision, kv) = store.put(b"key1", b"one", 0).unwrap();
    assert_eq!((revision, kv.create_revision, kv.version), (2, 2, 1));
    let (revision, kv) = store.put(b"key1", b"two", 0).unwrap();
    assert_eq!((revision, kv.create_revision, kv.mod_revision, kv.version), (3, 2, 3, 2));
    store.put(b"key2", b"", 0).unwrap();
    let old = store.range(b"key1", b"", 2, 0, false).unwrap();
    assert_eq!(old.kvs[0].value, b"one");
    let page = store.range(b"key", b"\0", 0, 1, false).unwrap();
    assert_eq!((keys(&page.kvs), page.more, page.count), (vec![&b"key1"[..]], true, 2));
    let counted = store.range(b"key", b"kez", 0, 0, true).unwrap();
    assert_eq!((counted.kvs.len(), counted.count), (0, 2));

    let (revision, deleted) = store.delete_range(b"key1", &[]).unwrap();
    assert_eq!((revision, keys(&deleted)), (5, vec![&b"key1"[..]]));
    let told: Vec<Event> = store.watch_events(3).unwrap();
    let plain: Vec<_> = told.iter().map(|e| (e.event_type.as_str(), e.revision.main)).collect();
    assert_eq!(plain, [("Put", 3), ("Put", 4), ("Delete", 5)]);
    assert_eq!(told[0].prev_kv.as_ref().unwrap().value, b"one");

    let swap = |seen: i64, value: &str| {
        let seen = Version(u64::try_from(seen).unwrap());
        let compares = vec![Compare::modified("key2", seen)];
        let then = vec![RequestOp::put("key2", value), RequestOp::get("key2")];
        store.txn(compares, then, vec![RequestOp::get("key2")]).unwrap()
    };
    let won = swap(4, "won");
    assert!(won.succeeded);
    assert_eq!((won.revision, won.responses.len()), (6, 2));
    let lost = swap(4, "lost");
    assert!(!lost.succeeded);
    let OpResponse::Range(found) = &lost.responses[0] else { panic!("{lost:?}") };
    assert_eq!((found.kvs[0].value.as_slice(), lost.revision), (&b"won"[..], 6));
    let twice = vec![RequestOp::put("a", "1"), RequestOp::put("a", "2")];
    assert_eq!(text(store.txn(vec![], twice, vec![]).unwrap_err()), "Transaction conflict");

    let index: KeyIndex = store.key_index();
    assert_eq!(index.get(b"key2", 4).unwrap(), Some(Revision { main: 4, sub: 0 }));
    store.compact(5).unwrap();
    assert!(text(store.range(b"key1", b"", 4, 0, false).unwrap_err()).starts_with("MVCC error: "));
    let metrics = store.metrics();
    assert_eq!((metrics.current_revision, metrics.compact_revision), (6, 5));
    assert_eq!(metrics.key_count, 1);
    assert!(metrics.db_size_bytes > 0);
}

#[test]
fn a_stream_of_events_goes_on_where_another_one_stood() {
    let scratch = tempfile::tempdir().unwrap();
    let store = open(scratch.path());
    let mut live = store.watch(b"a", b"c", 0).unwrap();
    assert_eq!(live.next_revision(), 2);
    store.put(b"a", b"1", 0).unwrap();
    store.put(b"c", b"other", 0).unwrap();
    let pair = vec![RequestOp::put("a", "2"), RequestOp::put("b", "1")];
    store.txn(vec![], pair, vec![]).unwrap();
    store.delete_range(b"a", b"").unwrap();
    let seen =
        |event: &Event| (event.event_type.clone(), event.kv.key.clone(), event.revision.main);
    let put = |key: &[u8], at| ("Put".to_owned(), key.to_vec(), at);
    let mut next = || seen(&live.blocking_next().unwrap().unwrap());
    assert_eq!([next(), next()], [put(b"a", 2), put(b"a", 4)]);
    // Half of revision 4 was told.
    assert_eq!(live.next_revision(), 4);
    drop(live);
    let mut later = store.watch(b"a", b"c", 4).unwrap();
    let told: Vec<_> = (0..3).map(|_| later.blocking_next().unwrap().unwrap()).collect();
    let deleted = ("Delete".to_owned(), b"a".to_vec(), 5);
    let all: Vec<_> = told.iter().map(seen).collect();
    assert_eq!(all, [put(b"a", 4), put(b"b", 4), deleted]);
    assert_eq!(told[0].prev_kv.as_ref().unwrap().value, b"1");
    assert_eq!(later.next_revision(), 6);

    // One that waits hears at once, on a thread of its own.
    let waiting = std::thread::spawn(move || later.blocking_next().unwrap().unwrap());
    store.put(b"b", b"2", 0).unwrap();
    assert_eq!(seen(&waiting.join().unwrap()), put(b"b", 6));

    store.compact(5).unwrap();
    let mut gone = store.watch(b"a", b"c", 3).unwrap();
    let error = gone.blocking_next().unwrap().unwrap_err();
    assert!(matches!(error, StorageError::Mvcc(_)), "{error}");
    assert!(gone.blocking_next().is_none(), "it has ended");
    assert!(matches!(store.watch(b"a", b"", -1), Err(StorageError::InvalidArgument(_))));
    let mut open = store.watch(b"a", b"", 0).unwrap();
    drop(store);
    // With an error if the node was asked as it ended.
    assert!(!matches!(open.blocking_next(), Some(Ok(_))), "it ends with the store");
}

/// More than pages and channels hold, none of it taken while it is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stood_still_tells_everything_in_order() {
    let scratch = tempfile::tempdir().unwrap();
    let store = open(scratch.path());
    let mut events = store.watch(b"\0", b"\0", 0).unwrap();
    for n in 0..24_u8 {
        store.put(&[b'k', n], &vec![n; 1 << 20], 0).unwrap();
    }
    for n in 0..24_u8 {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.kv.key, event.kv.value.len()), (vec![b'k', n], 1 << 20));
    }
    assert_eq!(events.next_revision(), 26);
}

#[test]
fn leases_end_by_themselves_and_take_their_keys_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(text(store.put(b"k", b"v", 7).unwrap_err()), "Key not found");
    store.put_lease(7, 60).unwrap();
    assert_eq!(text(store.put_lease(7, 60).unwrap_err()), "Transaction conflict");
    store.put(b"mine", b"v", 7).unwrap();
    let (_, other) = store.put(b"other", b"kept", 0).unwrap();
    store.associate_key_with_lease(&other, 7).unwrap();
    assert_eq!(store.get_keys_by_lease(7).unwrap(), [b"mine".to_vec(), b"other".to_vec()]);
    assert_eq!(store.range(b"other", b"", 0, 0, false).unwrap().kvs[0].value, b"kept");
    store.keep_lease_alive(7).unwrap();
    // As the guide revokes: key by key.
    for key in store.get_keys_by_lease(7).unwrap() {
        store.delete_range(&key, &[]).unwrap();
    }
    store.put_lease(8, 2).unwrap();
    store.put(b"short", b"", 8).unwrap();
    let began = std::time::Instant::now();
    while store.range(b"short", b"", 0, 0, true).unwrap().count > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
}

#[test]
fn what_was_written_is_there_after_the_end_and_one_at_a_time_has_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put(b"kept", b"v", 0).unwrap();
    let second: BackendResult<Backend> = Backend::new(config(folder.path()));
    assert!(matches!(second, Err(BackendError::Start(_))), "{second:?}");
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.range(b"kept", b"", 0, 0, false).unwrap().kvs[0].value, b"v");
    assert_eq!(store.current_revision(), 2);
}

#[test]
fn a_restore_brings_back_keys_and_leases_at_revisions_nobody_has_seen() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(first.path());
    store.put_lease(9, 600).unwrap();
    store.put(b"a", b"1", 9).unwrap();
    store.put(b"b", b"2", 0).unwrap();
    let snapshot = store.snapshot().unwrap();
    let seen = store.current_revision();
    let other = open(second.path());
    other.put(b"gone", b"", 0).unwrap();
    other.restore(&snapshot).unwrap();
    let all = other.range(b"\0", b"\0", 0, 0, false).unwrap();
    assert_eq!(keys(&all.kvs), [b"a", b"b"]);
    assert!(all.kvs.iter().all(|kv| kv.mod_revision > seen), "{all:?}");
    assert_eq!(other.get_keys_by_lease(9).unwrap(), [b"a"]);
    let told = other.watch_events(3).unwrap();
    let kinds: Vec<_> = told.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(kinds, ["Delete", "Put", "Put"], "caches are told");
    let mut bent = snapshot.clone();
    bent[20] ^= 1;
    for bytes in [&bent[..], &snapshot[..3], &[]] {
        assert!(matches!(other.restore(bytes), Err(StorageError::Snapshot(_))));
    }
}

/// What was written was read back in the same answer, which has room for a mebibyte.
#[test]
fn a_put_takes_the_values_that_a_transaction_takes() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let most = vec![7; VALUE_BYTES_MAX];
    store.put(b"k", b"small", 0).expect("put");
    let (revision, kv) = store.put(b"k", &most, 0).expect("a put");
    assert_eq!((revision, kv.version, kv.value.len()), (3, 2, most.len()));
    store.put_lease(7, 600).expect("a lease");
    store.associate_key_with_lease(&kv, 7).expect("whatever its value");
    let read = store.range(b"k", b"", 0, 0, false).expect("range");
    assert_eq!((read.kvs[0].lease, &read.kvs[0].value), (7, &most));
    let more = vec![7; VALUE_BYTES_MAX + 1];
    let by_put = store.put(b"k", &more, 0).expect_err("too large").to_string();
    let by_transaction = store.txn(vec![], vec![RequestOp::put("k", more)], vec![]);
    assert_eq!(by_put, by_transaction.expect_err("too large").to_string());
    assert!(by_put.contains("at most 4194304 bytes (4 MiB)"), "{by_put}");
}

#[test]
fn a_delete_tells_what_was_there_however_large_it_is() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    store.put(b"a", b"small", 0).expect("put");
    let large = vec![7; VALUE_BYTES_MAX];
    for key in [b"b", b"z"] {
        store.put(key, &large, 0).expect("put");
    }
    let (_, deleted) = store.delete_range(b"z", b"").expect("one");
    assert_eq!(deleted[0].value, large);
    let (_, deleted) = store.delete_range(b"a", b"zz").expect("the others");
    assert_eq!((keys(&deleted), &deleted[1].value), (vec![&b"a"[..], b"b"], &large));
}

#[test]
fn a_compactor_lets_go_by_itself_and_a_range_of_any_size_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mode = CompactionMode::Periodic(Duration::from_millis(100));
    let compactor = Compactor::new(store.clone(), mode, Duration::from_millis(300)).run();
    store.put(b"k", b"old", 0).unwrap();
    store.put(b"k", b"new", 0).unwrap();
    let began = std::time::Instant::now();
    while store.compact_revision() < 3 {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing is let go of");
        std::thread::sleep(Duration::from_millis(50));
    }
    compactor.stop();
    // More than one transaction meets: 12 times 1,000.
    for thousand in 0..12 {
        let puts = (0..1_000).map(|n| RequestOp::put(format!("many/{thousand:02}{n:03}"), "v"));
        store.txn(vec![], puts.collect(), vec![]).unwrap();
    }
    let (_, deleted) = store.delete_range(b"many/", b"many0").unwrap();
    assert_eq!(deleted.len(), 12_000);
    assert_eq!(store.metrics().key_count, 1);
}

#[cfg(feature = "etcd")]
#[test]
fn what_a_store_refuses_has_its_code_of_grpc() {
    use tonic::{Code, Status};
    let cause = || "why".to_owned();
    for (error, code, text) in [
        (StorageError::NotFound, Code::NotFound, "Key not found"),
        (StorageError::Conflict(cause()), Code::FailedPrecondition, "Transaction conflict"),
        (StorageError::InvalidArgument(cause()), Code::InvalidArgument, "why"),
        (StorageError::Mvcc(cause()), Code::Internal, "MVCC error: why"),
        (
            BackendError::Start(cause()).into(),
            Code::Internal,
            "Backend error: the node in this program does not start: why",
        ),
        (StorageError::Snapshot(cause()), Code::Internal, "Storage error"),
    ] {
        let status = Status::from(error);
        assert_eq!((status.code(), status.message()), (code, text));
    }
}
