//! What is damaged, old or gone comes back by itself: real processes, real
//! files, and nobody who helps.
//!
//! One cluster of three nodes goes through it all in turn, for a start costs
//! more than a case. After each case every acknowledged value is asked for.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Cluster, LONG, http_get, until};
use serde_json::Value;

/// A cluster with values to lose.
struct World {
    cluster: Cluster,
    values: BTreeMap<String, Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::start(3);
        cluster.volume("data", 2);
        Self { cluster, values: BTreeMap::new() }
    }

    fn write(&mut self, round: &str, count: usize) {
        for number in 0..count {
            let key = format!("data/{round}/{number}");
            let value = format!("{round} {number} ").repeat(200).into_bytes();
            self.cluster.put(&key, &value);
            self.values.insert(key, value);
        }
    }

    fn holds_all(&self) {
        for (key, value) in &self.values {
            self.cluster.holds(key, value);
        }
    }

    fn dir(&self) -> PathBuf {
        self.cluster.nodes[1].dir.clone()
    }

    /// Replicas of n2, as it says.
    fn replicas(&self) -> Vec<Value> {
        let node = self.cluster.cdb(&["node", "show", "2"]).ok().json();
        node["replicas"].as_array().unwrap().clone()
    }

    fn ids(&self) -> BTreeSet<u64> {
        self.replicas().iter().map(|replica| replica["replica"].as_u64().unwrap()).collect()
    }

    /// Starts n2 on what lies in its directory, and waits until all is well.
    /// Returns what `cdb status` said on the way.
    fn start_and_heal(&mut self, round: &str) -> String {
        self.cluster.nodes[1].start(&[]);
        let (mut said, mut written) = (String::new(), false);
        until("n2 to be whole again", LONG * 3, || {
            let report = self.cluster.status();
            let text = report["findings"].to_string();
            if text.contains("is lost") {
                said = text;
            }
            let is_healthy = report["healthy"] == true;
            // The others serve meanwhile. First it is looked, or nobody sees what was lost
            // for a moment only.
            if !written && (is_healthy || !said.is_empty()) {
                self.write(round, 3);
                written = true;
                return None;
            }
            (written && is_healthy && !self.ids().is_empty()).then_some(())
        });
        self.holds_all();
        said
    }
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| wanted(path.file_name().unwrap().to_str().unwrap())).collect();
    found.sort();
    found
}

/// Bends bytes of a file in a place that `place` chooses among those that hold
/// something.
fn bend(path: &Path, place: impl Fn(usize) -> Range<usize>) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    for byte in &mut bytes[place(used)] {
        *byte ^= 0x5a;
    }
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn damaged_and_old_replicas_of_a_node_come_back_under_new_ids_by_themselves() {
    let mut world = World::new();
    world.write("first", 20);
    let first = world.ids();
    assert_eq!(first.len(), 3, "two shards and the catalog");

    // The middle of the log.
    world.cluster.nodes[1].stop();
    let segments = files(&world.dir().join("log"), |name| name.ends_with(".segment"));
    bend(segments.last().unwrap(), |used| used / 2..used / 2 + 64);
    let said = world.start_and_heal("log");
    assert!(said.contains("n2") && said.contains("log is damaged"), "{said}");
    let second = world.ids();
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");

    // A store, behind the log's back.
    world.cluster.nodes[1].stop();
    let stores = files(&world.dir().join("stores"), |name| name.starts_with("store-"));
    // Half of it: in less there may be nothing but free pages.
    bend(&stores[0].join("data.mdb"), |used| used / 4..used / 4 * 3);
    let said = world.start_and_heal("store");
    assert!(said.contains("store is damaged"), "{said}");
    let third = world.ids();
    assert_eq!(second.intersection(&third).count(), 2, "{second:?} {third:?}");
    let aside = files(&world.dir().join("quarantine"), |name| name.starts_with("store-"));
    assert!(!aside.is_empty(), "the damaged store is set aside");

    // The whole directory as it was before more was written.
    world.cluster.nodes[1].stop();
    let (dir, old) = (world.dir(), world.cluster.root.join("old"));
    copy(&dir, &old);
    world.cluster.nodes[1].start(&[]);
    world.cluster.nodes[1].wait_ready();
    world.write("later", 20);
    world.cluster.nodes[1].kill();
    copy(&old, &dir);
    let pid_before = world.cluster.nodes[1].log_text().len();
    world.start_and_heal("old");
    let log = world.cluster.nodes[1].log_text().split_off(pid_before);
    assert!(log.contains("this disk is an old image"), "{log}");
    let fourth = world.ids();
    assert!(third.is_disjoint(&fourth), "{third:?} {fourth:?}");
    world.write("end", 3);
    world.cluster.all_run();
    // It can lead: the others go, one after the other.
    for gone in [0, 2] {
        world.cluster.nodes[gone].kill();
        world.holds_all();
        world.cluster.restart(gone + 1);
        world.cluster.wait_healthy();
    }
}

#[test]
fn a_node_whose_disk_is_gone_is_replaced_by_another_and_never_comes_back() {
    let mut world = World::new();
    world.write("first", 20);
    world.cluster.nodes[1].kill();
    let (dir, kept) = (world.dir(), world.cluster.root.join("kept"));
    copy(&dir, &kept);
    fs::remove_dir_all(&dir).unwrap();
    // One more down, and the shards would stop.
    world.cluster.cdb(&["node", "rm", "1", "--yes"]).fails(4, &["E0303", "majority", "join"]);
    world.cluster.cdb(&["node", "rm", "2"]).fails(2, &["--yes"]);
    let plan = world.cluster.cdb(&["node", "rm", "2", "--dry-run"]).ok().text();
    assert!(plan.contains("3 replicas of n2"), "{plan}");
    let mut fresh = world.cluster.another(4);
    let (first, token) = (world.cluster.nodes[0].quic.to_string(), world.cluster.token());
    fresh.start(&["--join", &first, "--token", &token]);
    fresh.wait_ready();
    world.cluster.cdb(&["node", "rm", "2", "--yes"]).ok();
    world.cluster.wait_healthy();
    world.holds_all();
    let node = world.cluster.cdb(&["node", "show", "4"]).ok().json();
    assert_eq!(node["replicas"].as_array().unwrap().len(), 3, "{node}");
    // The old one returns with all its data, and is not let in.
    copy(&kept, &dir);
    world.cluster.nodes[1].start(&[]);
    let old = &world.cluster.nodes[1];
    let refused = || old.log_text().contains("this node was removed").then_some(());
    until("the old n2 to hear that it was removed", LONG, refused);
    world.write("after", 5);
    let ready = http_get(world.cluster.nodes[1].http, "/readyz");
    assert!(ready.is_none_or(|(status, _)| status != 200), "it takes no part");
    let names = world.cluster.cdb(&["node", "ls", "-o", "name"]).ok().text();
    assert!(!names.contains("n2"), "{names}");
    world.cluster.wait_healthy();
    world.holds_all();
}
