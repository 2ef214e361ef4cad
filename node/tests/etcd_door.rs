//! The etcd door where a comparison with one etcd says nothing: several
//! members, slow readers, fragments, large transactions.
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
#[path = "etcd_door/headers.rs"]
mod headers;
#[path = "etcd_door/leaders.rs"]
mod leaders;
#[path = "etcd_door/probes.rs"]
mod probes;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        AuthUserAddRequest, CompactionRequest, HashKvRequest, MemberListRequest, MoveLeaderRequest,
        RangeRequest, RequestOp, StatusRequest, TxnRequest, WatchCreateRequest,
        WatchProgressRequest, WatchRequest, WatchResponse, auth_client::AuthClient,
        cluster_client::ClusterClient, kv_client::KvClient, maintenance_client::MaintenanceClient,
        request_op::Request, watch_client::WatchClient, watch_request::RequestUnion,
    },
    v3lockpb::{LockRequest, lock_client::LockClient},
};
use common::{LONG, http_get};
use doors::{Doors, get, put};
use futures_util::stream;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Extensions, Streaming, metadata::MetadataMap, transport::Channel};

/// One stream with its first watch.
struct Stream {
    asks: mpsc::UnboundedSender<WatchRequest>,
    told: Streaming<WatchResponse>,
}

impl Stream {
    async fn open(channel: Channel, first: WatchCreateRequest) -> Self {
        Self::open_with(channel, first, MetadataMap::new()).await
    }

    async fn open_with(channel: Channel, first: WatchCreateRequest, metadata: MetadataMap) -> Self {
        let (asks, mut asked) = mpsc::unbounded_channel();
        let requests = stream::poll_fn(move |context| asked.poll_recv(context));
        let requests = tonic::Request::from_parts(metadata, Extensions::new(), requests);
        let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        let told = client.watch(requests).await.unwrap().into_inner();
        let stream = Self { asks, told };
        stream.ask(RequestUnion::CreateRequest(first));
        stream
    }

    fn ask(&self, request: RequestUnion) {
        self.asks.send(WatchRequest { request_union: Some(request) }).unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        timeout(LONG, self.told.message()).await.expect("a response").unwrap().expect("a stream")
    }

    /// The revisions of the next `count` events.
    async fn revisions(&mut self, count: usize) -> Vec<i64> {
        let mut found = Vec::new();
        while found.len() < count {
            let events = self.next().await.events;
            found.extend(events.into_iter().map(|event| event.kv.unwrap().mod_revision));
        }
        found
    }
}

fn watch(key: &str, end: &str, start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = (key.into(), end.into());
    WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_agree_and_a_watch_goes_on_at_another_one() {
    let mut doors = Doors::open("").serve().await;
    let mut kv = KvClient::new(doors.channel(1).await);
    for n in 0..20_u8 {
        kv.put(put(&format!("k{n}"), vec![n])).await.unwrap();
    }
    let mut hashes = Vec::new();
    for number in 1..=3 {
        let mut maintenance = MaintenanceClient::new(doors.channel(number).await);
        // A member may not have applied it all yet.
        let hash = timeout(LONG, async {
            loop {
                if let Ok(hash) = maintenance.hash_kv(HashKvRequest { revision: 21 }).await {
                    return hash.into_inner().hash;
                }
            }
        });
        hashes.push(hash.await.unwrap());
    }
    assert!(hashes[0] != 0 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");

    let mut first = Stream::open(doors.channel(2).await, watch("k", "l", 2)).await;
    assert_eq!(first.revisions(10).await[..10], (2..12).collect::<Vec<_>>()[..]);
    move_leader_to(&doors, 3).await;
    doors.cluster.nodes[1].kill();
    let mut other = Stream::open(doors.channel(3).await, watch("k", "l", 12)).await;
    kv.put(put("k99", vec![])).await.unwrap();
    assert_eq!(other.revisions(11).await, (12..23).collect::<Vec<_>>(), "none lost, none twice");

    let mut cluster = ClusterClient::new(doors.channel(1).await);
    let members = async {
        loop {
            let list = cluster.member_list(MemberListRequest::default()).await.unwrap();
            let members = list.into_inner().members;
            // A member that is slow to say where it is reached is asked again.
            if !members[2].client_ur_ls.is_empty() {
                return members;
            }
        }
    };
    let members = timeout(LONG, members).await.expect("a member that is reached");
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(members[2].client_ur_ls, [format!("http://{}", doors.addresses[2])]);
}

/// Gives leadership to a member, whoever has it.
async fn move_leader_to(doors: &Doors, number: usize) {
    let mut target = MaintenanceClient::new(doors.channel(number).await);
    let header = target.status(StatusRequest {}).await.unwrap().into_inner().header;
    let target_id = header.unwrap().member_id;
    let mut members = Vec::new();
    for at in 1..=doors.addresses.len() {
        members.push(MaintenanceClient::new(doors.channel(at).await));
    }
    // Whoever leads may have just begun to, or the target may lag: it is asked again.
    let moved = async {
        while target.status(StatusRequest {}).await.unwrap().into_inner().leader != target_id {
            for member in &mut members {
                let _ = member.move_leader(MoveLeaderRequest { target_id }).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, moved).await.expect("the leader moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_misses_nothing_and_progress_comes_after_events() {
    let doors = Doors::open("    progress_seconds: 1\n    request: 256KiB\n").serve().await;
    let mut kv = KvClient::new(doors.channel(1).await);
    let mut slow = Stream::open(doors.channel(1).await, watch("s", "t", 0)).await;
    assert!(slow.next().await.created);
    let quiet = WatchCreateRequest { progress_notify: true, ..watch("q", "", 0) };
    let mut quiet = Stream::open(doors.channel(2).await, quiet).await;
    assert!(quiet.next().await.created);
    // 24 MB, more than windows and queues hold.
    for n in 0..120_u8 {
        kv.put(put(&format!("s{n}"), vec![n; 200_000])).await.unwrap();
    }
    slow.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let (mut seen, mut progress) = (Vec::new(), None);
    while progress.is_none() {
        let response = slow.next().await;
        if response.watch_id == -1 {
            progress = response.header;
        }
        seen.extend(response.events.into_iter().map(|event| event.kv.unwrap().mod_revision));
    }
    assert_eq!(seen, (2..122).collect::<Vec<_>>(), "in order, each once, before the progress");
    assert_eq!(progress.unwrap().revision, 121);

    let told = quiet.next().await;
    assert!(told.events.is_empty() && told.watch_id == 0, "{told:?}");
    let later = async { while quiet.next().await.header.unwrap().revision < 121 {} };
    timeout(LONG, later).await.expect("a progress up to the last revision");
}

/// What a file holds once that is as wanted.
async fn text_until(file: &Path, wanted: impl Fn(&str) -> bool) -> String {
    let told = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.ends_with('\n') && wanted(&text) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, told).await.expect("a line")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_what_is_told_and_values_are_not() {
    let doors = Doors::open("  audit:\n    file: audit.log\n").serve().await;
    let file = doors.cluster.nodes[0].config.with_file_name("audit.log");
    let channel = doors.channel(1).await;
    let mut kv = KvClient::new(channel.clone());
    let put_a = kv.put(put("a", b"secret".to_vec())).await.unwrap().into_inner();
    kv.range(get("a", "")).await.unwrap();
    kv.compact(CompactionRequest { revision: 1 << 40, physical: false }).await.unwrap_err();
    let mut auth = AuthClient::new(channel.clone());
    let user = AuthUserAddRequest {
        name: "ann".into(),
        password: "secret".into(),
        ..AuthUserAddRequest::default()
    };
    auth.user_add(user).await.unwrap();
    let mut locks = LockClient::new(channel.clone());
    let lock = || LockRequest { name: b"l".to_vec(), lease: 0 };
    let held = locks.lock(lock()).await.unwrap().into_inner();
    let second = lock();
    let waits = tokio::spawn(async move { locks.lock(second).await });
    // Only who stands in the queue can leave it.
    let queued = |text: &str| text.matches(r#""operation":"lock""#).count() == 2;
    text_until(&file, queued).await;
    assert!(!waits.is_finished(), "it is held");
    waits.abort();
    let nobody = MoveLeaderRequest { target_id: 7 };
    MaintenanceClient::new(channel).move_leader(nobody).await.unwrap_err();
    let all = |text: &str| text.contains("leave") && text.contains("move leader");
    let text = text_until(&file, all).await;
    assert!(!text.contains("secret"), "{text}");
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // What was said to the nodes before is there, too.
    lines.retain(|line| line["door"] == "etcd");
    let [put, compact, user, lease, lock, rest @ ..] = &lines[..] else { panic!("{text}") };
    assert_eq!((&put["operation"], &put["of"][0]["key"]), (&"put".into(), &"a".into()));
    assert_eq!(put["revision"], put_a.header.unwrap().revision);
    assert_eq!((&put["outcome"], &put["as"]), (&"done".into(), &"-".into()));
    assert!(compact["outcome"].as_str().unwrap().contains("future"), "{compact}");
    assert_eq!((&user["of"][0]["user"], &user["outcome"]), (&"ann".into(), &"done".into()));
    let key = String::from_utf8(held.key).unwrap();
    let granted = lease["of"][0]["lease"].as_str().unwrap();
    assert_eq!((&lease["operation"], &key), (&"lease grant".into(), &format!("l/{granted}")));
    assert_eq!(lock["of"], serde_json::json!([{ "name": "l" }, { "key": key }]));
    let mut rest: Vec<_> = rest.iter().map(|line| line["operation"].as_str().unwrap()).collect();
    rest.sort_unstable();
    assert_eq!(rest, ["lease grant", "leave", "lock", "move leader"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_older_than_told_goes_by_itself() {
    let doors = Doors::open("    auto_compaction:\n      seconds: 3\n").serve().await;
    let mut kv = KvClient::new(doors.channel(2).await);
    let first = kv.put(put("a", b"1".to_vec())).await.unwrap().into_inner();
    kv.put(put("a", b"2".to_vec())).await.unwrap();
    let at = RangeRequest { revision: first.header.unwrap().revision, ..get("a", "") };
    assert_eq!(kv.range(at.clone()).await.unwrap().into_inner().kvs[0].value, b"1");
    let gone = async {
        loop {
            match kv.range(at.clone()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(status) => return status,
            }
        }
    };
    let gone = timeout(LONG, gone).await.expect("a compaction");
    assert_eq!(gone.message(), "etcdserver: mvcc: required revision has been compacted");
    let newest = kv.range(get("a", "")).await.unwrap().into_inner();
    assert_eq!(newest.kvs[0].value, b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_comes_whole_or_in_fragments() {
    let doors = Doors::open("    request: 4MiB\n").serve().await;
    let mut kv = KvClient::new(doors.channel(1).await);
    let op = |n: u8| {
        let put = put(&format!("t{n}"), vec![n; 400_000]);
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let eight = TxnRequest { success: (0..8).map(op).collect(), ..TxnRequest::default() };
    kv.txn(eight).await.unwrap();
    let mut whole = Stream::open(doors.channel(1).await, watch("t", "u", 2)).await;
    assert!(whole.next().await.created);
    let response = whole.next().await;
    assert_eq!((response.events.len(), response.fragment), (8, false), "one revision at once");

    let doors = doors.reopen("    request: 1MiB\n").await;
    let order = WatchCreateRequest { fragment: true, ..watch("t", "u", 2) };
    let mut parts = Stream::open(doors.channel(1).await, order).await;
    assert!(parts.next().await.created);
    let (mut events, mut responses) = (0, 0);
    loop {
        let response = parts.next().await;
        (events, responses) = (events + response.events.len(), responses + 1);
        if !response.fragment {
            break;
        }
    }
    assert!(events == 8 && responses > 3, "{events} events in {responses} responses");
}

/// A long history: the same keys, changed again and again.
async fn change_often(kv: &mut KvClient<Channel>, rounds: usize, keys: usize) {
    for round in 0..rounds {
        let puts = (0..keys).map(|n| put(&format!("k{n:03}"), round.to_string().repeat(60).into()));
        let success =
            puts.map(|put| RequestOp { request: Some(Request::RequestPut(put)) }).collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    }
}

/// How long one put and one linearizable read take, in turn, until told to end.
async fn times(mut kv: KvClient<Channel>, end: impl Future<Output = ()>) -> Vec<Duration> {
    let (mut times, mut end) = (Vec::new(), std::pin::pin!(end));
    loop {
        let begun = Instant::now();
        let both = async {
            kv.put(put("beside", vec![7; 100])).await.unwrap();
            kv.range(get("k000", "")).await.unwrap();
        };
        tokio::select! {
            biased;
            () = &mut end => return times,
            () = both => times.push(begun.elapsed()),
        }
    }
}

/// The middle one and the longest.
fn middle_and_longest(mut times: Vec<Duration>) -> (Duration, Duration, usize) {
    times.sort_unstable();
    let last = times.last().copied().unwrap_or_default();
    (times.get(times.len() / 2).copied().unwrap_or_default(), last, times.len())
}

/// What a node tells in numbers; nothing told is none.
fn metric(doors: &Doors, number: usize, name: &str) -> u64 {
    let (_, page) = http_get(doors.cluster.nodes[number - 1].http, "/metrics").unwrap();
    let line = page.lines().find(|line| line.starts_with(name));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until the stores have all that was written.
async fn all_is_flushed(doors: &Doors) {
    let flushed = async {
        while (1..=3).any(|number| metric(doors, number, "cdb_disk_overlay_bytes") > 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, flushed).await.expect("a flush");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_holds_up_nobody_and_a_physical_one_is_answered_once_it_is_swept() {
    let doors = Doors::open("").serve().await;
    let mut kv = KvClient::new(doors.channel(1).await);
    change_often(&mut kv, 150, 100).await;
    all_is_flushed(&doors).await;
    let usual = times(kv.clone(), tokio::time::sleep(Duration::from_secs(3))).await;
    let swept = || metric(&doors, 1, "cdb_shard_swept_entries_total");
    let before = swept();
    let revision = kv.range(get("none", "")).await.unwrap().into_inner().header.unwrap().revision;
    let (done, ended) = tokio::sync::oneshot::channel();
    let beside = times(kv.clone(), async { drop(ended.await) });
    let compact = async {
        let begun = Instant::now();
        let request = CompactionRequest { revision, physical: true };
        kv.clone().compact(request).await.unwrap();
        done.send(begun.elapsed()).unwrap();
        begun.elapsed()
    };
    let (beside, took) = tokio::join!(beside, compact);
    let gone = swept() - before;
    let (usual, beside) = (middle_and_longest(usual), middle_and_longest(beside));
    println!(
        "put and get: usually {usual:?}, beside a compaction of {gone} entries in {took:?} \
         {beside:?}"
    );
    assert!(gone >= 29_000, "{gone}: 14,900 old values and 15,000 changes");
    // On a busy machine one put may take seconds without any compaction.
    let bound = Duration::from_secs(2).max(usual.1 * 10);
    let (_, longest, count) = beside;
    assert!(count > 0 && longest < bound, "{count}, {longest:?} of {bound:?}");
}
