//! Saved snapshots and their restores, with real nodes: what comes back, what is
//! refused, who notices, and what a kill in the middle leaves.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "common/doors.rs"]
mod doors;
#[path = "common/need.rs"]
mod need;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::Item,
    shard::{
        restore::SavedLease,
        saved::{BLOCK_BYTES, SavedRecord, write_header},
    },
};
use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        HashKvRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
        RequestOp, SnapshotRequest, TxnRequest, WatchCreateRequest, WatchRequest,
        kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        request_op::Request, watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::KeyValue,
};
use common::{CDB, Cluster, LONG, until};
use doors::{Doors, get, put};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tonic::transport::Channel;

/// The lease of the tests.
const LEASE: i64 = 77;
/// What a restore adds unless it is told otherwise.
const BUMP: i64 = 1_000_000_000;

type Kv = KvClient<Channel>;

/// All keys, page by page.
async fn all(kv: &mut Kv) -> Vec<KeyValue> {
    let (mut found, mut from) = (Vec::<KeyValue>::new(), vec![0]);
    loop {
        let range = RangeRequest {
            key: from.clone(),
            range_end: vec![0],
            limit: 1_000,
            ..RangeRequest::default()
        };
        let page = kv.range(range).await.unwrap().into_inner();
        found.extend(page.kvs);
        if !page.more {
            return found;
        }
        from = found.last().unwrap().key.clone();
        from.push(0);
    }
}

/// Keys that were changed more than once, some of them large, some under a lease.
async fn fill(kv: &mut Kv, channel: Channel) {
    let grant = LeaseGrantRequest { id: LEASE, ttl: 600 };
    LeaseClient::new(channel).lease_grant(grant).await.unwrap();
    for round in 0..2 {
        for part in 0..20 {
            let puts = (0..100).map(|n| PutRequest {
                key: format!("key/{:05}", part * 100 + n).into_bytes(),
                value: format!("value {round} of {part} {n}").into_bytes(),
                lease: if n % 10 == 3 { LEASE } else { 0 },
                ..PutRequest::default()
            });
            let success =
                puts.map(|put| RequestOp { request: Some(Request::RequestPut(put)) }).collect();
            kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
        }
    }
    for n in 0..30_u8 {
        kv.put(put(&format!("large/{n}"), vec![n; 300_000])).await.unwrap();
    }
    kv.delete_range(clusterdb::doors::etcd::proto::etcdserverpb::DeleteRangeRequest {
        key: b"key/00007".to_vec(),
        ..Default::default()
    })
    .await
    .unwrap();
}

/// Saves a snapshot as `etcdctl` does, by it if it is here.
async fn save(doors: &Doors, file: &Path) {
    let done = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &doors.addresses[0].to_string(), "snapshot", "save"])
        .arg(file)
        .output();
    if let Ok(done) = done {
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    need::missing("etcdctl");
    // A client of the test saves it then.
    let mut maintenance = MaintenanceClient::new(doors.channel(1).await);
    let mut pieces = maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend(piece.blob);
    }
    fs::write(file, bytes).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A command that runs beside the test; ended with it.
struct Beside {
    child: Child,
    /// Where its errors go.
    errors: tempfile::NamedTempFile,
}

impl Beside {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut command = Command::new(CDB);
        command.env_remove("CDB_PROFILE").arg("--profile").arg(&cluster.profile).args(args);
        let errors = tempfile::NamedTempFile::new().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors.reopen().unwrap());
        Self { child: command.spawn().unwrap(), errors }
    }

    /// What it said so far among its errors.
    fn said(&self) -> String {
        fs::read_to_string(self.errors.path()).unwrap()
    }

    /// Waits for its end; its exit code and its errors.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = until("its end", LONG * 4, || self.child.try_wait().unwrap());
        (status.code(), self.said())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// All keys of a volume by our own door: key, created, modified, changes, lease.
fn shown(cluster: &Cluster, volume: &str) -> Vec<(String, i64, i64, i64, i64, String)> {
    let args = ["kv", "get", volume, "--prefix", "-o", "json"];
    let json = cluster.cdb(&args).ok().json();
    let items = json["items"].as_array().unwrap();
    let number = |item: &Value, name: &str| item[name].as_i64().unwrap_or_default();
    let word = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    items
        .iter()
        .map(|item| {
            (
                word(item, "key"),
                number(item, "created"),
                number(item, "modified"),
                number(item, "changes"),
                number(item, "lease"),
                word(item, "value"),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_comes_back_and_whoever_watched_is_told() {
    let doors = Doors::open("").serve().await;
    let cluster = &doors.cluster;
    let channel = doors.channel(1).await;
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    fill(&mut kv, channel.clone()).await;
    let before = all(&mut kv).await;
    assert_eq!(before.len(), 2_029);
    let (file, own) = (cluster.root.join("saved.db"), cluster.root.join("own.db"));
    save(&doors, &file).await;
    let revision = kv.range(get("none", "")).await.unwrap().into_inner().header.unwrap().revision;

    // The same by our own command.
    let saved = cluster.cdb(&["volume", "snapshot", "etcd", text(&own), "-o", "json"]).ok().json();
    assert_eq!((&saved["keys"], &saved["leases"]), (&2_029.into(), &1.into()));
    assert_eq!(saved["version"], revision);
    cluster.cdb(&["volume", "snapshot", "etcd", text(&own)]).fails(1, &["E0602"]);
    let told = cluster.cdb(&["volume", "restore", "any", text(&file), "--dry-run"]).ok().text();
    assert!(told.contains("2029 keys, 1 leases"), "{told}");

    // Into a new volume: everything is as it was, and a watcher is told.
    cluster.cdb(&["volume", "create", "copy", "--kind", "single"]).ok();
    let watch = Beside::start(cluster, &["kv", "watch", "copy", "--rev", "2"]);
    refuses_what_is_no_snapshot(cluster, &file);
    let restored = cluster.cdb(&["volume", "restore", "copy", text(&file), "-o", "json"]).ok();
    assert_eq!(restored.json()["version"], revision + BUMP);
    let (code, said) = watch.ended();
    assert!(code == Some(3) && said.contains("E0105"), "{code:?} {said}");
    assert_eq!(shown(cluster, "copy"), shown(cluster, "etcd"));
    let shown = cluster.cdb(&["volume", "show", "copy", "-o", "json"]).ok().json();
    let holds = &shown["shards"][0];
    assert_eq!((&holds["count"], &holds["restoring"]), (&2_029.into(), &false.into()));
    assert_eq!(holds["compacted"], revision + BUMP);
    let again = cluster.cdb(&["volume", "restore", "copy", text(&file)]).ok();
    assert!(again.stderr.contains("nothing was done"), "{}", again.stderr);
    cluster.cdb(&["volume", "restore", "copy", text(&own)]).fails(4, &["E0306", "not empty"]);
    cluster.cdb(&["watch", "copy", "--rev", &revision.to_string()]).fails(3, &["E0105"]);

    // In the place of what is there: a client of etcd's is told too.
    let mut told = watching(channel.clone()).await;
    kv.put(put("key/00001", b"changed since".to_vec())).await.unwrap();
    kv.put(put("since", b"new since".to_vec())).await.unwrap();
    let args = ["volume", "restore", "etcd", text(&file), "--replace"];
    cluster.cdb(&args).fails(2, &["needs a confirmation"]);
    cluster.cdb(&[&args[..], &["--yes"]].concat()).ok();
    let compacted = loop {
        let news = timeout(LONG, told.message()).await.unwrap().unwrap().unwrap();
        if news.canceled {
            break news.compact_revision;
        }
    };
    assert!(compacted > revision + BUMP, "{compacted}");
    same_but_for_versions(&before, &all(&mut kv).await);
    let asked = LeaseTimeToLiveRequest { id: LEASE, keys: true };
    let lease = LeaseClient::new(channel).lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!((lease.granted_ttl, lease.keys.len()), (600, 200));
    assert!((400..600).contains(&lease.ttl), "{}", lease.ttl);
    let put = kv.put(put("after", vec![])).await.unwrap().into_inner();
    assert_eq!(put.header.unwrap().revision, compacted + 1);
}

/// A watch of everything from now on, that is there.
async fn watching(
    channel: Channel,
) -> tonic::Streaming<clusterdb::doors::etcd::proto::etcdserverpb::WatchResponse> {
    let create =
        WatchCreateRequest { key: vec![0], range_end: vec![0], ..WatchCreateRequest::default() };
    let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let asks = futures_util::StreamExt::chain(
        futures_util::stream::iter([first]),
        futures_util::stream::pending(),
    );
    let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
    let mut told = client.watch(asks).await.unwrap().into_inner();
    assert!(told.message().await.unwrap().unwrap().created);
    told
}

/// All that a key has but its versions, which are shifted alike.
fn same_but_for_versions(before: &[KeyValue], after: &[KeyValue]) {
    assert_eq!(before.len(), after.len());
    let shift = after[0].mod_revision - before[0].mod_revision;
    assert!(shift > 0);
    for (before, after) in before.iter().zip(after) {
        let shifted = KeyValue {
            create_revision: before.create_revision + shift,
            mod_revision: before.mod_revision + shift,
            ..before.clone()
        };
        assert!(&shifted == after, "{}", String::from_utf8_lossy(&before.key));
    }
}

fn refuses_what_is_no_snapshot(cluster: &Cluster, file: &Path) {
    let whole = fs::read(file).unwrap();
    let bad = cluster.root.join("bad.db");
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&bad, bytes).unwrap();
        cluster
            .cdb(&["volume", "restore", "copy", text(&bad)])
            .fails(1, &["E0608", "cannot be restored", words]);
    };
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 1;
    refused(&bent, "checksum");
    refused(&whole[..whole.len() / 2], "cut short");
    refused(&whole[..whole.len() / 2 / 512 * 512 + 32], "cut short");
    refused(b"SQLite format 3", "no saved snapshot");
    let mut newer = whole.clone();
    newer[8] = 9;
    refused(&newer, "format 9");
    cluster.cdb(&["volume", "restore", "none", text(file)]).fails(3, &["E0101"]);
    cluster.volume("hashed", 2);
    cluster.cdb(&["volume", "restore", "hashed", text(file)]).fails(1, &["not of kind single"]);
    let nowhere: PathBuf = cluster.root.join("nowhere");
    let args = ["volume", "snapshot", "hashed", text(&nowhere)];
    cluster.cdb(&args).fails(1, &["not of kind single"]);
    cluster.cdb(&["volume", "restore", "copy", text(&nowhere)]).fails(1, &["E0602"]);
    let kept = shown(cluster, "copy");
    assert!(kept.is_empty(), "nothing was restored: {} keys", kept.len());
}

/// Keys of the file that is written by the test.
const KEYS: u64 = 40_000;

fn key(n: u64) -> String {
    format!("k{n:08}")
}

fn item(n: u64) -> Item {
    let value = vec![u8::try_from(n % 251).unwrap(); 1_000];
    Item {
        key: key(n).into_bytes(),
        value_bytes: value.len() as u64,
        value,
        created: Version(2 + n),
        modified: Version(KEYS + n),
        changes: 1 + n % 7,
        modified_ms: 1_700_000_000_000,
        lease: LeaseId(if n.is_multiple_of(100) { 77 } else { 0 }),
    }
}

/// Forty megabytes: some forty parts.
fn large_file(path: &Path) {
    let mut bytes = write_header(Version(2 * KEYS)).to_vec();
    for n in 0..KEYS {
        SavedRecord::Key(item(n)).write(&mut bytes);
    }
    let lease = SavedLease { lease: LeaseId(77), ttl_ms: 900_000, remaining_ms: 300_000 };
    SavedRecord::Lease(lease).write(&mut bytes);
    SavedRecord::End { keys: KEYS, leases: 1 }.write(&mut bytes);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_is_shown_to_nobody_and_goes_on_where_it_stood() {
    let mut doors = Doors::open("").serve().await;
    let file = doors.cluster.root.join("large.db");
    large_file(&file);
    let mut kv = KvClient::new(doors.channel(3).await);
    let restore = ["volume", "restore", "etcd", text(&file)];

    // The command dies, and then a node, in the middle.
    let first = Beside::start(&doors.cluster, &restore);
    let began = async { while kv.range(get("none", "")).await.is_ok() {} };
    timeout(LONG, began).await.expect("a restore that began");
    until("a part of it", LONG, || (keys_of(&doors.cluster) > 0).then_some(()));
    drop(first);
    let refused = kv.range(get("k", "l")).await.unwrap_err();
    assert!(refused.message().contains("being restored"), "{}", refused.message());
    let shown = doors.cluster.cdb(&["volume", "show", "etcd"]).ok().text();
    assert!(shown.contains("being restored"), "{shown}");
    let refused = kv.put(put("k", vec![])).await.unwrap_err();
    assert!(refused.message().contains("being restored"), "{}", refused.message());
    let other = doors.cluster.root.join("other.db");
    fs::write(&other, other_file()).unwrap();
    let args = ["volume", "restore", "etcd", text(&other)];
    doors.cluster.cdb(&args).fails(4, &["E0306", "another snapshot"]);

    let stood = keys_of(&doors.cluster);
    let second = Beside::start(&doors.cluster, &restore);
    until("another part of it", LONG, || {
        (second.said().contains("goes on") && keys_of(&doors.cluster) > stood).then_some(())
    });
    doors.cluster.nodes[0].kill();
    let (code, said) = second.ended();
    assert!(said.contains("goes on behind key k"), "{said}");
    if code != Some(0) {
        eprintln!("the second run ended with the node: {said}");
    }
    doors.cluster.cdb(&restore).ok();
    let found = all(&mut kv).await;
    assert_eq!(found.len() as u64, KEYS);
    for (n, found) in (0..).zip(&found) {
        let item = item(n);
        let told = (&found.key, &found.value, found.create_revision, found.mod_revision);
        let (created, modified) = (item.created.0.cast_signed(), item.modified.0.cast_signed());
        assert!(told == (&item.key, &item.value, created, modified), "{}", key(n));
        assert_eq!(
            (found.version, found.lease),
            (item.changes.cast_signed(), item.lease.0.cast_signed())
        );
    }
    let asked = LeaseTimeToLiveRequest { id: LEASE, keys: true };
    let mut leases = LeaseClient::new(doors.channel(2).await);
    let lease = leases.lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!((lease.granted_ttl, lease.keys.len() as u64), (900, KEYS / 100));
    assert!((250..=300).contains(&lease.ttl), "{}: its time stood still", lease.ttl);
    all_agree(&mut doors).await;
}

/// How many keys are there, shown or not yet.
fn keys_of(cluster: &Cluster) -> u64 {
    let told = cluster.cdb(&["volume", "show", "etcd", "-o", "json"]).ok().json();
    told["shards"][0]["count"].as_u64().unwrap()
}

/// Another, empty snapshot.
fn other_file() -> Vec<u8> {
    let mut bytes = write_header(Version(5)).to_vec();
    SavedRecord::End { keys: 0, leases: 0 }.write(&mut bytes);
    bytes.resize(BLOCK_BYTES, 0);
    let sum = Sha256::digest(&bytes);
    [bytes, sum.to_vec()].concat()
}

/// The node that was killed has the same as the others in the end.
async fn all_agree(doors: &mut Doors) {
    doors.cluster.restart(1);
    doors.cluster.wait_healthy();
    let mut hashes = Vec::new();
    for number in 1..=3 {
        let mut maintenance = MaintenanceClient::new(doors.channel(number).await);
        let hash = async {
            loop {
                if let Ok(hash) = maintenance.hash_kv(HashKvRequest { revision: 0 }).await {
                    let hash = hash.into_inner();
                    if hash.hash_revision > BUMP {
                        return hash.hash;
                    }
                }
            }
        };
        hashes.push(timeout(LONG, hash).await.unwrap());
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
