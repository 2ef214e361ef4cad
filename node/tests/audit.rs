//! Who changed what through the native door: real nodes, asked by `cdb`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use common::{Cluster, LONG, until};
use serde_json::{Value, json};

const TOLD: &str = "doors:\n  audit:\n    file: audit.log\n";

/// The shortest time after which a client asks again, when a first answer does not come
/// (`actors/src/client/trial.rs`). Each time it asks is told.
const TRY: Duration = Duration::from_millis(500);
/// All that changes something in the test before the volume goes.
const CHANGES: [&str; 7] =
    ["compact", "delete", "join", "put", "token", "transaction", "volume create"];

/// Makes a change; whether the client had no time to ask twice.
fn at_once(change: impl FnOnce()) -> bool {
    let begun = Instant::now();
    change();
    begun.elapsed() < TRY
}

/// The lines of all nodes.
fn lines(cluster: &Cluster) -> Vec<Value> {
    let of_node = |config: &PathBuf| {
        std::fs::read_to_string(config.with_file_name("audit.log")).unwrap_or_default()
    };
    let text: String = cluster.nodes.iter().map(|node| of_node(&node.config)).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The line of an operation that was done to something, once it is written: the only one
/// if it was asked for `once`.
#[track_caller]
fn line(cluster: &Cluster, operation: &str, of: &Value, once: bool) -> Value {
    let fits = |line: &Value| {
        line["operation"] == operation && line["of"] == *of && line["outcome"] == "done"
    };
    until(&format!("a line of {operation}"), LONG, || lines(cluster).into_iter().find(fits));
    let all = lines(cluster);
    let mut found = all.iter().filter(|line| fits(line));
    let line = found.next().unwrap();
    assert!(!once || found.next().is_none(), "it is told once, whoever passed it on: {all:?}");
    line.clone()
}

fn operations(lines: &[Value]) -> BTreeSet<&str> {
    lines.iter().map(|line| line["operation"].as_str().unwrap()).collect()
}

#[test]
fn what_the_command_line_changes_is_told_and_what_it_reads_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(folder.path(), 3, TOLD);
    cluster.found();
    let once = at_once(|| cluster.volume("data", 1));
    let created = line(&cluster, "volume create", &json!([{ "volume": "data" }]), once);
    assert_eq!((&created["door"], &created["as"]), (&"native".into(), &"admin".into()));
    assert_eq!(created["revision"], Value::Null);

    let puts =
        [0, 1, 2, 3, 4, 5].map(|n| at_once(|| cluster.put(&format!("data/k{n}"), b"secret")));
    for (number, once) in puts.iter().enumerate() {
        let put = line(&cluster, "put", &json!([{ "key": format!("k{number}") }]), *once);
        assert_eq!(put["volume"], "data");
        assert!(put["as"] == "admin" && put["revision"].as_u64() > Some(1), "{put}");
    }
    let before = lines(&cluster).len();
    cluster.holds("data/k1", b"secret");
    cluster.cdb(&["kv", "get", "data", "--prefix"]).ok();
    cluster.cdb(&["status"]).ok();

    let script = "value(\"k1\") = \"secret\"\n\nput k1 other\ndel k2\n\nget k3\n";
    let changed =
        at_once(|| drop(cluster.cdb_with(&["kv", "txn", "data"], script.as_bytes()).ok()));
    line(&cluster, "transaction", &json!([{ "key": "k1" }, { "key": "k2" }]), changed);
    let removed = at_once(|| drop(cluster.cdb(&["rm", "data/k3"]).ok()));
    line(&cluster, "delete", &json!([{ "key": "k3" }]), removed);
    let compacted = at_once(|| drop(cluster.cdb(&["kv", "compact", "data", "1000000"])));
    let compact = |line: &Value| line["operation"] == "compact";
    until("a line of compact", LONG, || lines(&cluster).into_iter().find(compact));
    let all = lines(&cluster);
    assert_eq!(operations(&all), BTreeSet::from(CHANGES), "{all:?}");
    let once = puts.into_iter().chain([changed, removed, compacted]).all(|once| once);
    assert!(!once || all.len() == before + 3, "{all:?}");

    assert_ne!(cluster.cdb(&["volume", "create", "data"]).code, 0);
    let refused = |line: &Value| line["outcome"] == "a volume named data exists already";
    until("a refusal", LONG, || lines(&cluster).into_iter().find(refused));
    cluster.cdb(&["volume", "rm", "data", "--yes"]).ok();
    line(&cluster, "volume delete", &json!([{ "volume": "data" }]), false);
    let all = lines(&cluster);
    let joined = all.iter().filter(|line| line["operation"] == "join");
    let joined: BTreeSet<_> = joined.map(|line| line["of"].to_string()).collect();
    let tokens = all.iter().filter(|line| line["operation"] == "token").count();
    assert!(joined.len() == 2 && tokens >= 2, "{all:?}");
    assert!(!Value::from(all).to_string().contains("secret"));
    // A log that is held on to would keep the process from ending.
    cluster.nodes.iter_mut().for_each(common::Node::stop);
}

#[test]
fn a_node_that_is_not_told_to_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(folder.path(), 1, "");
    cluster.found();
    cluster.cdb(&["volume", "create", "data", "--replicas", "1"]).ok();
    assert!(!cluster.nodes[0].config.with_file_name("audit.log").exists());
}
