//! Full disks: one node, then all, then room again by deleting keys, and by
//! removing a volume.
//!
//! Each node has a small file system of its own (tmpfs), which only root can
//! mount; others skip, and `simulation/tests/full_disk.rs`
//! shows the same with devices that have no room.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[cfg(feature = "etcd")]
#[path = "full_disk/door.rs"]
mod door;
#[cfg(feature = "etcd")]
#[path = "full_disk/store.rs"]
mod store;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cluster::{
    ids::{ClusterId, NodeId, StoreId},
    ports::engine::{Engine, EngineError, Tree, Write},
};
use clusterdb::devices::lmdb::{LmdbConfig, LmdbEngine};
use common::{Cluster, LONG, Ran, until};

/// Size of one node's disk in MiB: the log's three files of 16 MiB, and room
/// for some of the values below.
const DISK_MIB: usize = 192;
/// Values written to fill them.
static VALUE: [u8; 1 << 20] = [7; 1 << 20];

/// A small file system, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(path.to_owned()))
    }

    /// Fills what is left of it, as a neighbour would.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &VALUE).is_ok() {}
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

/// The cluster is dropped first: its processes hold the disks.
struct World {
    cluster: Cluster,
    disks: Vec<Disk>,
    folder_kept: tempfile::TempDir,
}

fn world() -> Option<World> {
    let folder = tempfile::tempdir().unwrap();
    let mut disks = Vec::new();
    for number in 1..=3 {
        let Some(disk) = Disk::mount(&folder.path().join(format!("n{number}"))) else {
            eprintln!("skipped: mounting a small file system needs root");
            return None;
        };
        disks.push(disk);
    }
    let mut cluster = Cluster::prepare(folder.path(), 3, "");
    cluster.found();
    Some(World { cluster, disks, folder_kept: folder })
}

fn used(cluster: &Cluster) -> Vec<u64> {
    let status = cluster.status();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["used_bytes"].as_u64().unwrap()).collect()
}

#[test]
fn a_full_disk_refuses_puts_serves_the_rest_and_takes_writes_again() {
    let Some(World { cluster, disks, folder_kept: _folder }) = world() else { return };
    let mut cluster = cluster;
    cluster.volume("data", 2);
    cluster.volume("bulk", 2);
    cluster.put("data/kept", b"kept");
    let empty = used(&cluster);
    let disk_bytes = u64::try_from(DISK_MIB << 20).unwrap();
    assert!(empty.iter().all(|bytes| *bytes < disk_bytes / 2), "{empty:?}");

    // One node full: others lead, and the cluster serves.
    let ballast = disks[2].fill();
    until("n3 to say that it is full", LONG, || {
        let (status, text) = common::http_get(cluster.nodes[2].http, "/readyz")?;
        (status == 503 && text.contains("full")).then_some(())
    });
    for number in 0..20 {
        cluster.put(&format!("data/{number}"), &number_bytes(number));
    }
    cluster.holds("data/kept", b"kept");
    // Not its name: nodes are numbered as they join, and two were started at once.
    // Nor 100 %: its log may have given a file back meanwhile.
    until("one node that is found to be full", LONG, || {
        let findings = cluster.status()["findings"].to_string();
        (findings.matches("% full: delete keys").count() == 1).then_some(())
    });
    fs::remove_file(ballast).unwrap();
    cluster.wait_healthy();

    // All full: puts are refused and say where, reads and deletes go on.
    let (written, refused) = fill(&cluster);
    refused.fails(1, &["E0415", "the disk of node", "% full"]);
    assert!(written > 20, "full after {written} MiB of {DISK_MIB}");
    cluster.all_run();
    cluster.holds("data/kept", b"kept");
    for number in 0..written {
        cluster.holds(&format!("bulk/{number}"), &VALUE);
    }
    for number in 0..20 {
        cluster.holds(&format!("data/{number}"), &number_bytes(number));
        cluster.cdb(&["rm", &format!("data/{number}")]).ok();
    }
    cluster.cdb(&["get", "data/0"]).fails(3, &["E0102"]);

    // A restart with full disks loses nothing either, and one without a byte left starts.
    cluster.nodes[0].kill();
    let ballast = disks[0].fill();
    cluster.nodes[0].start(&[]);
    until("n1 to be back", LONG, || {
        common::http_get(cluster.nodes[0].http, "/healthz").filter(|(status, _)| *status == 200)
    });
    fs::remove_file(ballast).unwrap();
    cluster.holds("bulk/0", &VALUE);

    deleting_makes_room(&cluster, written);

    // So does removing a volume.
    cluster.cdb(&["volume", "rm", "bulk", "--yes"]).ok();
    until("room for a put", Duration::from_mins(1), || {
        let ran = cluster.cdb_with(&["--deadline", "2s", "put", "data/again", "-"], &VALUE);
        (ran.code == 0).then_some(())
    });
    cluster.holds("data/again", &VALUE);
    cluster.holds("data/kept", b"kept");
    cluster.wait_healthy();
    cluster.all_run();
}

/// Puts values until they are refused; how many there are, and what is said then.
fn fill(cluster: &Cluster) -> (usize, Ran) {
    let (mut written, begun) = (0, Instant::now());
    loop {
        let ran = cluster.cdb_with(&["put", &format!("bulk/{written}"), "-"], &VALUE);
        match ran.code {
            0 => written += 1,
            // Nobody answered in time: another one leads before long.
            5 => {}
            _ => return (written, ran),
        }
        assert!(written < DISK_MIB && begun.elapsed() < LONG * 4, "it never fills");
    }
}

/// Deleting keys makes room by itself: half a minute in which the old versions
/// can still be read, then the time it takes to sweep them.
fn deleting_makes_room(cluster: &Cluster, written: usize) {
    let kept = written / 2;
    for number in kept..written {
        cluster.cdb(&["rm", &format!("bulk/{number}")]).ok();
    }
    // Room comes back as old versions grow old enough, so not all at once; but
    // it is real room: a good part of what was deleted fits again.
    let (begun, again) = (Instant::now(), (written - kept) / 2);
    for number in 0..again {
        let place = format!("bulk/new-{number}");
        until("room after deletes", Duration::from_secs(90), || {
            let ran = cluster.cdb_with(&["--deadline", "2s", "put", &place, "-"], &VALUE);
            (ran.code == 0).then_some(())
        });
    }
    let took = begun.elapsed();
    println!(
        "{written} MiB filled the disks, {} were deleted: {again} fit again after {took:?}",
        written - kept
    );
    assert!(took < Duration::from_mins(4), "{took:?}");
    for number in 0..kept {
        cluster.holds(&format!("bulk/{number}"), &VALUE);
    }
}

/// LMDB calls a write that falls short an I/O error. It is the disk's room that
/// ended, not the disk: the store serves what it has, and goes on with room.
#[test]
fn a_write_that_falls_short_on_a_full_disk_is_no_broken_disk() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk")) else { return };
    let config = LmdbConfig { cluster: ClusterId(1), node: NodeId(2), map_bytes: 1 << 30 };
    let engine = LmdbEngine::new(disk.0.join("stores"), disk.0.join("quarantine"), config).unwrap();
    let store = engine.create(StoreId(3)).unwrap();
    let write =
        |key: u8, value: Option<Vec<u8>>| Write { tree: Tree::Latest, key: vec![key], value };
    // What is left of the disk ends in the middle of one value's pages.
    let ballast = disk.fill();
    let room = fs::File::options().write(true).open(&ballast).unwrap();
    room.set_len(room.metadata().unwrap().len() - (1 << 20)).unwrap();
    drop(room);
    store.commit(&[write(1, Some(b"kept".to_vec()))]).unwrap();
    for _ in 0..3 {
        let refused = store.commit(&[write(2, Some(vec![7; 3 << 20]))]).unwrap_err();
        assert!(matches!(refused, EngineError::Full { .. }), "{refused}");
    }
    assert_eq!(store.view().unwrap().get(Tree::Latest, &[1]).unwrap(), Some(&b"kept"[..]));
    fs::remove_file(ballast).unwrap();
    // A busy machine has been seen to give the room back a moment later.
    until("a write after the room came back", Duration::from_secs(20), || {
        store.commit(&[write(2, Some(vec![7; 3 << 20]))]).ok()
    });
    assert!(store.view().unwrap().get(Tree::Latest, &[2]).unwrap().is_some());
}

fn number_bytes(number: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(4_000)
}
