//! What a node shows of itself, and what it never shows.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write as _,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{Cluster, Ports, http_get};

/// Where the crates keep the names of what they count.
const NAMES: [&str; 3] = [
    include_str!("../src/observe/metrics.rs"),
    include_str!("../../actors/src/metrics.rs"),
    include_str!("../../transport/src/metrics.rs"),
];

/// Every name that stands in a constant.
fn names() -> BTreeSet<&'static str> {
    let lines = NAMES.iter().flat_map(|source| source.lines());
    let constants = lines.filter(|line| line.starts_with("pub const") && line.contains("\"cdb_"));
    constants.filter_map(|line| line.split('"').nth(1)).collect()
}

#[test]
fn a_node_shows_every_metric_and_tells_whether_it_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(folder.path(), 3, "");
    let doors = Ports::take();
    for node in &cluster.nodes {
        let quotas = "    quotas:\n      - {prefix: few/, keys: 3}\n";
        let address = doors.of(node.number).0;
        let mut config = OpenOptions::new().append(true).open(&node.config).unwrap();
        write!(config, "doors:\n  etcd:\n    listen: {address}\n{quotas}").unwrap();
    }
    cluster.found();
    cluster.volume("data", 2);
    cluster.put("data/k", b"v");
    cluster.holds("data/k", b"v");
    let page = |cluster: &Cluster, at: usize| http_get(cluster.nodes[at].http, "/metrics").unwrap();
    for at in 0..3 {
        // Once its volume is there, and was counted.
        common::until("a quota", common::LONG, || {
            page(&cluster, at).1.contains("cdb_etcd_quota_used_keys{").then_some(())
        });
    }
    let names = names();
    assert!(names.len() > 30, "{names:?}");
    for at in 0..3 {
        let (status, text) = page(&cluster, at);
        assert_eq!(status, 200);
        for name in &names {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not on the page");
            let shown = text.lines().any(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with([' ', '{', '_']))
            });
            assert!(shown, "{name} has no value");
        }
    }
    let sum = |cluster: &Cluster, name: &str| -> f64 {
        let pages: Vec<_> = (0..3).map(|at| page(cluster, at).1).collect();
        let values = pages.iter().flat_map(|page| page.lines());
        values.filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).sum()
    };
    let before = sum(&cluster, "cdb_replica_applied_entries_total");
    cluster.put("data/k", b"w");
    assert!(sum(&cluster, "cdb_replica_applied_entries_total") > before);
    assert!(sum(&cluster, "cdb_replica_read_rounds_total") >= 1.0);

    for node in &cluster.nodes {
        assert!(!node.log_text().contains("key put"), "what is told at debug is off");
    }

    // Each shard is counted where it is led.
    let is = |name: &str, wanted: f64| (sum(&cluster, name) - wanted).abs() < 0.5;
    assert!(is("cdb_volume_keys{volume=\"data\"}", 1.0));
    assert!(is("cdb_volume_used_bytes{volume=\"data\"}", 2.0));
    assert!(is("cdb_volume_revision{volume=\"etcd\"}", 3.0), "1 on each");

    let first = cluster.nodes[0].http;
    assert_eq!(http_get(first, "/healthz").unwrap(), (200, "ok\n".to_owned()));
    let (status, text) = http_get(first, "/readyz?verbose").unwrap();
    assert!(status == 200 && text.contains("[+] leaders: ok"), "{status} {text}");
    assert_eq!(http_get(first, "/nothing").unwrap().0, 404);

    // Without a majority the one that is left is healthy, but not ready.
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    common::until("an unready node", common::LONG, || {
        let (status, text) = http_get(first, "/readyz")?;
        (status == 503 && text.contains("know no leader")).then_some(())
    });
    assert_eq!(http_get(first, "/healthz").unwrap().0, 200);
}

#[test]
fn no_secret_is_ever_logged() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(folder.path(), 2, "log:\n  level: trace\n");
    cluster.found();
    cluster.cdb(&["volume", "create", "data", "--replicas", "2", "--shards", "1"]).ok();
    let value = b"the value itself";
    cluster.put("data/logged", b"first");
    cluster.put("data/logged", value);
    cluster.cdb(&["rm", "data/logged"]).ok();
    cluster.put("data/k", value);
    let token = cluster.token();
    let first = cluster.nodes[0].quic.to_string();
    let mut third = cluster.another(3);
    third.start(&["--log", "trace", "--join", &first, "--token", &token]);
    third.wait_ready();
    // Used already: a refusal speaks of it, and must not repeat it.
    let mut fourth = cluster.another(4);
    fourth.start_refused(&["--log", "trace", "--join", &first, "--token", &token]);

    let mut secrets = vec![("token", token), ("value", "the value itself".to_owned())];
    secrets.push(("value", format!("{value:?}").trim_matches(['[', ']']).to_owned()));
    for node in &cluster.nodes {
        secrets.extend(keys_of(&node.dir));
    }
    secrets.extend(keys_of(&third.dir));
    let profile = fs::read_to_string(&cluster.profile).unwrap();
    secrets.push(("operator's key", middle_line(&profile[profile.find("\nkey:").unwrap()..])));
    for node in cluster.nodes.iter().chain([&third, &fourth]) {
        let log = node.log_text();
        assert!(node.number == 4 || log.contains("DEBUG"), "the log is not verbose");
        for told in ["key put", "key deleted", "index updated", "batch committed"] {
            let of_key = |line: &str| line.contains(told) && line.contains("logged");
            let told_here = told == "batch committed" && log.contains(told);
            let holds = cluster.nodes.iter().any(|holder| holder.number == node.number);
            assert!(!holds || told_here || log.lines().any(of_key), "n{}: {told}", node.number);
        }
        for (what, secret) in &secrets {
            assert!(!log.contains(secret), "n{} logs a {what}", node.number);
        }
    }
}

/// The secrets in a data directory, in the forms in which they might be shown.
fn keys_of(dir: &std::path::Path) -> Vec<(&'static str, String)> {
    let key = fs::read(dir.join("cluster.key")).unwrap();
    let hex = key.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let debug = format!("{key:?}").trim_matches(['[', ']']).to_owned();
    let pem = fs::read_to_string(dir.join("node.key")).unwrap();
    vec![
        ("cluster key", hex.to_uppercase()),
        ("cluster key", hex),
        ("cluster key", debug),
        ("cluster key", STANDARD.encode(&key)),
        ("node key", middle_line(&pem)),
    ]
}

/// A line of base64 out of the middle of a PEM text.
fn middle_line(pem: &str) -> String {
    let lines = pem.lines().map(str::trim);
    let line = lines.skip_while(|line| !line.starts_with("-----BEGIN")).nth(1);
    line.expect("a line of the key").to_owned()
}
