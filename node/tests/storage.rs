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
    Backend, BackendConfig, BackendError, BackendResult, Command, CompactionMode, Compactor,
    Compare, Event, KeyIndex, KeyValue, LeaseManager, LogEntry, MvccStore, OpResponse, RaftNode,
    RangeResult, RequestOp, Revision, StorageError, StorageResult, Version, WatchService,
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
    let pair = vec![RequestOp::put("first", ""), RequestOp::put("second", "")];
    store.txn(vec![], pair, vec![]).unwrap();
    assert_eq!(index.get(b"second", 0).unwrap(), Some(Revision { main: 7, sub: 1 }));
    assert_eq!(index.get(b"none", 0).unwrap(), None);
    store.compact(5).unwrap();
    assert!(text(store.range(b"key1", b"", 4, 0, false).unwrap_err()).starts_with("MVCC error: "));
    let metrics = store.metrics();
    assert_eq!((metrics.current_revision, metrics.compact_revision), (7, 5));
    assert_eq!(metrics.key_count, 3);
    store.compact(7).unwrap();
    // Which of its changes is forgotten with the history.
    assert_eq!(index.get(b"second", 0).unwrap().unwrap().main, 7);
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

/// Whether asked for in tasks or by a thread, it is one store.
#[tokio::test]
async fn services_of_one_store_see_what_each_other_did() {
    let (folder, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(folder.path());
    let (leases, watches) = (LeaseManager::new(store.clone()), WatchService::new(store.clone()));
    let mut followed = watches.follow(b"a", b"z", 0).await.unwrap();

    leases.grant(7, 60).await.unwrap();
    assert!(matches!(leases.grant(7, 60).await, Err(StorageError::Conflict(_))));
    assert!(matches!(leases.grant(0, 60).await, Err(StorageError::InvalidArgument(_))));
    store.put(b"held", b"1", 7).unwrap();
    let (_, kv) = store.put(b"later", b"2", 0).unwrap();
    leases.on_key_put(&kv, 7).await.unwrap();
    leases.on_key_put(&kv, 0).await.expect("zero is none");
    leases.keep_alive(7).await.unwrap();
    let shown = leases.time_to_live(7).await.unwrap().unwrap();
    assert_eq!((shown.granted_ttl, shown.keys), (60, vec![b"held".to_vec(), b"later".to_vec()]));
    assert!((50..=60).contains(&shown.ttl), "{}", shown.ttl);
    assert_eq!(leases.leases().await.unwrap(), [7]);
    leases.revoke(7).await.unwrap();
    assert!(matches!(leases.keep_alive(7).await, Err(StorageError::NotFound)));
    assert_eq!(
        (leases.time_to_live(7).await.unwrap(), leases.leases().await.unwrap()),
        (None, vec![])
    );

    let seen = |event: &Event| (event.event_type.clone(), event.kv.key.clone());
    let told: Vec<_> = watches.watch(b"h", b"i", 2).await.unwrap().iter().map(seen).collect();
    let put = |key: &str| ("Put".to_owned(), key.as_bytes().to_vec());
    assert_eq!(told, [put("held"), ("Delete".to_owned(), b"held".to_vec())]);
    for expected in [put("held"), put("later"), put("later")] {
        assert_eq!(seen(&followed.next().await.unwrap().unwrap()), expected);
    }
    assert!(matches!(watches.follow(b"a", b"", -1).await, Err(StorageError::InvalidArgument(_))));

    let mut node = RaftNode::new(store.clone());
    assert_eq!(node.last_applied_revision(), store.current_revision());
    let put = |key: &str| Command::Put { key: key.into(), value: b"v".to_vec(), lease: 0 };
    for command in [
        put("x1"),
        put("x2"),
        Command::Delete { key: b"x1".to_vec(), range_end: Vec::new() },
        Command::Delete { key: b"y".to_vec(), range_end: b"z".to_vec() },
    ] {
        node.apply_entry(LogEntry { command }).await.unwrap();
    }
    let unknown = Command::Put { key: b"x".to_vec(), value: Vec::new(), lease: 9 };
    let refused = node.apply_entry(LogEntry { command: unknown }).await;
    assert!(matches!(refused, Err(StorageError::NotFound)), "{refused:?}");
    assert_eq!(node.last_applied_revision(), store.current_revision());
    let snapshot = node.create_snapshot().await.unwrap();
    let other = open(second.path());
    let mut restored = RaftNode::new(other.clone());
    restored.restore_snapshot(&snapshot).await.unwrap();
    assert_eq!(keys(&other.range(b"x", b"y", 0, 0, false).unwrap().kvs), [b"x2"]);
    assert!(restored.last_applied_revision() > node.last_applied_revision());
    assert!(matches!(restored.restore_snapshot(b"none").await, Err(StorageError::Snapshot(_))));
}

/// The last store goes with the task that waits for it.
#[tokio::test]
async fn a_store_ends_in_order_though_nobody_waits_for_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let leases = LeaseManager::new(open(folder.path()));
    let asked = tokio::spawn(async move { leases.grant(7, 60).await });
    tokio::task::yield_now().await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    assert_eq!(open(folder.path()).current_revision(), 1);
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

/// The value of before is read by itself if both do not fit into one answer. It was told
/// as an empty one.
#[test]
fn a_watch_tells_no_value_of_before_that_was_let_go_of() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let large = vec![7; VALUE_BYTES_MAX - 1];
    for _ in 0..2 {
        store.put(b"k", &large, 0).expect("put");
    }
    let told = |from| store.watch_events(from).expect("events").pop().expect("one").prev_kv;
    assert_eq!(told(3).expect("it is kept").value, large);
    store.compact(3).expect("compact");
    assert_eq!(told(3), None);
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

#[cfg(feature = "etcd")]
mod etcd {
    use clusterdb::{
        etcd::{
            CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, MemberListRequest,
            PutRequest, RangeRequest, TxnRequest, cluster_client::ClusterClient,
            kv_client::KvClient, lease_client::LeaseClient,
        },
        storage::{ApiService, KvService},
    };
    use tokio::net::{TcpListener, TcpStream};
    use tonic::{Code, transport::Endpoint};

    use super::*;

    fn put(key: &str, value: &str) -> PutRequest {
        PutRequest { key: key.into(), value: value.into(), prev_kv: true, ..Default::default() }
    }

    fn get(key: &str) -> RangeRequest {
        RangeRequest { key: key.into(), ..Default::default() }
    }

    #[tokio::test]
    async fn a_store_answers_as_etcd_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let service: KvService = ApiService::new(store.clone());
        assert_eq!(service.range(get("key1")).await.unwrap().count, 0);
        let first = service.put(put("key1", "1")).await.unwrap();
        assert_eq!((first.header.unwrap().revision, first.prev_kv), (2, None));
        let again = service.put(put("key1", "2")).await.unwrap();
        assert_eq!(again.prev_kv.unwrap().value, b"1");
        assert_eq!(store.range(b"key1", b"", 0, 0, false).unwrap().kvs[0].value, b"2");
        let nothing = service.txn(TxnRequest::default()).await.unwrap();
        assert!(nothing.succeeded && nothing.header.unwrap().revision == 3);
        let gone = DeleteRangeRequest { key: b"key1".to_vec(), ..Default::default() };
        assert_eq!(service.delete_range(gone).await.unwrap().deleted, 1);
        let compaction = CompactionRequest { revision: 4, physical: true };
        service.compact(compaction).await.unwrap();
        let past = service.range(RangeRequest { revision: 2, ..get("key1") }).await.unwrap_err();
        let text = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!((past.code(), past.message()), (Code::OutOfRange, text));
        let empty = service.put(put("", "1")).await.unwrap_err();
        assert_eq!(empty.message(), "etcdserver: key is not provided");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_is_served_at_a_port_until_the_program_ends_that() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let service = ApiService::new(store.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn({
            let service = service.clone();
            async move { service.serve(listener).await }
        });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let mut kv = KvClient::new(channel.clone());
        kv.put(put("by", "port")).await.unwrap();
        assert_eq!(store.range(b"by", b"", 0, 0, false).unwrap().kvs[0].value, b"port");
        let granted = LeaseClient::new(channel.clone())
            .lease_grant(LeaseGrantRequest { ttl: 60, id: 5 })
            .await
            .unwrap();
        assert_eq!(granted.into_inner().ttl, 60);
        assert_eq!(LeaseManager::new(store).leases().await.unwrap(), [5]);
        let mut cluster = ClusterClient::new(channel);
        let listed = cluster.member_list(MemberListRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().members[0].client_ur_ls, [format!("http://{address}")]);
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        kv.put(put("by", "port")).await.expect_err("connections are closed");
        TcpStream::connect(address).await.expect_err("and nobody listens");
        service.put(put("by", "call")).await.expect("the store serves on");

        let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let refused = service.serve(open).await.unwrap_err().to_string();
        assert!(refused.contains("reachable from other machines, in plain text"), "{refused}");
    }
}
