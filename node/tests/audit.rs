//! Who changed what through the native door: real nodes, asked by `cdb`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;

use std::path::PathBuf;

use common::{Cluster, LONG, until};
use serde_json::{Value, json};

const TOLD: &str = "doors:\n  audit:\n    file: audit.log\n";

/// The lines of all nodes.
fn lines(cluster: &Cluster) -> Vec<Value> {
    let of_node = |config: &PathBuf| {
        std::fs::read_to_string(config.with_file_name("audit.log")).unwrap_or_default()
    };
    let text: String = cluster.nodes.iter().map(|node| of_node(&node.config)).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The only line of an operation that is of something, once it is written.
#[track_caller]
fn line(cluster: &Cluster, operation: &str, of: &Value) -> Value {
    let fits = |line: &Value| line["operation"] == operation && line["of"] == *of;
    until(&format!("a line of {operation}"), LONG, || lines(cluster).into_iter().find(fits));
    let all = lines(cluster);
    let mut found = all.iter().filter(|line| fits(line));
    let line = found.next().unwrap();
    assert_eq!(found.next(), None, "it is told once, whoever passed it on");
    line.clone()
}

#[test]
fn what_the_command_line_changes_is_told_and_what_it_reads_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(folder.path(), 3, TOLD);
    cluster.found();
    cluster.volume("data", 1);
    let created = line(&cluster, "volume create", &json!([{ "volume": "data" }]));
    assert_eq!((&created["door"], &created["as"]), (&"native".into(), &"admin".into()));
    assert_eq!((&created["outcome"], &created["revision"]), (&"done".into(), &Value::Null));

    for number in 0..6 {
        cluster.put(&format!("data/k{number}"), b"secret");
    }
    for number in 0..6 {
        let put = line(&cluster, "put", &json!([{ "key": format!("k{number}") }]));
        assert_eq!((&put["volume"], &put["outcome"]), (&"data".into(), &"done".into()));
        assert!(put["as"] == "admin" && put["revision"].as_u64() > Some(1), "{put}");
    }
    let before = lines(&cluster).len();
    cluster.holds("data/k1", b"secret");
    cluster.cdb(&["kv", "get", "data", "--prefix"]).ok();
    cluster.cdb(&["status"]).ok();

    let script = "value(\"k1\") = \"secret\"\n\nput k1 other\ndel k2\n\nget k3\n";
    cluster.cdb_with(&["kv", "txn", "data"], script.as_bytes()).ok();
    line(&cluster, "transaction", &json!([{ "key": "k1" }, { "key": "k2" }]));
    cluster.cdb(&["rm", "data/k3"]).ok();
    line(&cluster, "delete", &json!([{ "key": "k3" }]));
    cluster.cdb(&["kv", "compact", "data", "1000000"]);
    assert_eq!(lines(&cluster).len(), before + 3, "{:?}", lines(&cluster));

    assert_ne!(cluster.cdb(&["volume", "create", "data"]).code, 0);
    let refused = |line: &Value| line["outcome"] == "a volume named data exists already";
    until("a refusal", LONG, || lines(&cluster).into_iter().find(refused));
    cluster.cdb(&["volume", "rm", "data", "--yes"]).ok();
    line(&cluster, "volume delete", &json!([{ "volume": "data" }]));
    let all = lines(&cluster);
    let count = |operation| all.iter().filter(|line| line["operation"] == operation).count();
    assert_eq!((count("token"), count("join")), (2, 2), "{all:?}");
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
