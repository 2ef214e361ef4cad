//! Power cuts under the LMDB engine.
//!
//! `kill -9` proves nothing about syncs, because the page cache survives it. So
//! this binary stands between LMDB and the kernel: it records every write and
//! sync of one store's file, builds the images a cut could leave at any point
//! (writes after the last sync kept, dropped or torn, each by a coin), and
//! opens each in a child process. Whatever is cut, the store must open, hold at
//! least the last commit that had returned, and be the state of one commit.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_stack_arrays,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::{
    ids::{ClusterId, NodeId, StoreId},
    mvcc::{
        record::{Head, Record, RecordKind},
        version::{Version, VersionKind},
    },
    ports::engine::{Engine, Tree, Write},
};
use clusterdb::devices::lmdb::{LmdbConfig, LmdbEngine};

/// What happened to the file, in order.
#[derive(Clone, Debug)]
enum Event {
    Write { at: u64, bytes: Vec<u8>, synced: bool },
    Sync,
    Returned(u64),
}

static INODE: AtomicU64 = AtomicU64::new(0);
static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

fn note(event: Event) {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner).push(event);
}

/// The libc functions through which LMDB writes and syncs.
#[expect(unsafe_code, reason = "standing between LMDB and the kernel needs the libc symbols")]
mod hooks {
    use super::{Event, INODE, Ordering, note};

    fn watched(fd: i32) -> bool {
        let inode = INODE.load(Ordering::Relaxed);
        if inode == 0 {
            return false;
        }
        // SAFETY: `stat` is plain data, and fstat only writes into it.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            libc::fstat(fd, &raw mut stat) == 0 && stat.st_ino == inode
        }
    }

    fn write_through(fd: i32) -> bool {
        // SAFETY: F_GETFL takes no pointer.
        unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_DSYNC != 0 }
    }

    fn note_parts(fd: i32, parts: *const libc::iovec, count: i32, at: i64) {
        let mut all = Vec::new();
        // SAFETY: the caller of writev owns `count` parts of readable bytes.
        unsafe {
            for part in std::slice::from_raw_parts(parts, usize::try_from(count).unwrap_or(0)) {
                let bytes = part.iov_base.cast::<u8>();
                all.extend_from_slice(std::slice::from_raw_parts(bytes, part.iov_len));
            }
        }
        let at = u64::try_from(at).unwrap_or_default();
        note(Event::Write { at, bytes: all, synced: write_through(fd) });
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn pwrite(fd: i32, bytes: *const u8, count: usize, at: i64) -> isize {
        if watched(fd) {
            // SAFETY: the caller of pwrite owns `count` readable bytes.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, count) }.to_vec();
            let at = u64::try_from(at).unwrap_or_default();
            note(Event::Write { at, bytes, synced: write_through(fd) });
        }
        // SAFETY: the arguments are handed on as they came.
        unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, at) as isize }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn pwritev(fd: i32, parts: *const libc::iovec, n: i32, at: i64) -> isize {
        if watched(fd) {
            note_parts(fd, parts, n, at);
        }
        // SAFETY: the arguments are handed on as they came, the offset in two halves.
        unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, n, at, 0_i64) as isize }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn writev(fd: i32, parts: *const libc::iovec, n: i32) -> isize {
        if watched(fd) {
            // SAFETY: lseek takes no pointer.
            note_parts(fd, parts, n, unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) });
        }
        // SAFETY: the arguments are handed on as they came.
        unsafe { libc::syscall(libc::SYS_writev, fd, parts, n) as isize }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn fdatasync(fd: i32) -> i32 {
        if watched(fd) {
            note(Event::Sync);
            return 0;
        }
        // SAFETY: the argument is handed on as it came.
        i32::try_from(unsafe { libc::syscall(libc::SYS_fdatasync, fd) }).unwrap_or(-1)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn fsync(fd: i32) -> i32 {
        if watched(fd) {
            note(Event::Sync);
            return 0;
        }
        // SAFETY: the argument is handed on as it came.
        i32::try_from(unsafe { libc::syscall(libc::SYS_fsync, fd) }).unwrap_or(-1)
    }
}

const STORE: StoreId = StoreId(1);
const COMMITS: u64 = 150;
const CUTS: usize = 300;
const KEYS: u64 = 400;
const IMAGES: &str = "CDB_CUT_IMAGES";

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn engine(root: &Path) -> LmdbEngine {
    let config = LmdbConfig { cluster: ClusterId(1), node: NodeId(2), map_bytes: 64 << 20 };
    LmdbEngine::new(root.join("stores"), root.join("quarantine"), config).unwrap()
}

fn record(key: &[u8], commit: u64, value: &[u8]) -> Vec<u8> {
    let head = Head {
        kind: RecordKind::Value,
        versions: VersionKind::Dense,
        created: Version(commit),
        modified: Version(commit),
        sub: 0,
        changes: 1,
        lease: cluster::ids::LeaseId(0),
        other: commit,
    };
    Record { head, value }.write(key)
}

/// The batch of one commit: drawn from its number alone, so that a checker
/// knows what the state after it must be.
fn batch(commit: u64) -> Vec<Write> {
    let mut chance = Chance(commit * 7_919);
    let mut writes: Vec<Write> = (0..=chance.below(8))
        .map(|_| {
            let key = chance.below(KEYS).to_be_bytes().to_vec();
            let deletes = chance.below(5) == 0;
            let length = if chance.below(30) == 0 { 9_000 } else { 40 + chance.below(300) };
            let value = vec![commit.to_le_bytes()[0]; usize::try_from(length).unwrap()];
            let value = (!deletes).then(|| record(&key, commit, &value));
            Write { tree: Tree::Latest, key, value }
        })
        .collect();
    let number = Some(commit.to_be_bytes().to_vec());
    writes.push(Write { tree: Tree::Root, key: b"commit".to_vec(), value: number });
    writes
}

/// Opens an image: the commit it stands at, if its state is that commit's.
fn verify(root: &Path) -> Result<u64, String> {
    let store = engine(root).open(STORE).map_err(|error| error.to_string())?;
    let view = store.view().map_err(|error| error.to_string())?;
    let number = view.get(Tree::Root, b"commit").map_err(|error| error.to_string())?;
    let commit = number.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_be_bytes));
    let commit = commit.map_err(|_| "the commit number is none".to_owned())?;
    let mut state = BTreeMap::new();
    for write in (1..=commit).flat_map(batch).filter(|write| write.tree == Tree::Latest) {
        match write.value {
            Some(value) => drop(state.insert(write.key, value)),
            None => drop(state.remove(&write.key)),
        }
    }
    for key in (0..KEYS).map(|n| n.to_be_bytes().to_vec()) {
        let found = view.get(Tree::Latest, &key).map_err(|error| error.to_string())?;
        if found != state.get(&key).map(Vec::as_slice) {
            return Err(format!("key {key:?} is not that of commit {commit}"));
        }
    }
    Ok(commit)
}

/// The child's part: one line per image.
#[test]
fn child_reads_cut_images() {
    let Some(folder) = std::env::var_os(IMAGES) else { return };
    for n in 0..CUTS {
        match verify(&Path::new(&folder).join(n.to_string())) {
            Ok(commit) => println!("image {n} commit {commit}"),
            Err(error) => println!("image {n} lost {error}"),
        }
    }
}

/// Runs the commits; what the file was before, and what happened to it.
fn recorded(root: &Path) -> (Vec<u8>, Vec<Event>) {
    let store = engine(root).create(STORE).unwrap();
    let file = root.join("stores/store-1/data.mdb");
    let before = fs::read(&file).unwrap();
    INODE.store(fs::metadata(&file).unwrap().ino(), Ordering::Relaxed);
    for commit in 1..=COMMITS {
        store.commit(&batch(commit)).unwrap();
        note(Event::Returned(commit));
    }
    INODE.store(0, Ordering::Relaxed);
    let events = std::mem::take(&mut *EVENTS.lock().unwrap_or_else(PoisonError::into_inner));
    (before, events)
}

fn overwrite(image: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap();
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The file as a cut after `events` may leave it, and the last commit returned.
fn cut(before: &[u8], events: &[Event], chance: &mut Chance) -> (Vec<u8>, u64) {
    let synced_to = events.iter().rposition(|event| matches!(event, Event::Sync)).unwrap_or(0);
    let (mut image, mut returned) = (before.to_vec(), 0);
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::Sync => {}
            Event::Returned(commit) => returned = *commit,
            Event::Write { at, bytes, synced } => {
                let under_way = place + 1 == events.len();
                if place < synced_to || (*synced && !under_way) {
                    overwrite(&mut image, *at, bytes);
                    continue;
                }
                // Pages of a write may arrive or not; the one under way may tear
                // between sectors.
                let grain = if under_way { 512 } else { 4_096 };
                for (n, part) in bytes.chunks(grain).enumerate() {
                    if chance.below(2) == 0 {
                        overwrite(&mut image, at + (n * grain) as u64, part);
                    }
                }
            }
        }
    }
    (image, returned)
}

#[test]
fn after_any_cut_the_store_opens_and_holds_the_last_commit_that_returned() {
    let root = tempfile::tempdir().unwrap();
    let (before, events) = recorded(root.path());
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    let syncs = count(|event| matches!(event, Event::Sync));
    let writes = count(|event| matches!(event, Event::Write { .. }));
    println!("{COMMITS} commits: {writes} writes, {syncs} syncs");
    assert!(syncs as u64 >= 2 * COMMITS, "data and meta page each need a sync");

    let images = tempfile::tempdir().unwrap();
    let mut chance = Chance(42);
    let mut promised = Vec::new();
    for n in 0..CUTS {
        let at = usize::try_from(1 + chance.below(events.len() as u64)).unwrap();
        let (image, returned) = cut(&before, &events[..at], &mut chance);
        let store = images.path().join(n.to_string()).join("stores/store-1");
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("data.mdb"), image).unwrap();
        promised.push(returned);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_reads_cut_images", "--nocapture"])
        .env(IMAGES, images.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<&str> = text.lines().filter(|line| line.contains("image ")).collect();
    assert_eq!(found.len(), CUTS, "{}", String::from_utf8_lossy(&output.stderr));
    for (n, (line, returned)) in found.iter().zip(&promised).enumerate() {
        let commit = line.rsplit_once(" commit ").and_then(|(_, commit)| commit.parse().ok());
        let commit: u64 = commit.unwrap_or_else(|| panic!("cut {n} broke the store: {line}"));
        assert!(
            commit == *returned || commit == returned + 1,
            "cut {n}: commit {returned} had returned, the store stands at {commit}"
        );
    }
}
