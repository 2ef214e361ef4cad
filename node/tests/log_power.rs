//! Power cuts under the real log on the real disk.
//!
//! This binary puts itself between the log and libc: every write, sync,
//! rename and removal in the watched directory is recorded, in order, next to
//! the acknowledgements the log gave. From the record, crash images are built
//! (what was not synced is kept, lost or torn by seeded draws) and opened: each
//! acknowledged write must be there, and nothing that was never written.
//!
//! `kill -9` cannot show this, because the page cache survives it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![expect(clippy::cast_possible_truncation, reason = "system calls answer a long")]
#![expect(unsafe_code, reason = "hooks of libc must have its signatures and call the kernel")]

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use cluster::{
    ids::{ClusterId, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term, VolumeId},
    log::{LogOptions, LogStamp, SegmentedLog},
    memory::MemoryFiles,
    ports::{
        files::{File, Files},
        log::{LogRecord, LogStore},
    },
    raft::types::{Entry, Payload},
};
use clusterdb::devices::{
    files::DirectoryFiles,
    log::{LogWriter, LogWriterOptions},
};

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Write {
        file: String,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// `data_only` for fdatasync.
    Sync {
        file: String,
        data_only: bool,
    },
    SyncDirectory,
    Rename {
        from: String,
        to: String,
    },
    Remove {
        file: String,
    },
    Acked {
        replica: u64,
        index: u64,
    },
}

struct Recorder {
    directory: Option<PathBuf>,
    events: Vec<Event>,
}

static RECORDER: Mutex<Recorder> = Mutex::new(Recorder { directory: None, events: Vec::new() });
/// One recording at a time.
static TURN: Mutex<()> = Mutex::new(());

fn recorder() -> MutexGuard<'static, Recorder> {
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of a watched path: empty for the directory itself.
fn watched(path: &Path) -> Option<String> {
    let recorder = recorder();
    let inside = path.strip_prefix(recorder.directory.as_ref()?).ok()?;
    Some(inside.to_str()?.to_owned())
}

fn watched_fd(fd: c_int) -> Option<String> {
    watched(&std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?)
}

fn record(event: Event) {
    recorder().events.push(event);
}

fn record_write(fd: c_int, bytes: *const c_void, count: usize, offset: i64, written: isize) {
    if let (Some(file), Ok(written), Ok(offset)) =
        (watched_fd(fd), usize::try_from(written), u64::try_from(offset))
    {
        // SAFETY: the caller of pwrite vouches for `count` bytes, and no more were written.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written.min(count)) };
        record(Event::Write { file, offset, bytes: bytes.to_vec() });
    }
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: usize, at: i64) -> isize {
    // SAFETY: the arguments are passed on as they came.
    let written = unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, at) } as isize;
    record_write(fd, bytes, count, at, written);
    written
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, count: usize, at: i64) -> isize {
    // SAFETY: the arguments are passed on as they came.
    unsafe { pwrite64(fd, bytes, count, at) }
}

fn sync(fd: c_int, call: i64, data_only: bool) -> c_int {
    // SAFETY: a sync takes a descriptor and nothing else.
    let outcome = unsafe { libc::syscall(call, fd) };
    if outcome == 0
        && let Some(file) = watched_fd(fd)
    {
        let directory = file.is_empty();
        record(if directory { Event::SyncDirectory } else { Event::Sync { file, data_only } });
    }
    c_int::try_from(outcome).unwrap_or(-1)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync, true)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync, false)
}

/// These would change files behind the record's back: the log does not use
/// them, and a release that begins to must teach the recorder.
fn unexpected(fd: c_int, call: &str) {
    assert!(watched_fd(fd).is_none_or(|file| file.is_empty()), "{call} is not recorded");
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, bytes: i64) -> c_int {
    unexpected(fd, "ftruncate");
    // SAFETY: plain numbers.
    c_int::try_from(unsafe { libc::syscall(libc::SYS_ftruncate, fd, bytes) }).unwrap_or(-1)
}

/// # Safety
/// As `pwritev(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(
    fd: c_int,
    parts: *const libc::iovec,
    count: c_int,
    at: i64,
) -> isize {
    unexpected(fd, "pwritev");
    // SAFETY: the arguments are passed on as they came.
    unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, count, at, 0) as isize }
}

/// # Safety
/// As `write(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    // SAFETY: the arguments are passed on as they came.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) } as isize;
    if fd > 2 {
        unexpected(fd, "write");
    }
    written
}

fn name_of(path: *const c_char) -> Option<String> {
    // SAFETY: the caller of rename or unlink vouches for a terminated string.
    watched(Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?))
}

/// # Safety
/// As `rename(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let at = libc::AT_FDCWD;
    // SAFETY: the arguments are passed on as they came.
    let outcome = unsafe { libc::syscall(libc::SYS_renameat2, at, from, at, to, 0) };
    if outcome == 0
        && let (Some(from), Some(to)) = (name_of(from), name_of(to))
    {
        record(Event::Rename { from, to });
    }
    c_int::try_from(outcome).unwrap_or(-1)
}

/// # Safety
/// As `unlink(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the arguments are passed on as they came.
    let outcome = unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) };
    if outcome == 0
        && let Some(file) = name_of(path)
    {
        record(Event::Remove { file });
    }
    c_int::try_from(outcome).unwrap_or(-1)
}

const STAMP: LogStamp = LogStamp { cluster: ClusterId(1), node: NodeId(2), disk: 0 };
const REPLICAS: u64 = 8;
const WAIT: Duration = Duration::from_mins(1);

struct Load {
    writer: LogWriter,
    _directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Load {
    fn begin(segment_bytes: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        *recorder() = Recorder { directory: Some(path.clone()), events: Vec::new() };
        let files: Arc<dyn Files> = Arc::new(DirectoryFiles::open(&path).unwrap());
        let options = LogOptions { segment_bytes, begun: false };
        let (log, _) = SegmentedLog::open(files, STAMP, options).unwrap();
        let options = LogWriterOptions::default();
        let writer = LogWriter::start(log, options, |cause| panic!("fenced: {cause}")).unwrap();
        let load = Self { writer, _directory: directory, _turn: turn };
        let born = (1..=REPLICAS).map(|replica| load.append(replica, 0, created()));
        for done in born.collect::<Vec<_>>() {
            done.recv_timeout(WAIT).unwrap();
        }
        load
    }

    /// Appends; the acknowledgement is recorded before anyone hears of it.
    fn append(&self, replica: u64, index: u64, what: LogRecord) -> Receiver<()> {
        let (to, from) = channel();
        let done = Box::new(move |outcome: Result<(), _>| {
            outcome.unwrap();
            record(Event::Acked { replica, index });
            to.send(()).unwrap_or(());
        });
        self.writer.append(ReplicaId(replica), what, done);
        from
    }

    /// One entry per replica, waited for together.
    fn round(&self, index: u64) {
        let waits: Vec<_> =
            (1..=REPLICAS).map(|replica| self.append(replica, index, ready(index))).collect();
        for done in waits {
            done.recv_timeout(WAIT).unwrap();
        }
    }

    /// Waits until the log has prepared its free files and is idle.
    fn settle(&self) {
        loop {
            let (to, from) = channel();
            self.writer.pins(Box::new(move |pins| to.send(pins).unwrap_or(())));
            if from.recv_timeout(WAIT).unwrap().usage.free_files >= 2 {
                return;
            }
        }
    }

    fn end(self) -> Vec<Event> {
        self.writer.stop();
        let mut recorder = recorder();
        recorder.directory = None;
        std::mem::take(&mut recorder.events)
    }
}

fn created() -> LogRecord {
    LogRecord::Created {
        shard: ShardId(1),
        volume: VolumeId(1),
        store: StoreId(1),
        index: LogIndex(0),
        term: Term(0),
    }
}

fn entry(index: u64) -> Entry {
    let bytes = vec![index.to_le_bytes()[0]; 100 + usize::try_from(index * 37 % 400).unwrap()];
    Entry { index: LogIndex(index), term: Term(1), payload: Payload::Command(bytes) }
}

fn ready(index: u64) -> LogRecord {
    LogRecord::Ready { hard_state: None, entries: vec![entry(index)] }
}

/// What of the record a disk would hold, and what the log had promised.
#[derive(Default)]
struct Image {
    files: MemoryFiles,
    handles: BTreeMap<String, Box<dyn File>>,
    acked: BTreeMap<u64, u64>,
}

impl Image {
    fn play(&mut self, event: &Event) {
        match event {
            Event::Write { file, offset, bytes } => {
                if !self.handles.contains_key(file) {
                    let handle = self.files.create(file, 0).unwrap();
                    self.handles.insert(file.clone(), handle);
                }
                self.handles[file].write_at(*offset, bytes).unwrap();
            }
            Event::Sync { file, .. } => self.handles[file].sync().unwrap(),
            Event::SyncDirectory => self.files.sync_directory().unwrap(),
            Event::Rename { from, to } => {
                self.files.rename(from, to).unwrap();
                let handle = self.handles.remove(from).unwrap();
                self.handles.insert(to.clone(), handle);
            }
            Event::Remove { file } => {
                self.files.remove(file).unwrap();
                self.handles.remove(file);
            }
            Event::Acked { replica, index } => {
                self.acked.insert(*replica, *index);
            }
        }
    }

    /// Cuts the power here and says what the log lost or invented.
    fn cut(&self, chance: &mut u64, segment_bytes: usize) -> Result<(), String> {
        let files = self.files.fork();
        files.crash(&mut || draw(chance));
        let options = LogOptions { segment_bytes, begun: false };
        let opened = SegmentedLog::open(Arc::new(files), STAMP, options);
        let (_, recovery) = opened.map_err(|error| error.to_string())?;
        if !recovery.damage.is_empty() {
            return Err(format!("taken for damage: {:?}", recovery.damage));
        }
        for (replica, acked) in &self.acked {
            let found = recovery.replicas.iter().find(|found| found.replica.0 == *replica);
            let found = found.ok_or_else(|| format!("r{replica} is gone"))?;
            let last = found.base_index.0 + found.entries.len() as u64;
            if last < *acked {
                return Err(format!("r{replica} ends at {last}, acknowledged were {acked}"));
            }
            if found.entries.iter().any(|got| *got != entry(got.index.0)) {
                return Err(format!("r{replica} holds entries nobody wrote"));
            }
        }
        Ok(())
    }
}

fn draw(chance: &mut u64) -> u64 {
    *chance = chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*chance ^ (*chance >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Cuts after every event of a record, several times each.
fn cut_everywhere(events: &[Event], segment_bytes: usize) -> Result<usize, String> {
    let (mut image, mut chance, mut cuts) = (Image::default(), 7, 0);
    for (number, event) in events.iter().enumerate() {
        image.play(event);
        for _ in 0..3 {
            image
                .cut(&mut chance, segment_bytes)
                .map_err(|broken| format!("cut behind event {number}: {broken}"))?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

const SMALL: usize = 16 << 10;

/// A load that begins many segments and lets go of old ones.
fn recorded_load() -> Vec<Event> {
    let load = Load::begin(SMALL);
    for index in 1..=40 {
        load.round(index);
        if index % 8 == 0 {
            for replica in 1..REPLICAS {
                let trimmed = LogRecord::Trimmed { index: LogIndex(index - 2), term: Term(1) };
                load.append(replica, index, trimmed).recv_timeout(WAIT).unwrap();
            }
        }
    }
    load.end()
}

#[test]
fn every_acknowledged_write_is_there_after_any_power_cut() {
    let events = recorded_load();
    let began = |event: &&Event| matches!(event, Event::Rename { .. });
    assert!(events.iter().filter(began).count() > 5, "the load began too few segments");
    let cuts = cut_everywhere(&events, SMALL).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(cuts > 500, "{cuts} cuts");
}

#[test]
fn the_judge_barks_when_syncs_are_missing() {
    let mut events = recorded_load();
    events.retain(|event| !matches!(event, Event::Sync { data_only: true, .. }));
    assert!(cut_everywhere(&events, SMALL).is_err());
}

#[test]
fn the_judge_barks_when_the_directory_is_not_synced() {
    let mut events = recorded_load();
    events.retain(|event| *event != Event::SyncDirectory);
    assert!(cut_everywhere(&events, SMALL).is_err());
}

#[test]
fn an_acknowledged_batch_costs_one_write_and_one_fdatasync() {
    let load = Load::begin(1 << 20);
    load.settle();
    let (first, before) = (recorder().events.len(), load.writer.stats());
    for index in 1..=50 {
        load.round(index);
    }
    let (last, after) = (recorder().events.len(), load.writer.stats());
    let events = load.end();
    let window = &events[first..last];
    let count = |wanted: fn(&Event) -> bool| window.iter().filter(|event| wanted(event)).count();
    let batches = usize::try_from(after.batches - before.batches).unwrap();
    assert!((50..=400).contains(&batches));
    assert_eq!(count(|event| matches!(event, Event::Write { .. })), batches);
    assert_eq!(count(|event| matches!(event, Event::Sync { data_only: true, .. })), batches);
    assert_eq!(count(|event| matches!(event, Event::Sync { data_only: false, .. })), 0);
    assert_eq!(count(|event| matches!(event, Event::SyncDirectory)), 0);
    assert_eq!(count(|event| matches!(event, Event::Acked { .. })), 400);
    println!("{batches} batches, {batches} fdatasync, 400 acknowledged appends");
}
