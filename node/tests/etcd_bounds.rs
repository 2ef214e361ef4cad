//! What strangers may make the etcd door hold: connections, silence, unfinished
//! requests, answers that nobody reads, streams that idle.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "etcd_bounds/odd.rs"]
mod odd;
#[path = "common/web.rs"]
mod web;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
        RequestOp, SnapshotRequest, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
        kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        request_op::Request, watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::Event,
    v3electionpb::{
        CampaignRequest, LeaderRequest, LeaderResponse, ProclaimRequest,
        election_client::ElectionClient,
    },
};
use common::{Cluster, LONG, Ports};
use futures_util::future::join_all;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Code,
    codegen::{http, tokio_stream},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

const SECOND: Duration = Duration::from_secs(1);
/// The code of gRPC for too much of something.
const RESOURCE_EXHAUSTED: &str = "8";

/// A node with an open etcd door.
struct Door {
    cluster: Cluster,
    _ports: Ports,
    _folder: tempfile::TempDir,
    address: SocketAddr,
    /// The certificate of its TLS, if it has some.
    certificate: Option<rcgen::Certificate>,
}

impl Door {
    /// Starts it; `extra` stands in the door's section. From the test's own thread:
    /// a node ends with the thread that started it.
    async fn open(extra: &str) -> Self {
        Self::start(extra, None).await
    }

    /// The same within TLS.
    async fn secured(extra: &str, folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("door.pem"), folder.join("door.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let files = [certificate, key].map(|file| file.display().to_string());
        let [certificate, key] = files;
        let tls = format!("    tls:\n      certificate: {certificate}\n      key: {key}\n");
        Self::start(&[extra, &tls].concat(), Some(made.cert)).await
    }

    async fn start(extra: &str, certificate: Option<rcgen::Certificate>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports::take();
        let address = ports.of(1).0;
        let extra = format!("doors:\n  etcd:\n    listen: {address}\n    replicas: 1\n{extra}");
        let mut cluster = Cluster::prepare(folder.path(), 1, &extra);
        cluster.found();
        let door = Self { cluster, _ports: ports, _folder: folder, address, certificate };
        let mut kv = door.kv().await;
        let serves = async {
            while kv.range(get("none", "")).await.is_err() {
                sleep(SECOND / 10).await;
            }
        };
        timeout(LONG, serves).await.expect("the volume serves");
        door
    }

    fn endpoint(&self) -> Endpoint {
        let Some(certificate) = &self.certificate else {
            return Channel::from_shared(format!("http://{}", self.address)).unwrap();
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(certificate.pem()))
            .domain_name("localhost");
        let endpoint = Channel::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap()
    }

    async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    /// Ends the handshake of TLS for a protocol, and says nothing then.
    fn shake_hands(&self, protocol: &str) -> std::net::TcpStream {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.as_ref().unwrap().der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let name = "localhost".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        stream
    }

    async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// A connection that reads and writes as little as it likes.
    async fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (asks, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async {
            // Why the door ended it.
            if let Err(error) = connection.await {
                println!("a connection: {error}");
            }
        });
        Raw { asks, address: self.address }
    }

    /// Mebibytes of the node that no file stands behind.
    fn resident(&self) -> u64 {
        let pid = self.cluster.nodes[0].pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    }
}

struct Raw {
    asks: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Raw {
    /// Begins a request of a method.
    async fn begin(&self, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = http::Request::post(format!("http://{}/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut asks = self.asks.clone().ready().await.unwrap();
        asks.send_request(request, false).unwrap()
    }
}

/// Asks for the same, 160 times over, and reads no answer: the door must refuse most of it,
/// or hold it all.
async fn ask_unread(door: &Door, raw: &Raw, method: &str, request: &impl Message) -> Vec<Unread> {
    let before = door.resident();
    let mut unread = Vec::new();
    for _ in 0..160 {
        let (answer, mut body) = raw.begin(method).await;
        body.send_data(framed(request), true).unwrap();
        unread.push((answer, body));
        sleep(SECOND / 50).await;
    }
    // Who finds no room waits five seconds for it.
    sleep(SECOND * 8).await;
    let grown = door.resident().saturating_sub(before);
    println!("{method}: {grown} MiB more");
    assert!(grown < 100, "{grown} MiB more for answers of {method} of 160 MiB and more");
    unread
}

/// A request under way whose answer nobody reads.
type Unread = (ResponseFuture, SendStream<Bytes>);

/// How many of them were refused at once.
async fn refused(unread: &mut [Unread]) -> usize {
    let mut refused = 0;
    for (answer, _) in unread {
        if let Ok(Ok(answer)) = timeout(SECOND / 100, answer).await
            && answer.headers().get("grpc-status").is_some_and(|code| code == RESOURCE_EXHAUSTED)
        {
            refused += 1;
        }
    }
    refused
}

/// Asks until it is answered: what nobody reads is given up by then.
async fn until_served<T>(mut ask: impl AsyncFnMut() -> Result<T, tonic::Status>) -> T {
    let served = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(full) => assert_eq!(full.message(), "etcdserver: too many requests"),
            }
            sleep(SECOND).await;
        }
    };
    timeout(SECOND * 90, served).await.expect("what nobody reads is given up")
}

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &body].concat().into()
}

/// Writes bytes as the door takes them; false once it takes no more.
async fn write(to: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let room = timeout(LONG, std::future::poll_fn(|context| to.poll_capacity(context))).await;
        let Ok(Some(Ok(room))) = room else { return false };
        let piece = bytes.split_to(room.min(bytes.len()));
        if to.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.into(), value, ..PutRequest::default() }
}

fn get(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() }
}

#[tokio::test]
async fn whoever_comes_beyond_the_bound_of_connections_waits_and_the_silent_are_shown_out() {
    let door = Door::open("    connections: 3\n").await;
    let mut first = door.kv().await;
    let mut second = door.kv().await;
    for kv in [&mut first, &mut second] {
        kv.range(get("a", "")).await.unwrap();
    }
    // The third says nothing: it has its place for ten seconds.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    sleep(SECOND / 5).await;
    let mut late = KvClient::new(door.endpoint().connect_lazy());
    assert!(timeout(SECOND, late.range(get("a", ""))).await.is_err(), "all places are taken");
    first.range(get("a", "")).await.expect("who is in is served");
    let end = async { while silent.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} };
    timeout(SECOND * 20, end).await.expect("an end");
    assert!(begun.elapsed() > SECOND * 8, "after {:?}", begun.elapsed());
    timeout(LONG, late.range(get("a", ""))).await.expect("its place").unwrap();
    drop(second);
    timeout(LONG, door.kv()).await.unwrap().range(get("a", "")).await.unwrap();
}

/// It would hold its place, and what is gathered for its streams.
#[tokio::test]
async fn who_does_not_answer_whether_it_lives_is_shown_out_and_who_does_stays() {
    let door = Door::open("").await;
    let mut lives = door.kv().await;
    let mut dead = TcpStream::connect(door.address).await.unwrap();
    let begun = Instant::now();
    // The preface of HTTP/2 and settings of its own: from then on a server waits as long as
    // it likes.
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    dead.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let end = async { while dead.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} };
    timeout(SECOND * 60, end).await.expect("an end");
    let elapsed = begun.elapsed();
    assert!((SECOND * 35..SECOND * 55).contains(&elapsed), "after {elapsed:?}");
    lives.range(get("a", "")).await.expect("its library answered");
}

/// After the handshake nothing waited for its first words, and its place was kept.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_within_tls_is_shown_out_and_who_only_listens_stays() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::secured("    connections: 4\n", folder.path()).await;
    // It says hello, and asks for nothing.
    let listens = door.kv().await;
    let before = std::net::TcpStream::connect(door.address).unwrap();
    let silent = [before, door.shake_hands("h2"), door.shake_hands("http/1.1")];
    let begun = Instant::now();
    let mut late = KvClient::new(door.endpoint().connect_lazy());
    assert!(timeout(SECOND, late.range(get("a", ""))).await.is_err(), "all places are taken");
    let end = tokio::task::spawn_blocking(move || {
        for mut silent in silent {
            silent.set_read_timeout(Some(SECOND * 25)).unwrap();
            let end = std::io::copy(&mut silent, &mut std::io::sink());
            assert!(begun.elapsed() < SECOND * 20, "{end:?}");
        }
    });
    end.await.unwrap();
    assert!(begun.elapsed() > SECOND * 8, "after {:?}", begun.elapsed());
    timeout(LONG, late.range(get("a", ""))).await.expect("its place").unwrap();
    let _others = [door.kv().await, door.kv().await];
    let mut later = KvClient::new(door.endpoint().connect_lazy());
    assert!(timeout(SECOND * 2, later.range(get("a", ""))).await.is_err(), "the other one stays");
    drop(listens);
    timeout(LONG, later.range(get("a", ""))).await.expect("a place").unwrap();
}

#[tokio::test]
async fn unfinished_requests_are_refused_before_they_fill_a_node() {
    let door = Door::open("    memory: 16MiB\n    request: 4MiB\n").await;
    let mut kv = door.kv().await;
    kv.put(put("a", vec![1; 64])).await.unwrap();
    let before = door.resident();
    let whole = framed(&put("large", vec![7; 3 << 20]));
    let part = whole.slice(..2 << 20);
    let mut held = Vec::new();
    let mut refused = 0;
    // 128 MiB of requests whose end never comes.
    for _ in 0..8 {
        let raw = door.raw().await;
        for _ in 0..8 {
            let (mut answer, mut body) = raw.begin("etcdserverpb.KV/Put").await;
            write(&mut body, part.clone()).await;
            match timeout(SECOND, &mut answer).await {
                Err(_) => held.push((answer, body)),
                Ok(Ok(answer)) => {
                    assert_eq!(answer.headers()["grpc-status"], RESOURCE_EXHAUSTED);
                    refused += 1;
                }
                Ok(Err(_)) => refused += 1,
            }
        }
        let grown = door.resident().saturating_sub(before);
        assert!(grown < 100, "{grown} MiB more");
    }
    assert!(refused > 30, "{refused} were refused");
    let full = kv.put(put("b", vec![1; 2 << 20])).await.unwrap_err();
    assert_eq!(
        (full.code(), full.message()),
        (Code::ResourceExhausted, "etcdserver: too many requests")
    );
    drop(held);
    // There is room again.
    until_served(async || kv.put(put("b", vec![1; 2 << 20])).await).await;
}

#[tokio::test]
async fn unfinished_json_is_refused_before_it_fills_a_node() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    kv.put(put("a", vec![1; 64])).await.unwrap();
    let begun = format!("POST /v3/kv/put HTTP/1.1\r\nHost: {}\r\nContent-Length: ", door.address);
    let part = format!("{begun}4000000\r\n\r\n{{\"key\":\"{}", "x".repeat(3 << 20));
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..16 {
        let (mut answers, mut asks) = TcpStream::connect(door.address).await.unwrap().into_split();
        // Whoever is refused is not read to the end.
        let part = part.clone();
        let asking = tokio::spawn(async move {
            drop(asks.write_all(part.as_bytes()).await);
            asks
        });
        let mut answer = [0; 12];
        match timeout(SECOND * 3, answers.read_exact(&mut answer)).await {
            Err(_) => held.push((answers, asking.await)),
            Ok(read) => {
                if read.is_ok() {
                    assert_eq!(&answer, b"HTTP/1.1 429");
                }
                refused += 1;
            }
        }
    }
    assert!((12..16).contains(&refused), "8 MiB hold two of 3 MiB: {refused} were refused");
    let full = kv.put(put("b", vec![1; 1 << 20])).await;
    assert!(full.is_ok() || full.is_err_and(|full| full.code() == Code::ResourceExhausted));
    drop(held);
    // There is room again.
    until_served(async || kv.put(put("b", vec![1; 1 << 20])).await).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_given_up_and_the_others_go_on() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    for number in 0..6 {
        kv.put(put(&format!("k{number}"), vec![7; 1 << 20])).await.unwrap();
    }
    let before = door.resident();
    let raw = door.raw().await;
    let mut unread: Vec<(ResponseFuture, SendStream<Bytes>)> = Vec::new();
    for _ in 0..16 {
        let (answer, mut body) = raw.begin("etcdserverpb.KV/Range").await;
        body.send_data(framed(&get("k", "l")), true).unwrap();
        unread.push((answer, body));
        // The first one is gathered whole: all at once would wait for each other.
        if unread.len() == 1 {
            sleep(SECOND).await;
        }
    }
    sleep(SECOND * 2).await;
    let grown = door.resident().saturating_sub(before);
    assert!(grown < 128, "{grown} MiB more for answers of 96 MiB");
    kv.range(get("a", "")).await.expect("one key is no large answer");
    let turn = timeout(SECOND * 2, kv.range(get("k", "l"))).await;
    assert!(turn.is_err(), "a large one waits for its turn: {turn:?}");
    let served = async {
        while kv.range(get("k", "l")).await.is_err() {
            sleep(SECOND).await;
        }
    };
    timeout(SECOND * 90, served).await.expect("what nobody reads is given up");
    drop((unread, raw));
}

#[tokio::test]
async fn what_stood_before_a_put_is_not_shown_to_more_than_there_is_room_for() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    // What a put shows is bounded as what a transaction reads is: 1 MiB with its key.
    let bytes = (1 << 20) - 4_096;
    kv.put(put("p", vec![7; bytes])).await.unwrap();
    let again = PutRequest { ignore_value: true, prev_kv: true, ..put("p", Vec::new()) };
    let raw = door.raw().await;
    let mut unread = ask_unread(&door, &raw, "etcdserverpb.KV/Put", &again).await;
    assert!(refused(&mut unread).await > 140);
    let heads = RangeRequest { keys_only: true, ..get("p", "") };
    let written = kv.range(heads).await.unwrap().into_inner().kvs[0].version;
    assert!(written < 20, "what is refused is not written: {written} times");
    kv.put(put("q", vec![7; 1 << 20])).await.expect("who wants to see nothing waits for nobody");
    let shown = until_served(async || kv.put(again.clone()).await).await;
    assert_eq!(shown.into_inner().prev_kv.unwrap().value.len(), bytes);
}

#[tokio::test]
async fn a_snapshot_that_nobody_reads_is_given_up_and_others_are_refused_meanwhile() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    for number in 0..6 {
        kv.put(put(&format!("k{number}"), vec![7; 1 << 20])).await.unwrap();
    }
    let raw = door.raw().await;
    let method = "etcdserverpb.Maintenance/Snapshot";
    let mut unread = ask_unread(&door, &raw, method, &SnapshotRequest {}).await;
    assert!(refused(&mut unread).await > 140);
    kv.range(get("a", "")).await.expect("one key is no large answer");
    let mut maintenance = MaintenanceClient::new(door.channel().await);
    let pieces = until_served(async || maintenance.snapshot(SnapshotRequest {}).await).await;
    let (mut pieces, mut bytes) = (pieces.into_inner(), 0);
    while let Some(piece) = timeout(LONG, pieces.message()).await.unwrap().unwrap() {
        bytes += piece.blob.len();
    }
    assert!(bytes > 6 << 20, "{bytes} bytes");
}

#[tokio::test]
async fn the_keys_of_a_lease_are_not_shown_to_more_than_there_is_room_for() {
    let door = Door::open("    memory: 16MiB\n    operations: 128\n").await;
    let (mut kv, mut leases) = (door.kv().await, LeaseClient::new(door.channel().await));
    let id = 7;
    leases.lease_grant(LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    for block in 0..20 {
        let key = |number: usize| format!("{block:02}{number:02}{}", "x".repeat(1_000));
        let put = |number| PutRequest { lease: id, ..put(&key(number), Vec::new()) };
        let put = |number| RequestOp { request: Some(Request::RequestPut(put(number))) };
        let success = (0..100).map(put).collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    }
    let asked = LeaseTimeToLiveRequest { id, keys: true };
    let raw = door.raw().await;
    let mut unread = ask_unread(&door, &raw, "etcdserverpb.Lease/LeaseTimeToLive", &asked).await;
    assert!(refused(&mut unread).await > 140);
    let without = LeaseTimeToLiveRequest { id, keys: false };
    leases.lease_time_to_live(without).await.expect("without keys it is small");
    let shown = until_served(async || leases.lease_time_to_live(asked).await).await;
    assert_eq!(shown.into_inner().keys.len(), 2_000);
}

#[tokio::test]
async fn who_listens_to_an_election_hears_the_newest_though_others_do_not_read() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut elections =
        ElectionClient::new(door.channel().await).max_decoding_message_size(8 << 20);
    let lease = LeaseClient::new(door.channel().await)
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
        .await
        .unwrap()
        .into_inner()
        .id;
    let campaign = |name: &str, value| CampaignRequest { name: name.into(), lease, value };
    let won = elections.campaign(campaign("large", vec![0; 1 << 20])).await.unwrap().into_inner();
    elections.campaign(campaign("small", b"small".to_vec())).await.unwrap();
    let raw = door.raw().await;
    let asked = LeaderRequest { name: b"large".to_vec() };
    let mut unread = ask_unread(&door, &raw, "v3electionpb.Election/Observe", &asked).await;
    // Each turn is somebody's who does not read, eight at a time for thirty seconds.
    unread.truncate(12);
    let before = door.resident();
    for word in 1..5 {
        let value = vec![word; 1 << 20];
        elections.proclaim(ProclaimRequest { leader: won.leader.clone(), value }).await.unwrap();
    }
    sleep(SECOND * 3).await;
    let grown = door.resident().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB more for four words of 1 MiB");
    let heard = async |told: &mut tonic::Streaming<LeaderResponse>| {
        let heard = timeout(SECOND * 150, told.message()).await.expect("news").unwrap().unwrap();
        heard.kv.unwrap().value
    };
    let small = LeaderRequest { name: b"small".to_vec() };
    let mut small = elections.observe(small).await.unwrap().into_inner();
    assert_eq!(heard(&mut small).await, b"small", "small news wait for nobody");
    let mut told = elections.observe(asked).await.unwrap().into_inner();
    assert_eq!(heard(&mut told).await[0], 4);
    let value = vec![5; 1 << 20];
    elections.proclaim(ProclaimRequest { leader: won.leader, value }).await.unwrap();
    assert_eq!(heard(&mut told).await[0], 5);
    drop(unread);
}

#[tokio::test]
async fn large_ranges_at_once_are_served_one_after_another() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    for number in 0..6 {
        kv.put(put(&format!("k{number}"), vec![7; 1 << 20])).await.unwrap();
    }
    // 72 MiB of answers, where eight may be held.
    let mut asking = Vec::new();
    for _ in 0..12 {
        let mut kv = door.kv().await;
        asking.push(tokio::spawn(async move { kv.range(get("k", "l")).await }));
    }
    for answer in asking {
        let answer = timeout(LONG, answer).await.expect("an answer").unwrap().unwrap();
        assert_eq!(answer.into_inner().kvs.len(), 6);
    }
}

/// A watch of all that ever happened to some keys.
async fn watch(door: &Door, from: &str, to: &str) -> tonic::Streaming<WatchResponse> {
    watch_in(door, from, to, false).await
}

/// The same, in fragments or not.
async fn watch_in(
    door: &Door,
    from: &str,
    to: &str,
    fragment: bool,
) -> tonic::Streaming<WatchResponse> {
    // Not much more than what the test reads is on its way.
    let endpoint = door.endpoint().initial_stream_window_size(Some(65_535));
    let mut watches = WatchClient::new(endpoint.connect().await.unwrap());
    watches = watches.max_decoding_message_size(64 << 20);
    let create = WatchCreateRequest {
        key: from.into(),
        range_end: to.into(),
        start_revision: 1,
        fragment,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let asks = tokio_stream::StreamExt::chain(tokio_stream::once(create), tokio_stream::pending());
    watches.watch(asks).await.unwrap().into_inner()
}

/// What so many events say: the first byte and the length of their values.
async fn heard(told: &mut tonic::Streaming<WatchResponse>, count: usize) -> Vec<(u8, usize)> {
    let mut values = Vec::new();
    while values.len() < count {
        let response = timeout(SECOND * 150, told.message()).await.expect("news");
        let response = response.unwrap().unwrap();
        let of_event = |event: Event| event.kv.map(|kv| (kv.value[0], kv.value.len())).unwrap();
        values.extend(response.events.into_iter().map(of_event));
    }
    values
}

#[tokio::test]
async fn watches_hear_all_though_there_is_no_room_for_all_at_once() {
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    for number in 0..6 {
        kv.put(put(&format!("w{number}"), vec![number; 1 << 20])).await.unwrap();
    }
    let before = door.resident();
    let mut unread = Vec::new();
    for _ in 0..12 {
        unread.push(watch(&door, "w", "x").await);
    }
    sleep(SECOND * 3).await;
    let grown = door.resident().saturating_sub(before);
    assert!(grown < 100, "{grown} MiB more for 72 MiB of events");
    // Small news pass by those who wait for room.
    let mut small = watch(&door, "s", "t").await;
    kv.put(put("s", vec![9])).await.unwrap();
    assert_eq!(heard(&mut small, 1).await, [(9, 1)]);
    // Whoever reads hears everything in order, once those who do not are given up.
    let hear = unread.drain(..9).map(|mut told| async move { heard(&mut told, 6).await });
    let wanted: Vec<_> = (0..6).map(|number| (number, 1 << 20)).collect();
    for heard in join_all(hear).await {
        assert_eq!(heard, wanted);
    }
}

/// Pages of what happened end inside of revisions here.
#[tokio::test]
async fn a_long_history_is_told_within_the_room_of_a_page() {
    const REVISIONS: usize = 500;
    const KEYS: usize = 100;
    let door = Door::open("    memory: 16MiB\n").await;
    let mut kv = door.kv().await;
    for revision in 0..REVISIONS {
        let value = vec![u8::try_from(revision % 251).unwrap(); 400];
        let put = |key| put(&format!("w{key}"), value.clone());
        let put = |key| RequestOp { request: Some(Request::RequestPut(put(key))) };
        let success = (0..KEYS).map(put).collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    }
    for fragment in [false, true] {
        let mut told = watch_in(&door, "w", "x", fragment).await;
        let heard = heard(&mut told, REVISIONS * KEYS).await;
        assert!(
            heard
                .iter()
                .enumerate()
                .all(|(at, (revision, _))| { usize::from(*revision) == at / KEYS % 251 })
        );
    }
}

#[tokio::test]
async fn a_prefix_is_asked_for_no_more_often_than_its_rate_allows() {
    let rates = "    rates:\n      - {prefix: few/, requests: 1, burst: 3}\n";
    let door = Door::open(rates).await;
    let mut kv = door.kv().await;
    let refused = |status: tonic::Status| {
        let told = (status.code(), status.message().to_owned());
        assert_eq!(told, (Code::ResourceExhausted, "etcdserver: too many requests".into()));
    };
    // A slow machine gets tokens back while it asks.
    let mut passed = 0;
    let first = loop {
        match kv.put(put("few/x", vec![1])).await {
            Ok(_) => passed += 1,
            Err(status) => break status,
        }
        assert!(passed < 100, "nothing is refused");
    };
    assert!(passed >= 3, "a burst passes: {passed}");
    refused(first);
    let ranges = async { while kv.range(get("a", "z")).await.is_ok() {} };
    timeout(LONG, ranges).await.expect("a range that touches such keys is refused");
    let by_json = || web::post(door.address, "/v3/kv/range", "", r#"{"key":"ZmV3Lw=="}"#).0;
    assert!((0..100).any(|_| by_json() == 429));
    for number in 0..20 {
        kv.put(put(&format!("many/{number}"), vec![1])).await.unwrap();
    }
    sleep(SECOND * 3).await;
    kv.put(put("few/x", vec![1])).await.expect("tokens come back");
}

/// Whoever was denied had a token all the same, and heard that a prefix is full.
#[tokio::test]
async fn who_is_denied_neither_uses_up_a_rate_nor_hears_of_a_quota() {
    let door = Door::open(
        "    rates:\n      - {prefix: few/, requests: 1, burst: 4}\n    quotas:\n      \
         - {prefix: few/, keys: 1}\n",
    )
    .await;
    let ask = |token: &str, path: &str, body: &str| {
        let token =
            if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        web::post(door.address, path, &token, body)
    };
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"r"}"#),
        ("user/add", r#"{"name":"ann","password":"a"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("enable", "{}"),
    ] {
        let (status, told) = ask("", &format!("/v3/auth/{path}"), body);
        assert_eq!(status, 200, "{path}: {told}");
    }
    let token = |body: &str| {
        let told = ask("", "/v3/auth/authenticate", body).1;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told["token"].as_str().unwrap().to_owned()
    };
    let root = token(r#"{"name":"root","password":"r"}"#);
    let ann = token(r#"{"name":"ann","password":"a"}"#);
    // "few/x", "few/y" and "few".
    let (x, y) = (r#"{"key":"ZmV3L3g="}"#, r#"{"key":"ZmV3L3k="}"#);
    let denied = [
        ("/v3/kv/put", x),
        ("/v3/kv/range", x),
        ("/v3/kv/deleterange", x),
        ("/v3/kv/txn", r#"{"success":[{"request_put":{"key":"ZmV3L3g="}}]}"#),
        ("/v3/lock/lock", r#"{"name":"ZmV3"}"#),
        ("/v3/election/campaign", r#"{"name":"ZmV3"}"#),
        ("/v3/election/leader", r#"{"name":"ZmV3"}"#),
    ];
    let all_denied = || {
        for (path, body) in denied.iter().chain(&denied) {
            let (status, told) = ask(&ann, path, body);
            // etcd's locks and elections lose the code of a refusal.
            let said = if path.starts_with("/v3/kv/") { 403 } else { 500 };
            assert!(
                status == said && told.contains("permission denied"),
                "{path}: {status} {told}"
            );
        }
    };
    all_denied();
    assert_eq!(ask("", "/v3/kv/put", x).0, 400, "nor who has no name");
    assert_eq!(ask(&root, "/v3/kv/put", x).0, 200, "there are tokens left");
    let (status, told) = ask(&root, "/v3/kv/put", y);
    assert!(status == 429 && told.contains("database space exceeded"), "{status} {told}");
    all_denied();
    let grants = [
        ("role/add", r#"{"name":"few"}"#),
        ("role/grant", r#"{"name":"few","perm":{"permType":"READWRITE","key":"ZmV3L3g="}}"#),
        ("user/grant", r#"{"user":"ann","role":"few"}"#),
    ];
    for (path, body) in grants {
        assert_eq!(ask(&root, &format!("/v3/auth/{path}"), body).0, 200, "{path}");
    }
    let (status, told) = ask(&ann, "/v3/kv/put", x);
    assert!(status == 200 || told.contains("too many requests"), "a right holds at once: {told}");
}

/// The encoder of each stream kept the buffer of the largest response that it made.
#[tokio::test(flavor = "multi_thread")]
async fn streams_hold_nothing_of_a_large_value_that_they_were_told_of() {
    const STREAMS: usize = 200;
    let door = Door::open("").await;
    let mut kv = door.kv().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(watch(&door, "large", "").await);
    }
    kv.put(put("large", b"small".to_vec())).await.unwrap();
    join_all(streams.iter_mut().map(|told| heard(told, 1))).await;
    let before = door.resident();
    kv.put(put("large", vec![7; 1 << 20])).await.unwrap();
    for told in join_all(streams.iter_mut().map(|told| heard(told, 1))).await {
        assert_eq!(told, [(7, 1 << 20)]);
    }
    // What is free goes back to the system within ten seconds, in silence too. Kept
    // buffers would be a mebibyte each.
    let (begun, most) = (Instant::now(), STREAMS as u64 / 8);
    let mut grown = u64::MAX;
    while grown > most && begun.elapsed() < LONG {
        sleep(SECOND).await;
        grown = door.resident().saturating_sub(before);
    }
    println!("{STREAMS} streams that heard of 1 MiB: {grown} MiB more");
    assert!(grown <= most, "{grown} MiB more");
}

#[tokio::test]
async fn ten_thousand_idle_streams_cost_little_and_are_served() {
    let door = Door::open("").await;
    let before = door.resident();
    let mut kv = door.kv().await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        let watches = WatchClient::new(door.channel().await);
        let open = (0..1_000).map(|_| {
            let mut watches = watches.clone();
            async move {
                let key = b"idle".to_vec();
                let create = WatchCreateRequest { key, ..WatchCreateRequest::default() };
                let create = RequestUnion::CreateRequest(create);
                let asks = tokio_stream::pending();
                let first = WatchRequest { request_union: Some(create) };
                let asks = tokio_stream::StreamExt::chain(tokio_stream::once(first), asks);
                let mut told = watches.watch(asks).await.unwrap().into_inner();
                assert!(told.message().await.unwrap().unwrap().created);
                told
            }
        });
        idle.extend(join_all(open).await);
    }
    assert_eq!(idle.len(), 10_000);
    let grown = door.resident().saturating_sub(before);
    // 512 MiB: about 50 KiB for each, tasks and buffers of HTTP/2 included.
    assert!(grown < 512, "{grown} MiB more");
    kv.put(put("idle", b"news".to_vec())).await.unwrap();
    for told in &mut idle {
        let news = timeout(LONG * 2, told.message()).await.expect("news").unwrap().unwrap();
        assert_eq!(news.events.len(), 1);
    }
    println!("10,000 idle streams: {grown} MiB more");
}

/// Sends a put until something else comes of it: a door sees what lies below a prefix a
/// moment after it was written or deleted.
async fn put_until(kv: &mut KvClient<Channel>, asked: &PutRequest, code: Code) {
    let sends = async {
        loop {
            let code_of =
                |answer: Result<_, tonic::Status>| answer.map_or_else(|e| e.code(), |_| Code::Ok);
            if code_of(kv.put(asked.clone()).await) == code {
                return;
            }
            sleep(SECOND / 10).await;
        }
    };
    timeout(LONG, sends).await.unwrap_or_else(|_| panic!("never {code:?}"));
}

#[tokio::test]
async fn a_prefix_takes_no_more_than_its_quota() {
    let quotas =
        "    quotas:\n      - {prefix: few/, keys: 3}\n      - {prefix: small/, size: 1KiB}\n";
    let mut door = Door::open(quotas).await;
    let mut kv = door.kv().await;
    let full = |status: tonic::Status| {
        let told = (status.code(), status.message().to_owned());
        let space = "etcdserver: mvcc: database space exceeded";
        assert_eq!(told, (Code::ResourceExhausted, space.into()));
    };
    for number in 0..3 {
        kv.put(put(&format!("few/{number}"), vec![1])).await.unwrap();
    }
    full(kv.put(put("few/3", vec![1])).await.unwrap_err());
    kv.put(put("few/2", vec![2; 1 << 20])).await.expect("no new key");
    kv.put(put("other", vec![2; 1 << 20])).await.expect("no quota here");

    kv.put(put("small/a", vec![1; 900])).await.unwrap();
    full(kv.put(put("small/b", vec![1; 200])).await.unwrap_err());
    kv.put(put("small/a", vec![1; 1_000])).await.expect("it replaces as much");
    full(kv.put(put("small/a", vec![1; 1_020])).await.unwrap_err());
    let lock = |name: &str| {
        let body = format!(r#"{{"name":"{name}"}}"#);
        web::post(door.address, "/v3/lock/lock", "", &body).0
    };
    // "few" and "free", in base64.
    assert_eq!([lock("ZmV3"), lock("ZnJlZQ==")], [429, 200], "locks are keys");
    kv.put(put("small/a", vec![1; 100])).await.unwrap();
    put_until(&mut kv, &put("small/b", vec![1; 200]), Code::Ok).await;

    let delete = DeleteRangeRequest { key: "few/0".into(), ..DeleteRangeRequest::default() };
    kv.delete_range(delete).await.unwrap();
    put_until(&mut kv, &put("few/3", vec![1]), Code::Ok).await;
    full(kv.put(put("few/4", vec![1])).await.unwrap_err());
    door.cluster.nodes[0].kill();
    door.cluster.restart(1);
    let mut kv = door.kv().await;
    put_until(&mut kv, &put("few/4", vec![1]), Code::ResourceExhausted).await;
    put_until(&mut kv, &put("few/3", vec![1]), Code::Ok).await;
}
