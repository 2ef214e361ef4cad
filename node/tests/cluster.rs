//! A cluster of real processes: what users do with it, and what they still
//! have after nodes are killed.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

#[path = "cluster/certificates.rs"]
mod certificates;
mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{CDB, Cluster, LONG, Ports, run, tree, until};

#[test]
fn the_verbs_do_what_they_say_on_volumes_of_every_kind() {
    let cluster = Cluster::start(3);
    for kind in ["hash", "ordered", "single"] {
        cluster.cdb(&["volume", "create", kind, "--kind", kind]).ok();
        let key = |name: &str| format!("{kind}/{name}");
        let value = [b'v'; 100_000];
        cluster.put(&key("b/large"), &value);
        cluster.put(&key("b/empty"), b"");
        cluster.put(&key("a"), b"first");
        cluster.put(&key("a"), b"second");
        cluster.holds(&key("a"), b"second");
        cluster.holds(&key("b/large"), &value);
        cluster.holds(&key("b/empty"), b"");
        let stat = cluster.cdb(&["stat", &key("a"), "-o", "json"]).ok().json();
        assert_eq!((&stat["bytes"], &stat["changes"]), (&6.into(), &2.into()), "{stat}");
        let names = cluster.cdb(&["ls", kind, "-o", "name"]).ok().text();
        assert_eq!(names, "a\nb/empty\nb/large\n");
        let under = cluster.cdb(&["ls", &key("b/"), "-o", "name"]).ok().text();
        assert_eq!(under, "b/empty\nb/large\n");
        cluster.cdb(&["rm", &key("a")]).ok();
        cluster.cdb(&["get", &key("a")]).fails(3, &["E0102", &key("a")]);
        if kind == "hash" {
            let ranges = cluster.cdb(&["kv", "del", &key("b/"), "--prefix"]);
            ranges.fails(1, &["E0205", "several shards", "cdb rm -r"]);
            cluster.cdb(&["kv", "lease", "grant", kind, "60"]).fails(1, &["E0205", "leases"]);
        }
        cluster.cdb(&["rm", "-r", &key("b/")]).ok();
        assert_eq!(cluster.cdb(&["ls", kind, "-o", "name"]).ok().text(), "");
    }
    let listed = cluster.cdb(&["volume", "ls", "-o", "name"]).ok().text();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["hash", "ordered", "single"]);
    cluster.cdb(&["volume", "rm", "single", "--yes"]).ok();
    cluster.cdb(&["ls", "single"]).fails(3, &["E0101"]);
}

#[test]
fn a_tree_goes_there_and_back_and_what_cannot_go_is_listed() {
    let cluster = Cluster::start(3);
    cluster.volume("data", 4);
    let source = cluster.root.join("tree");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    for number in 0..60 {
        let folder = if number % 2 == 0 { "deep" } else { "deep/er" };
        let bytes = vec![u8::try_from(number).unwrap(); number * number * 10];
        fs::write(source.join(folder).join(format!("file {number} ü.txt")), bytes).unwrap();
    }
    cluster.cdb(&["sync", "./tree", "data/t/"]).ok();
    cluster.cdb(&["sync", "data/t/", "./copy"]).ok();
    assert_eq!(tree(&source), tree(&cluster.root.join("copy")));
    let again = cluster.cdb(&["sync", "./tree", "data/t/", "-o", "json"]).ok().json();
    assert_eq!((&again["copied"], &again["unchanged"]), (&0.into(), &60.into()), "{again}");

    let strange = std::ffi::OsStr::from_bytes(b"not-\xff-text");
    fs::write(source.join(strange), "x").unwrap();
    fs::write(source.join("large"), vec![0; (4 << 20) + 1]).unwrap();
    fs::write(source.join("new"), "n").unwrap();
    let part = cluster.cdb(&["sync", "./tree", "data/t/", "-o", "json"]);
    let part = part.fails(1, &["E0604", "2 files"]).json();
    let left: Vec<String> =
        part["left_out"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert!(left.iter().any(|one| one.contains("large") && one.contains("4 MiB")), "{left:?}");
    assert!(left.iter().any(|one| one.contains("UTF-8")), "{left:?}");
    cluster.holds("data/t/new", b"n");

    // Pages: each goes on where the one before stood, nothing twice.
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["ls", "data/t/", "--limit", "25", "-o", "json"];
        if let Some(token) = &token {
            args.extend(["--token", token]);
        }
        let page = cluster.cdb(&args).ok().json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 25);
        seen.extend(items.iter().map(|item| item["key"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        token = Some(next.to_owned());
    }
    assert_eq!(seen.len(), 61);
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[test]
fn every_exit_code_is_met() {
    let mut cluster = Cluster::start(3);
    cluster.volume("data", 1);
    cluster.cdb(&["status"]).ok();
    fs::write(cluster.root.join("large"), vec![0; (4 << 20) + 1]).unwrap();
    cluster.cdb(&["put", "data/k", "large"]).fails(1, &["E0202", "4 MiB"]);
    cluster.cdb(&["put", "data/k", "missing"]).fails(1, &["E0602", "missing"]);
    cluster.cdb(&["status", "--wait", "well"]).fails(2, &["healthy"]);
    cluster.cdb(&["get", "data/nothing"]).fails(3, &["E0102"]);
    cluster.cdb(&["volume", "create", "data"]).fails(4, &["E0301"]);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    // Time enough to hear from the one that is left.
    let put = cluster.cdb_with(&["--deadline", "10s", "put", "data/k", "-"], b"v");
    put.fails(5, &["E0412", "data"]);
    cluster.nodes[0].kill();
    cluster.cdb(&["--deadline", "2s", "get", "data/k"]).fails(5, &["E0413"]);
    // Exit code 6 is shown with the tokens and certificates of `bad_input`.
}

#[test]
fn one_command_starts_three_nodes_and_controls_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("dev");
    fs::create_dir(&root).unwrap();
    let ports = Ports::take();
    // Where the nodes lay the last time: ports of ours instead of the default.
    let node = |number: u16| {
        let (quic, http) = ports.of(number);
        serde_json::json!({ "number": number, "state": "stopped", "pid": null, "quic": quic,
            "http": http, "dir": root.join(format!("n{number}/data")),
            "log": root.join(format!("logs/n{number}.log")), "problem": null })
    };
    let file =
        serde_json::json!({ "pid": null, "memory": false, "nodes": [node(1), node(2), node(3)] });
    fs::write(root.join("dev.json"), file.to_string()).unwrap();
    let mut dev = Dev::start(&root);
    let profile = root.join("client.yaml");
    let cdb = |args: &[&str]| {
        let mut all = vec!["--profile", profile.to_str().unwrap()];
        all.extend(args);
        run(&all)
    };
    dev.wait_for("3 nodes ready");
    cdb(&["status", "--wait", "healthy"]).ok();
    cdb(&["volume", "create", "data", "--shards", "2"]).ok();
    common::run_with(&["--profile", profile.to_str().unwrap(), "put", "data/k", "-"], b"v").ok();

    let nodes = cdb(&["node", "ls", "-o", "json"]).ok().json();
    let names: Vec<&str> =
        nodes.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert!(nodes.as_array().unwrap().iter().all(|node| node["pid"].is_u64()), "{nodes}");
    cdb(&["node", "stop", "2"]).ok();
    assert_eq!(cdb(&["get", "data/k"]).ok().text(), "v");
    let status = cdb(&["status", "-o", "json"]).ok().json();
    let findings = status["findings"].to_string();
    assert!(findings.contains("n2") && findings.contains("cdb node start 2"), "{findings}");
    cdb(&["node", "start", "2"]).ok();
    cdb(&["status", "--wait", "healthy", "--timeout", "45s"]).ok();
    cdb(&["node", "stop", "9"]).fails(1, &["E0605"]);

    dev.stop();
    assert_eq!(cdb(&["--deadline", "1s", "get", "data/k"]).code, 5);
    certificates::age(&profile, &root.join("n1/data"), 300);
    assert_eq!(certificates::days_left(&profile), 65);
    let mut dev = Dev::start(&root);
    dev.wait_for("3 nodes ready");
    assert_eq!(certificates::days_left(&profile), 365);
    assert_eq!(cdb(&["get", "data/k"]).ok().text(), "v");
    dev.stop();
}

/// `cdb dev`, ended in order when dropped.
struct Dev {
    child: std::process::Child,
    output: std::path::PathBuf,
}

impl Dev {
    fn start(root: &std::path::Path) -> Self {
        let output = root.with_extension("txt");
        let file = fs::File::create(&output).unwrap();
        let child = Command::new(CDB)
            .args(["dev", "--data"])
            .arg(root)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, output }
    }

    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        until(words, LONG, || {
            let text = fs::read_to_string(&self.output).unwrap();
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {text}");
            text.contains(words).then_some(())
        });
    }

    /// Ctrl-C.
    #[track_caller]
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = until("the end of cdb dev", LONG, || self.child.try_wait().unwrap());
        let text = fs::read_to_string(&self.output).unwrap();
        assert!(status.success() && text.contains("data stays"), "{status}: {text}");
    }
}

impl Drop for Dev {
    /// Its nodes get SIGTERM from the kernel.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn reads_and_writes_go_on_when_any_node_is_killed() {
    let mut cluster = Cluster::start(3);
    cluster.volume("data", 4);
    let mut acknowledged = BTreeMap::new();
    for victim in 1..=3 {
        cluster.nodes[victim - 1].kill();
        let begin = Instant::now();
        for number in 0..12 {
            let (key, value) = (format!("data/{victim}/{number}"), format!("{victim} {number}"));
            cluster.put(&key, value.as_bytes());
            cluster.holds(&key, value.as_bytes());
            acknowledged.insert(key, value);
        }
        assert!(begin.elapsed() < Duration::from_secs(150), "{:?}", begin.elapsed());
        cluster.restart(victim);
        cluster.wait_healthy();
    }
    for (key, value) in &acknowledged {
        cluster.holds(key, value.as_bytes());
    }
}

#[test]
fn every_acknowledged_value_is_there_after_all_nodes_were_killed_at_once() {
    let mut cluster = Cluster::start(3);
    cluster.volume("data", 4);
    let source = cluster.root.join("tree");
    fs::create_dir_all(&source).unwrap();
    for number in 0..200_u32 {
        let bytes = number.to_le_bytes().repeat(usize::try_from(number).unwrap() * 20);
        fs::write(source.join(format!("{number:03}")), bytes).unwrap();
    }
    for round in 0..2 {
        cluster.cdb(&["sync", "./tree", &format!("data/{round}/")]).ok();
        let large = vec![u8::try_from(round).unwrap(); 4 << 20];
        cluster.put(&format!("data/large{round}"), &large);
        for node in &mut cluster.nodes {
            node.kill();
        }
        for node in &mut cluster.nodes {
            node.start(&[]);
        }
        cluster.nodes.iter_mut().for_each(common::Node::wait_ready);
        cluster.holds(&format!("data/large{round}"), &large);
        let copy = format!("./copy{round}");
        cluster.cdb(&["sync", &format!("data/{round}/"), &copy]).ok();
        assert_eq!(tree(&source), tree(&cluster.root.join(&copy)));
    }
    cluster.wait_healthy();
}
