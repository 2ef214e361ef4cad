//! Wrong requests, files, credentials and packets against real processes: each
//! gets a clear answer, costs nothing acknowledged and takes no node down.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "common/hostile.rs"]
mod hostile;

use std::{fs, path::Path, time::Duration};

use cluster::formats::{FrameKind, decode_frame, encode_frame};
use common::{Cluster, LONG, Node, tree, until};

/// A cluster that holds something which nothing may cost it.
fn cluster() -> Cluster {
    let cluster = Cluster::start(3);
    cluster.volume("data", 2);
    cluster.put("data/kept", b"kept");
    cluster
}

/// After whatever was done to it: all nodes run, and nothing is lost.
#[track_caller]
fn unharmed(cluster: &mut Cluster) {
    cluster.all_run();
    cluster.holds("data/kept", b"kept");
    cluster.put("data/after", b"after");
    cluster.holds("data/after", b"after");
}

#[test]
fn wrong_requests_are_refused_with_the_limit_and_the_way_out() {
    let mut cluster = cluster();
    cluster.cdb(&["get", "nowhere/k"]).fails(3, &["E0101", "nowhere", "cdb volume"]);
    cluster.cdb_with(&["put", "nowhere/k", "-"], b"v").fails(3, &["E0101"]);
    let long = format!("data/{}", "k".repeat(1_025));
    cluster.cdb_with(&["put", &long, "-"], b"v").fails(2, &["E0201", "1,024"]);
    let longest = format!("data/{}", "k".repeat(1_024));
    cluster.put(&longest, b"v");
    cluster.holds(&longest, b"v");
    let large = vec![1; (4 << 20) + 1];
    cluster.cdb_with(&["put", "data/l", "-"], &large).fails(1, &["E0202", "4 MiB"]);
    cluster.put("data/l", &large[1..]);
    cluster.holds("data/l", &large[1..]);
    cluster.cdb(&["put", "data/", "-"]).fails(2, &["E0"]);
    cluster.cdb(&["volume", "create", "a b"]).fails(1, &["E0"]);
    cluster.cdb(&["explain", "E0202"]).ok();
    unharmed(&mut cluster);
}

#[test]
fn a_malformed_configuration_is_shown_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.yaml");
    let start = |text: &str| {
        fs::write(&config, text).unwrap();
        common::run(&["start", "-c", config.to_str().unwrap()])
    };
    let file = "node.yaml";
    start("data_dir: d\nzome: a\n").fails(2, &["E0701", file, "line 2", "zome", "zone"]);
    start("data_dir: d\nlisten: nowhere\n").fails(2, &["E0701", "line 2", "0.0.0.0:7400"]);
    start("data_dir: d\nzone: [\n").fails(2, &["E0701", "line"]);
    start("{}").fails(2, &["E0701", "data_dir"]);
    start("").fails(2, &["E0701", "line 1"]);
    start("data_dir: d\n").fails(1, &["E0705", "cdb cluster init", "--join"]);
    assert!(!folder.path().join("d").exists(), "refusing leaves no trace");
    let profile = folder.path().join("client.yaml");
    fs::write(&profile, "cluster: x\n").unwrap();
    let named = ["--profile", profile.to_str().unwrap(), "status"];
    common::run(&named).fails(1, &["E0601", "chmod 600"]);
    let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&profile, owner).unwrap();
    common::run(&named).fails(1, &["E0601", "client.yaml"]);
}

#[test]
fn credentials_of_another_cluster_and_used_tokens_open_nothing() {
    let mut cluster = cluster();
    let mut other = Cluster::prepare(&cluster.root.join("other"), 1, "");
    other.found();

    // A client with the other cluster's certificate.
    let text = fs::read_to_string(&other.profile).unwrap();
    let ours = cluster.nodes[0].quic.to_string();
    let crossed = cluster.root.join("crossed.yaml");
    fs::write(&crossed, text.replace(&other.nodes[0].quic.to_string(), &ours)).unwrap();
    fs::set_permissions(&crossed, fs::metadata(&other.profile).unwrap().permissions()).unwrap();
    let crossed = crossed.display().to_string();
    common::run(&["--profile", &crossed, "get", "data/kept"]).fails(6, &["E0502", "fix"]);

    // Tokens: of another cluster, mistyped, used before.
    let mut stranger = cluster.another(4);
    let refused = stranger.start_refused(&["--join", &ours, "--token", &other.token()]);
    assert!(refused.contains("E0707") && refused.contains("token"), "{refused}");
    let token = cluster.token();
    let mistyped =
        format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
    let refused = stranger.start_refused(&["--join", &ours, "--token", &mistyped]);
    assert!(refused.contains("E0707") && refused.contains("copy"), "{refused}");
    assert!(!refused.contains(&mistyped[5..40]), "a secret is repeated: {refused}");
    let expired = cluster.cdb(&["cluster", "token", "--lifetime", "1s"]).ok().text();
    let expired = expired.split_whitespace().find(|word| word.starts_with("cdb1-")).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    let refused = stranger.start_refused(&["--join", &ours, "--token", expired]);
    assert!(refused.contains("E0707") && refused.contains("expired"), "{refused}");
    assert!(refused.contains("cdb cluster token"), "the way out: {refused}");
    assert!(!stranger.dir.join("node.key").exists(), "no identity was made");
    assert!(!cluster.cdb(&["node", "ls"]).ok().text().contains("n4"), "nobody entered");
    cluster.cdb(&["cluster", "token", "--lifetime", "16m"]).fails(1, &["E0204", "15 min"]);
    stranger.start(&["--join", &ours, "--token", &token]);
    stranger.wait_ready();
    let mut second = cluster.another(5);
    let refused = second.start_refused(&["--join", &ours, "--token", &token]);
    assert!(refused.contains("E0707") && refused.contains("cdb cluster token"), "{refused}");
    assert!(refused.contains("used"), "{refused}");
    // It may come back all the same, with a new one.
    let token = cluster.token();
    second.start(&["--join", &ours, "--token", &token]);
    second.wait_ready();

    // A directory that belongs to a node of the other cluster.
    let mut lost = cluster.another(3);
    lost.dir = other.nodes[0].dir.clone();
    other.nodes[0].stop();
    let before = tree(&lost.dir);
    let text = fs::read_to_string(&cluster.nodes[2].config).unwrap();
    cluster.nodes[2].stop();
    let text = text.replace("data_dir: data", &format!("data_dir: {}", lost.dir.display()));
    fs::write(&lost.config, &text).unwrap();
    let token = cluster.token();
    let refused = lost.start_refused(&["--join", &ours, "--token", &token]);
    assert!(refused.contains("E0703") && refused.contains("another cluster"), "{refused}");
    assert!(before == tree(&lost.dir), "refusing changes nothing");
    let restored = text.replace(&format!("data_dir: {}", lost.dir.display()), "data_dir: data");
    fs::write(&lost.config, restored).unwrap();
    cluster.restart(3);
    unharmed(&mut cluster);
}

#[test]
fn a_second_process_learns_who_has_the_directory() {
    let mut cluster = cluster();
    let first = cluster.nodes[0].pid().to_string();
    let config = cluster.nodes[0].config.display().to_string();
    let second = common::run(&["start", "-c", &config]);
    second.fails(4, &["E0702", &format!("in use by process {first}")]);
    common::run(&["cluster", "init", "-c", &config, "--write-profile", "/dev/null/x"])
        .fails(4, &["E0702"]);
    unharmed(&mut cluster);
}

/// Gives the first frame of a file the next version, with right checksums.
fn make_newer(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let (header, payload) = decode_frame(&bytes, bytes.len()).unwrap();
    let frame = encode_frame(header.kind, header.version + 1, payload);
    assert!(matches!(header.kind, FrameKind::NodeState | FrameKind::LogSegment));
    let mut newer = bytes.clone();
    newer[..frame.len()].copy_from_slice(&frame);
    fs::write(path, newer).unwrap();
}

/// What a refused start may touch: the lock, and the count of starts.
fn lasting(dir: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = tree(dir);
    files.retain(|name, _| !["lock", "incarnation"].contains(&name.to_str().unwrap_or_default()));
    files
}

#[test]
fn newer_formats_and_swapped_disks_are_refused_and_left_alone() {
    let mut cluster = cluster();
    cluster.nodes[2].kill();
    let refuse = |node: &mut Node, words: &[&str]| {
        let before = lasting(&node.dir);
        let refused = node.start_refused(&[]);
        for word in words {
            assert!(refused.contains(word), "`{word}` is missing in:\n{refused}");
        }
        assert!(before == lasting(&node.dir), "refusing changes nothing");
    };
    let newest = fs::read_dir(cluster.nodes[2].dir.join("log")).unwrap();
    let segment = newest
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .max()
        .unwrap();
    for (path, words) in [
        (cluster.nodes[2].dir.join("identity"), ["E0704", "identity has format 3"]),
        (segment, ["E0704", "log format 2"]),
    ] {
        let good = fs::read(&path).unwrap();
        make_newer(&path);
        refuse(&mut cluster.nodes[2], &words);
        cluster.holds("data/kept", b"kept");
        fs::write(&path, good).unwrap();
    }

    // Log and stores of two nodes change places: another disk in the slot.
    cluster.nodes[1].kill();
    let swap = |cluster: &Cluster| {
        for part in ["log", "stores"] {
            let [a, b] = [1, 2].map(|at: usize| cluster.nodes[at].dir.join(part));
            let aside = cluster.root.join("aside");
            fs::rename(&a, &aside).unwrap();
            fs::rename(&b, &a).unwrap();
            fs::rename(&aside, &b).unwrap();
        }
    };
    swap(&cluster);
    for at in [1, 2] {
        refuse(&mut cluster.nodes[at], &["E0703", "put the disk back"]);
    }
    swap(&cluster);
    cluster.restart(2);
    cluster.restart(3);
    cluster.wait_healthy();
    unharmed(&mut cluster);
}

#[test]
fn noise_nonsense_and_stalled_handshakes_disturb_nobody() {
    let mut cluster = cluster();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let targets: Vec<_> = cluster.nodes.iter().map(|node| node.quic).collect();

    for target in &targets {
        hostile::send_noise(*target, 5_000);
    }
    unharmed(&mut cluster);

    let stalled = runtime.block_on(hostile::stall_handshakes(targets[0], 300));
    unharmed(&mut cluster);
    drop(stalled);

    runtime.block_on(async {
        // TLS done, but no word after it: cut off in time.
        let stranger = hostile::endpoint(None);
        let mute = stranger.connect(targets[1], "cdb").unwrap();
        if let Ok(mute) = mute.await {
            let cut = tokio::time::timeout(Duration::from_secs(15), mute.closed()).await;
            assert!(cut.is_ok(), "a mute peer keeps its connection");
        }
        let own = hostile::operator(&cluster.profile);
        let endpoint = hostile::endpoint(Some(&own));
        for target in &targets {
            let mut connection = hostile::trusted(&endpoint, &own, *target).await;
            for words in hostile::nonsense() {
                if connection.close_reason().is_some() {
                    connection = hostile::trusted(&endpoint, &own, *target).await;
                }
                let answered = hostile::utter(&connection, &words).await;
                assert!(answered, "no answer to {} bytes: {:?}", words.len(), &words[..3]);
            }
        }
    });
    unharmed(&mut cluster);
    until("peers that see each other", LONG, || {
        let status = cluster.status();
        status["healthy"].as_bool().unwrap_or(false).then_some(())
    });
    for node in &cluster.nodes {
        assert!(!node.log_text().contains("panicked"), "n{}:\n{}", node.number, node.log_text());
    }
}
