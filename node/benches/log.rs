//! The log writer against the disk it runs on.
//!
//! 64 shards append records of 256 bytes, each shard one at a time. The floor
//! is the same file system in the same minute: a loop that writes a batch of
//! the same size into a preallocated file and calls fdatasync, times the
//! records per batch. It is measured before and after; when the two differ by
//! more than a fifth the run says so, because the machine was not quiet.
//!
//! Run: `cargo bench -p clusterdb --bench log [-- SECONDS]`. The directory is
//! made under `CDB_BENCH_DIR`, else the build's scratch directory.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

use cluster::{
    ids::{ClusterId, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term, VolumeId},
    log::{LogOptions, LogStamp, SegmentedLog},
    ports::{
        files::Files,
        log::{LogRecord, LogStore},
    },
    raft::types::{Entry, HardState, Payload},
};
use clusterdb::devices::{
    files::DirectoryFiles,
    log::{LogStats, LogWriter, LogWriterOptions},
};

const SHARDS: u64 = 64;
const VALUE_BYTES: usize = 256;
const FLOOR_FILE_BYTES: u64 = 64 << 20;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(3);
    let run = Duration::from_secs(seconds);
    let root =
        std::env::var_os("CDB_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let directory = tempfile::tempdir_in(root)?;
    let (stats, _) = load(&directory.path().join("warm"), run / 3)?;
    let batch_bytes = usize::try_from(stats.bytes / stats.batches.max(1))?;
    let before = floor(&directory.path().join("before"), batch_bytes, run)?;
    let (stats, appends) = load(&directory.path().join("log"), run)?;
    let after = floor(&directory.path().join("after"), batch_bytes, run)?;
    print(&stats, appends, batch_bytes, before, after);
    Ok(())
}

fn print(stats: &LogStats, appends: f64, batch_bytes: usize, before: f64, after: f64) {
    let batch = stats.records as f64 / stats.batches.max(1) as f64;
    let limit = f64::midpoint(before, after) * batch;
    println!("floor, fdatasync of {batch_bytes} B   {before:.0}/s before, {after:.0}/s after");
    println!("log, {SHARDS} shards x {VALUE_BYTES} B      {appends:.0} appends/s");
    println!(
        "batches                    {} of {batch:.1} records, one fdatasync each",
        stats.batches
    );
    println!(
        "write and sync             p50 < {:?}, p99 < {:?}, max {:?}",
        stats.sync_time_quantile(0.5),
        stats.sync_time_quantile(0.99),
        stats.sync_time_max
    );
    println!("share of floor x batch     {:.0} % (goal 60 %)", 100.0 * appends / limit);
    if (before - after).abs() > 0.2 * before.max(after) {
        println!("the floor moved by more than a fifth: not a quiet machine, do not compare");
    }
}

/// Batches per second of a bare loop of write and fdatasync.
fn floor(path: &Path, batch_bytes: usize, run: Duration) -> Result<f64, Fault> {
    let files = DirectoryFiles::open(path)?;
    let file = files.create("floor", FLOOR_FILE_BYTES)?;
    let batch = vec![7; batch_bytes];
    let (begun, mut count, mut offset) = (Instant::now(), 0_u64, 0);
    while begun.elapsed() < run {
        file.write_at(offset, &batch)?;
        file.sync()?;
        count += 1;
        offset += batch_bytes as u64;
        if offset + batch_bytes as u64 > FLOOR_FILE_BYTES {
            offset = 0;
        }
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Runs the load; its counters, and records per second while it ran. Ends with
/// a restart that must find what was acknowledged.
fn load(path: &Path, run: Duration) -> Result<(LogStats, f64), Fault> {
    let files: Arc<dyn Files> = Arc::new(DirectoryFiles::open(path)?);
    let stamp = LogStamp { cluster: ClusterId(1), node: NodeId(2), disk: 0 };
    let (log, _) = SegmentedLog::open(Arc::clone(&files), stamp, LogOptions::default())?;
    let writer = Arc::new(LogWriter::start(log, LogWriterOptions::default(), |_| ())?);
    let shared = Arc::new(Load {
        writer: Arc::clone(&writer),
        stopping: AtomicBool::new(false),
        acked: AtomicU64::new(0),
    });
    let (ended, ends) = channel();
    let begun = Instant::now();
    for shard in 1..=SHARDS {
        shared.append(shard, 0, ended.clone());
    }
    std::thread::sleep(run);
    shared.stopping.store(true, Relaxed);
    for _ in 0..SHARDS {
        ends.recv()?;
    }
    let stats = writer.stats();
    let appends = stats.records as f64 / begun.elapsed().as_secs_f64();
    writer.stop();
    let (log, recovery) = SegmentedLog::open(files, stamp, LogOptions::default())?;
    let held: u64 =
        recovery.replicas.iter().map(|found| found.base_index.0 + found.entries.len() as u64).sum();
    if held != shared.acked.load(Relaxed) {
        return Err(
            format!("{held} entries found, {} acknowledged", shared.acked.load(Relaxed)).into()
        );
    }
    drop(log);
    Ok((stats, appends))
}

struct Load {
    writer: Arc<LogWriter>,
    stopping: AtomicBool,
    acked: AtomicU64,
}

impl Load {
    /// Appends entry `index` of a shard and, when it is durable, the next one.
    /// Every thousandth record is a trim, as a flush would send it.
    fn append(self: &Arc<Self>, shard: u64, index: u64, ended: Sender<()>) {
        let load = Arc::clone(self);
        let record = record(shard, index);
        let done = Box::new(move |outcome: Result<(), _>| {
            if outcome.is_err() || load.stopping.load(Relaxed) {
                load.acked.fetch_add(if outcome.is_ok() { index } else { index - 1 }, Relaxed);
                ended.send(()).unwrap_or(());
                return;
            }
            if index > 0 && index.is_multiple_of(1000) {
                let record = LogRecord::Trimmed { index: LogIndex(index - 1), term: Term(1) };
                load.writer.append(ReplicaId(shard), record, Box::new(|_| ()));
            }
            load.append(shard, index + 1, ended);
        });
        self.writer.append(ReplicaId(shard), record, done);
    }
}

fn record(shard: u64, index: u64) -> LogRecord {
    if index == 0 {
        return LogRecord::Created {
            shard: ShardId(shard),
            volume: VolumeId(1),
            store: StoreId(shard),
            index: LogIndex(0),
            term: Term(0),
        };
    }
    let hard_state =
        HardState { term: Term(1), vote: ReplicaId(shard), commit: LogIndex(index - 1) };
    let payload = Payload::Command(vec![7; VALUE_BYTES]);
    let entries = vec![Entry { index: LogIndex(index), term: Term(1), payload }];
    LogRecord::Ready { hard_state: Some(hard_state), entries }
}
