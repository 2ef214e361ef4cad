//! The disk of a machine: what survives a crash, and the `LogStore` of a boot.
//!
//! The log is the product's `SegmentedLog` over files in memory that forget
//! what was not synced. Its writer joins what waits into one write and, a drawn
//! time later, one sync: a crash in between loses or tears the batch. Replicas
//! are told in drawn order, each in its own.

#[cfg(feature = "real")]
pub mod real;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::root::OldImage;
use cluster::{
    ids::{ClusterId, LogIndex, NodeId, ReplicaId},
    log::{LogOptions, LogStamp, Recovery, SegmentedLog},
    memory::{MemoryEngine, MemoryFiles},
    ports::{
        engine::Engine,
        files::Files,
        log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
    },
    raft::types::Entry,
};

use crate::{rng::Rng, trace::Trace};

/// Small segments, so that a run meets their rotation; an append of a megabyte
/// must fit beside the checkpoint.
const SEGMENT_BYTES: usize = 2 << 20;
/// Appends waiting before more are refused, as the product bounds them.
const WAITING_MAX: usize = 1_024;
/// Duration of a sync or read, usually.
const LATENCY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_micros(2_900));
/// One in so many (per million) takes up to [`HICCUP`].
const HICCUP_PPM: u32 = 2_000;
const HICCUP: Duration = Duration::from_millis(60);

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed; what it wrote is still in the page cache.
    Kill,
    /// The power fails; what was not synced is kept, lost or torn by draw.
    Power,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Power => "power",
        })
    }
}

impl FromStr for Death {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kill" => Ok(Self::Kill),
            "power" => Ok(Self::Power),
            other => Err(format!("`{other}` is neither kill nor power")),
        }
    }
}

/// How slow the disk is: its usual latency times this.
#[derive(Clone, Debug)]
pub struct Pace(Arc<AtomicU32>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }
}

impl Pace {
    /// Makes the disk `factor` times as slow as usual.
    pub fn set(&self, factor: u32) {
        self.0.store(factor.max(1), Ordering::Relaxed);
    }

    /// The time one operation takes.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Duration {
        let usual = rng.between(LATENCY.0, LATENCY.1);
        let hiccup = if rng.chance(HICCUP_PPM) {
            rng.between(Duration::ZERO, HICCUP)
        } else {
            Duration::ZERO
        };
        (usual + hiccup) * self.0.load(Ordering::Relaxed)
    }
}

/// Bytes a simulated machine offers.
pub const OFFERED_BYTES: u64 = 1 << 30;

/// Whether the disk has room for more than what is on it.
#[derive(Clone, Debug)]
pub struct Room {
    full: Arc<AtomicBool>,
    offered_bytes: Arc<AtomicU64>,
    engine: MemoryEngine,
}

impl Room {
    fn of(engine: MemoryEngine) -> Self {
        let offered_bytes = Arc::new(AtomicU64::new(OFFERED_BYTES));
        Self { full: Arc::default(), offered_bytes, engine }
    }

    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Bytes its stores take, and bytes it offers them.
    pub fn bytes(&self) -> (u64, u64) {
        (self.engine.bytes(), self.offered_bytes.load(Ordering::Relaxed))
    }
}

/// What of a machine survives a crash.
#[derive(Debug)]
pub struct Storage {
    /// The log's directory.
    pub log: MemoryFiles,
    /// The directory of small state files.
    pub state: MemoryFiles,
    /// The stores.
    pub engine: MemoryEngine,
    /// How slow its log's syncs are.
    pub syncs: Pace,
    /// How slow everything else on it is.
    pub pace: Pace,
    /// Whether anything more fits on it.
    pub room: Room,
    /// The real directory that takes the place of the three in memory.
    #[cfg(feature = "real")]
    pub real: Option<real::RealDisk>,
}

/// What machines keep their data on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StorageMode {
    /// Files and stores in memory.
    #[default]
    Memory,
    /// LMDB and the log's own files in a real directory.
    #[cfg(feature = "real")]
    Real,
}

impl Default for Storage {
    fn default() -> Self {
        let engine = MemoryEngine::default();
        Self {
            log: MemoryFiles::default(),
            state: MemoryFiles::default(),
            room: Room::of(engine.clone()),
            engine,
            syncs: Pace::default(),
            pace: Pace::default(),
            #[cfg(feature = "real")]
            real: None,
        }
    }
}

impl Storage {
    /// An empty disk.
    ///
    /// # Panics
    /// If a real directory is wanted and cannot be made.
    pub(crate) fn new(mode: StorageMode) -> Self {
        match mode {
            StorageMode::Memory => Self::default(),
            #[cfg(feature = "real")]
            #[expect(clippy::expect_used, reason = "a world without its disks cannot go on")]
            StorageMode::Real => {
                let disk = real::RealDisk::new().expect("a temporary directory");
                Self { real: Some(disk), ..Self::default() }
            }
        }
    }

    /// The log's directory.
    #[cfg_attr(
        not(feature = "real"),
        expect(clippy::unnecessary_wraps, reason = "a real directory can fail")
    )]
    fn log_files(&self) -> io::Result<Arc<dyn Files>> {
        #[cfg(feature = "real")]
        if let Some(real) = &self.real {
            return real.log();
        }
        Ok(Arc::new(self.log.clone()))
    }

    /// The directory of small state files, as a boot sees it.
    #[cfg_attr(
        not(feature = "real"),
        expect(clippy::unnecessary_wraps, reason = "a real directory can fail")
    )]
    pub(crate) fn state_files(&self) -> io::Result<Arc<dyn Files>> {
        #[cfg(feature = "real")]
        if let Some(real) = &self.real {
            return real.state();
        }
        Ok(Arc::new(self.state.clone()))
    }

    /// The stores, as a boot of this cluster and node sees them.
    #[cfg_attr(
        not(feature = "real"),
        expect(clippy::unnecessary_wraps, reason = "a real directory can fail")
    )]
    pub(crate) fn stores(&self, stamp: (ClusterId, NodeId)) -> io::Result<Arc<dyn Engine>> {
        #[cfg(feature = "real")]
        if let Some(real) = &self.real {
            return real.engine(stamp);
        }
        // Stores in memory carry no stamp.
        let _ = stamp;
        Ok(Arc::new(self.engine.clone()))
    }

    /// Offers the stores so many bytes from now on: the machine's gauge says
    /// how much of them is used.
    pub fn offer(&self, bytes: u64) {
        self.room.offered_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Takes all room, or gives it back: no file can be made, no store grows,
    /// and the machine's gauge says so.
    pub fn fill(&self, full: bool) {
        let bytes_max = full.then_some(0);
        self.log.limit(bytes_max);
        self.engine.set_bytes_max(bytes_max);
        self.room.full.store(full, Ordering::Relaxed);
        #[cfg(feature = "real")]
        if let Some(real) = &self.real {
            real.fill(full);
        }
    }

    /// Ends the machine: what is gone is drawn.
    pub(crate) fn die(&self, death: Death, rng: &mut Rng) {
        match death {
            Death::Kill => {
                self.log.kill();
                self.state.kill();
            }
            Death::Power => {
                self.log.crash(&mut || rng.next());
                self.state.crash(&mut || rng.next());
            }
        }
        self.engine.crash();
        #[cfg(feature = "real")]
        if let Some(real) = &self.real {
            #[expect(clippy::expect_used, reason = "a cut that is not modelled proves nothing")]
            real.die(death, rng).expect("the directory after a death");
        }
        self.fill(self.room.is_full());
    }

    /// Opens the log for a new boot; one that is `old` is condemned first.
    pub(crate) fn open_log(
        &self,
        stamp: (ClusterId, NodeId),
        old: Option<OldImage>,
        rng: Rng,
        trace: &Trace,
    ) -> Result<(SimulatedLog, Recovery), String> {
        let stamp = LogStamp { cluster: stamp.0, node: stamp.1, disk: 1 };
        let options = LogOptions { segment_bytes: SEGMENT_BYTES };
        let files = self.log_files().map_err(|error| error.to_string())?;
        let (mut log, mut recovery) = SegmentedLog::open(files, stamp, options)
            .map_err(|error| format!("the log does not open: {error}"))?;
        if let Some(old) = old {
            trace.count("log condemned");
            log.condemn(old.born_up_to, &mut recovery)
                .map_err(|error| format!("the log cannot be condemned: {error}"))?;
        }
        if recovery.torn.is_some() {
            trace.count("torn tail");
        }
        let (syncs, pace) = (self.syncs.clone(), self.pace.clone());
        let writer = Writer { log, syncs, pace, waiting: VecDeque::new(), busy: false, rng };
        Ok((SimulatedLog { writer: Arc::new(Mutex::new(writer)), trace: trace.clone() }, recovery))
    }
}

/// The log of one boot.
#[derive(Clone, Debug)]
pub struct SimulatedLog {
    /// A lock, though there is one thread: the port is `Sync` by contract.
    writer: Arc<Mutex<Writer>>,
    trace: Trace,
}

struct Writer {
    log: SegmentedLog,
    syncs: Pace,
    pace: Pace,
    waiting: VecDeque<Append>,
    /// Whether the task that writes is at work.
    busy: bool,
    rng: Rng,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

struct Append {
    replica: ReplicaId,
    record: LogRecord,
    done: Done<Result<(), LogError>>,
}

/// An append whose outcome is known.
type Finished = (Done<Result<(), LogError>>, Result<(), LogError>);

impl SimulatedLog {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches until nothing waits.
    async fn write(self) {
        loop {
            let (batch, latency) = {
                let mut writer = self.lock();
                if writer.waiting.is_empty() {
                    writer.busy = false;
                    return;
                }
                writer.begin()
            };
            tokio::time::sleep(latency).await;
            self.trace.count("group commit");
            let finished = self.lock().finish(batch);
            for (done, outcome) in finished {
                done(outcome);
            }
        }
    }
}

type Batch = Vec<(ReplicaId, Done<Result<(), LogError>>, Result<(), LogError>)>;

impl Writer {
    /// Writes what waits; it is not durable yet.
    fn begin(&mut self) -> (Batch, Duration) {
        let mut batch: Batch = Vec::new();
        for append in std::mem::take(&mut self.waiting) {
            let staged = self.log.stage(append.replica, &append.record);
            batch.push((append.replica, append.done, staged));
        }
        // A failure fences the log, which the sync then reports.
        let _ = self.log.write();
        (batch, self.syncs.draw(&mut self.rng))
    }

    /// Syncs it; the outcomes in the order in which they are to be told.
    fn finish(&mut self, batch: Batch) -> Vec<Finished> {
        let synced = self.log.sync();
        // As the product's writer does after each batch; a failure fences.
        let _ = self.log.reclaim();
        let mut by_replica: BTreeMap<ReplicaId, Vec<Finished>> = BTreeMap::new();
        for (replica, done, staged) in batch {
            let outcome = staged.and_then(|()| synced.clone());
            by_replica.entry(replica).or_default().push((done, outcome));
        }
        let mut groups: Vec<_> = by_replica.into_values().collect();
        self.rng.shuffle(&mut groups);
        groups.into_iter().flatten().collect()
    }
}

impl LogStore for SimulatedLog {
    fn append(&self, replica: ReplicaId, record: LogRecord, done: Done<Result<(), LogError>>) {
        let mut writer = self.lock();
        if writer.waiting.len() >= WAITING_MAX {
            drop(writer);
            done(Err(LogError::Busy));
            return;
        }
        writer.waiting.push_back(Append { replica, record, done });
        if !std::mem::replace(&mut writer.busy, true) {
            drop(writer);
            tokio::spawn(self.clone().write());
        }
    }

    fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        done: Done<Result<Vec<Entry>, LogError>>,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let latency = {
                let mut writer = this.lock();
                let Writer { pace, rng, .. } = &mut *writer;
                pace.draw(rng)
            };
            tokio::time::sleep(latency).await;
            let entries = this.lock().log.read(replica, from, to, bytes_max);
            done(entries);
        });
    }

    fn recover(&self, replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>>) {
        let this = self.clone();
        tokio::spawn(async move {
            let latency = {
                let mut writer = this.lock();
                let Writer { pace, rng, .. } = &mut *writer;
                pace.draw(rng)
            };
            tokio::time::sleep(latency).await;
            let recovered = this.lock().log.recover(replica);
            done(recovered);
        });
    }

    fn pins(&self, done: Done<LogPins>) {
        let writer = self.lock();
        let pins = LogPins {
            usage: writer.log.usage(),
            oldest_segment_replicas: writer.log.oldest_segment_replicas(),
        };
        drop(writer);
        done(pins);
    }
}

#[cfg(test)]
mod tests;
