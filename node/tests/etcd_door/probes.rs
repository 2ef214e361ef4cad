//! What is asked at the client port beside etcd's services: metrics, gRPC's own health, and
//! the words that let pages in browsers ask.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, TxnRequest, kv_client::KvClient, lease_client::LeaseClient,
};
use futures_util::stream;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    Stream,
    common::{LONG, http_get},
    doors::{Doors, get, put},
    watch,
};

const ORIGIN: &str = "https://admin.example.org";

#[tokio::test(flavor = "multi_thread")]
async fn probes_dashboards_and_browsers_are_answered_at_the_client_port() {
    let doors = Doors::open("").serve().await;
    work_is_counted(&doors).await;
    no_page_is_allowed(doors.addresses[0], &[ORIGIN, "null"]);

    let doors = doors.reopen("    cors: [\"*\"]\n").await;
    every_page_is_allowed(doors.addresses[0]);

    let known =
        format!("    metrics: false\n    cors: [\"{ORIGIN}\", \"http://localhost:8080\"]\n");
    let mut doors = doors.reopen(&known).await;
    assert_eq!(http_get(doors.addresses[0], "/metrics").unwrap().0, 404);
    some_pages_are_allowed(doors.addresses[0]);
    health_follows_the_quorum(&mut doors).await;
}

/// A value of a page; labels belong to the name.
fn value(address: SocketAddr, name: &str) -> Option<f64> {
    let (status, page) = http_get(address, "/metrics").unwrap();
    assert_eq!(status, 200);
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

async fn work_is_counted(doors: &Doors) {
    let [first, ..] = doors.addresses[..] else { panic!() };
    let channel = doors.channel(1).await;
    let (mut kv, mut leases) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    let before = value(first, "etcd_mvcc_range_total").unwrap();
    let mut watched = Stream::open(channel, watch("a", "b", 0)).await;
    assert!(watched.next().await.created);
    for n in 0..3_u8 {
        kv.put(put(&format!("a{n}"), vec![n; 100])).await.unwrap();
    }
    kv.range(get("a", "b")).await.unwrap();
    kv.txn(TxnRequest::default()).await.unwrap();
    let key = b"a0".to_vec();
    kv.delete_range(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await.unwrap();
    let far = CompactionRequest { revision: 1 << 40, physical: false };
    kv.compact(far).await.unwrap_err();
    kv.compact(CompactionRequest { revision: 3, physical: false }).await.unwrap();
    leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap();
    let kept = stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    let mut kept = leases.lease_keep_alive(kept).await.unwrap().into_inner();
    kept.message().await.unwrap().unwrap();
    drop(kept);
    leases.lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap();
    assert_eq!(watched.revisions(4).await.len(), 4);

    counts_are_told(first, before);
    drop(watched);
    eventually("the end of the stream", || {
        value(first, "etcd_debugging_mvcc_watch_stream_total") == Some(0.0)
            && value(first, "etcd_debugging_mvcc_watcher_total") == Some(0.0)
    })
    .await;
    // Members are told alike of state once they have applied it, and one leads.
    let all = |name: &str| doors.addresses.iter().map(|at| value(*at, name).unwrap()).sum::<f64>();
    let is = |name: &str, wanted: f64| (all(name) - wanted).abs() < 0.5;
    eventually("keys, compaction and leader at every member", || {
        is("etcd_debugging_mvcc_keys_total", 6.0)
            && is("etcd_debugging_mvcc_compact_revision", 9.0)
            && is("etcd_server_has_leader", 3.0)
            && is("etcd_server_is_leader", 1.0)
    })
    .await;
}

/// What the page says of that work, when `before` ranges had been served before it.
fn counts_are_told(first: SocketAddr, before: f64) {
    let says = |name: &str, wanted: f64| {
        let is = value(first, name).unwrap_or_else(|| panic!("no {name}"));
        assert!((is - wanted).abs() < 0.5, "{name} is {is}, not {wanted}");
    };
    says("etcd_mvcc_put_total", 3.0);
    says("etcd_mvcc_delete_total", 1.0);
    says("etcd_mvcc_txn_total", 1.0);
    says("etcd_mvcc_range_total", before + 1.0);
    says("etcd_debugging_lease_granted_total", 1.0);
    says("etcd_debugging_lease_renewed_total", 1.0);
    says("etcd_debugging_lease_revoked_total", 1.0);
    says("etcd_debugging_mvcc_events_total", 4.0);
    says("etcd_debugging_mvcc_watch_stream_total", 1.0);
    says("etcd_debugging_mvcc_watcher_total", 1.0);
    says("etcd_server_proposals_failed_total", 0.0);
    let of = |method: &str, service: &str, kind: &str| {
        format!(
            "grpc_method=\"{method}\",grpc_service=\"etcdserverpb.{service}\",grpc_type=\"{kind}\"}}"
        )
    };
    says(&format!("grpc_server_started_total{{{}", of("Put", "KV", "unary")), 3.0);
    says(&format!("grpc_server_started_total{{{}", of("Watch", "Watch", "bidi_stream")), 1.0);
    let refused = of("Compact", "KV", "unary");
    says(&format!("grpc_server_handled_total{{grpc_code=\"OutOfRange\",{refused}"), 1.0);
    for name in [
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_server_quota_backend_bytes",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_network_peer_sent_bytes_total",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}",
        "etcd_disk_backend_commit_duration_seconds_count",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        let is = value(first, name).unwrap_or_else(|| panic!("no {name}"));
        assert!(is > 0.0, "{name} is {is}");
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, held).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// The head of an answer, in small letters.
fn head(address: SocketAddr, verb: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let body = if verb == "POST" { r#"{"key":"YQ=="}"# } else { "" };
    let length = body.len();
    let request = format!(
        "{verb} {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_lowercase()
}

/// What a browser asks before it lets a page post JSON with a token.
fn preflight(address: SocketAddr, origin: &str) -> String {
    let asks = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n";
    head(address, "OPTIONS", "/v3/kv/range", &format!("Origin: {origin}\r\n{asks}"))
}

fn every_page_is_allowed(address: SocketAddr) {
    let asked = preflight(address, ORIGIN);
    assert!(asked.starts_with("http/1.1 200"), "{asked}");
    assert!(asked.contains("access-control-allow-origin: *"), "{asked}");
    for allowed in ["post", "authorization", "content-type"] {
        assert!(asked.contains(allowed), "{allowed} in {asked}");
    }
    assert!(!asked.contains("allow-credentials"), "{asked}");
    let origin = format!("Origin: {ORIGIN}\r\n");
    for (verb, path) in [("POST", "/v3/kv/range"), ("GET", "/health"), ("GET", "/metrics")] {
        let told = head(address, verb, path, &origin);
        assert!(told.starts_with("http/1.1 200"), "{path}: {told}");
        assert!(told.contains("access-control-allow-origin: *"), "{path}: {told}");
    }
}

fn some_pages_are_allowed(address: SocketAddr) {
    for origin in [ORIGIN, "http://localhost:8080"] {
        let asked = preflight(address, origin);
        assert!(asked.contains(&format!("access-control-allow-origin: {origin}")), "{asked}");
        let told = head(address, "POST", "/v3/kv/range", &format!("Origin: {origin}\r\n"));
        assert!(told.starts_with("http/1.1 200"), "{told}");
    }
    no_page_is_allowed(address, &["https://example.org", "http://admin.example.org", "null"]);
}

/// Neither when its browser asks first nor when it does not.
fn no_page_is_allowed(address: SocketAddr, origins: &[&str]) {
    for origin in origins {
        let asked = preflight(address, origin);
        assert!(!asked.contains("allow-origin"), "{origin}: {asked}");
        let named = format!("Origin: {origin}\r\n");
        for path in ["/v3/kv/range", "/etcdserverpb.KV/Put"] {
            let told = head(address, "POST", path, &named);
            assert!(told.starts_with("http/1.1 403"), "{origin}: {path}: {told}");
        }
        let told = head(address, "GET", "/health", &named);
        assert!(told.starts_with("http/1.1 403"), "{origin}: {told}");
    }
    assert!(head(address, "POST", "/v3/kv/range", "").starts_with("http/1.1 200"), "no browser");
}

async fn health_follows_the_quorum(doors: &mut Doors) {
    let mut health = HealthClient::new(doors.channel(1).await);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let serving = i32::from(ServingStatus::Serving);
    assert_eq!(health.check(of("")).await.unwrap().into_inner().status, serving);
    let unknown = health.check(of("etcdserverpb.KV")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut other = health.watch(of("nothing")).await.unwrap().into_inner();
    let told = other.message().await.unwrap().unwrap().status;
    assert_eq!(told, i32::from(ServingStatus::ServiceUnknown));
    timeout(Duration::from_millis(300), other.message()).await.expect_err("it stays");

    let mut watched = health.watch(of("")).await.unwrap().into_inner();
    let mut next =
        async || timeout(LONG, watched.message()).await.unwrap().unwrap().unwrap().status;
    assert_eq!(next().await, serving);
    doors.cluster.nodes[1].kill();
    doors.cluster.nodes[2].kill();
    assert_eq!(next().await, i32::from(ServingStatus::NotServing));
    doors.cluster.restart(2);
    assert_eq!(next().await, serving);
}
