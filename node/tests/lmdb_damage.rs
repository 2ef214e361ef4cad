//! Flipped bits in a store's file: each is detected, or it is harmless.
//!
//! Every image is opened and read whole in a child process, so that a crash
//! inside LMDB would be seen as one and not end the test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../cluster/tests/model/mod.rs"]
mod model;

use std::{collections::BTreeMap, path::Path, process::Command};

use cluster::{
    ids::{ClusterId, NodeId},
    mvcc::version::VersionKind,
    ports::engine::Engine,
    shard::machine::ShardMachine,
};
use clusterdb::devices::lmdb::{LmdbConfig, LmdbEngine};
use model::{Chance, REPLICA, Replica, STORE, delete, put};

const IMAGES: &str = "CDB_DAMAGED_IMAGES";
const FLIPS: usize = 1_200;
const PER_CHILD: usize = 100;

fn engine(root: &Path) -> LmdbEngine {
    let config = LmdbConfig { cluster: ClusterId(1), node: NodeId(2), map_bytes: 32 << 20 };
    LmdbEngine::new(root.join("stores"), root.join("quarantine"), config).unwrap()
}

/// Opens a store and reads everything: the hash of the state, or why not.
fn read_all(root: &Path) -> Result<u128, String> {
    let store = engine(root).open(STORE).map_err(|error| format!("open: {error}"))?;
    let view = store.view().map_err(|error| format!("view: {error}"))?;
    let machine = ShardMachine::open(REPLICA, &*view).map_err(|error| format!("root: {error}"))?;
    let reader = machine.reader();
    let hash = reader.state_hash(&*view).map_err(|error| format!("read: {error}"))?;
    for n in 0..300_u32 {
        let key = format!("key/{n:04}");
        let item = reader.get(&*view, key.as_bytes(), None, false);
        let item = item.map_err(|error| format!("get: {error}"))?;
        assert_eq!(item.is_some(), n % 7 != 0, "{key} is wrong and nobody noticed");
    }
    Ok(hash)
}

/// The child's part: one line per image.
#[test]
fn child_reads_damaged_images() {
    let Some(folder) = std::env::var_os(IMAGES) else { return };
    for n in 0..PER_CHILD {
        match read_all(&Path::new(&folder).join(n.to_string())) {
            Ok(hash) => println!("image {n} hash {hash}"),
            Err(error) => println!("image {n} refused {error}"),
        }
    }
}

fn filled(root: &Path) -> u128 {
    let mut replica = Replica::born(&engine(root), VersionKind::Dense);
    for round in 0..4_u8 {
        for n in 0..300_u32 {
            let bytes = if n % 50 == 1 { 10_000 } else { 80 };
            replica.write(vec![put(format!("key/{n:04}").as_bytes(), &vec![round; bytes])]);
        }
        replica.flush();
    }
    for n in (0..300_u32).step_by(7) {
        replica.write(vec![delete(format!("key/{n:04}").as_bytes())]);
    }
    replica.flush();
    replica.hash()
}

/// Writes one image per bit and has a child read them; its line for each.
fn read_in_child(file: &[u8], bits: &[usize]) -> Vec<String> {
    let images = tempfile::tempdir().unwrap();
    for (n, bit) in bits.iter().enumerate() {
        let mut bent = file.to_vec();
        bent[bit / 8] ^= 1 << (bit % 8);
        let store = images.path().join(n.to_string()).join("stores/store-3");
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(store.join("data.mdb"), bent).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_reads_damaged_images", "--nocapture"])
        .env(IMAGES, images.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| Some(line[line.find("image ")?..].to_owned()));
    let lines: Vec<String> = lines.collect();
    assert!(
        output.status.success() && lines.len() == bits.len(),
        "the child died ({}) at bit {:?}: {}",
        output.status,
        bits.get(lines.len()),
        String::from_utf8_lossy(&output.stderr)
    );
    lines
}

#[test]
fn a_flipped_bit_is_detected_or_harmless() {
    let root = tempfile::tempdir().unwrap();
    let wanted = filled(root.path());
    assert_eq!(read_all(root.path()), Ok(wanted));
    let file = std::fs::read(root.path().join("stores/store-3/data.mdb")).unwrap();
    let mut chance = Chance(0xdead);
    let mut results: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..FLIPS / PER_CHILD {
        let bits: Vec<usize> = (0..PER_CHILD)
            .map(|n| {
                let bit = chance.index(file.len() * 8);
                // A quarter goes where structure is: the beginning of a page.
                if n % 4 == 0 { bit / 32_768 * 32_768 + bit % (160 * 8) } else { bit }
            })
            .collect();
        for (line, bit) in read_in_child(&file, &bits).iter().zip(&bits) {
            let verdict = match line.rsplit_once(" hash ") {
                Some((_, hash)) if hash == wanted.to_string() => "harmless",
                Some(_) => panic!("a flip of bit {bit} changed the state unnoticed: {line}"),
                None => "detected",
            };
            *results.entry(verdict).or_default() += 1;
        }
    }
    println!("{FLIPS} flips in a file of {} KiB: {results:?}", file.len() / 1024);
    assert!(results.get("detected").is_some_and(|n| *n > FLIPS / 4), "{results:?}");
}
