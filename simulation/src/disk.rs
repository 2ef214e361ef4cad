//! The disk of a machine: what survives a crash, and the `LogStore` of a boot.
//!
//! The log is the product's `SegmentedLog` over files in memory that forget
//! what was not synced. Stores commit as a whole at the end of their drawn
//! time: a commit that a crash meets before is lost, one after it is durable.

mod guard;
mod log;
mod rot;
#[cfg(test)]
mod tests;

#[cfg(feature = "real")]
pub mod real;

use std::{
    fmt, io,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::{catalog, root::OldImage, world::Measured};
use cluster::{
    ids::{ClusterId, NodeId},
    log::{LogOptions, LogStamp, Recovery, SegmentedLog},
    membership::Boot,
    memory::{MemoryEngine, MemoryFiles},
    ports::{engine::Engine, files::Files},
};

pub(crate) use self::guard::Guarded;
pub use self::log::SimulatedLog;
use crate::{life::Life, rng::Rng, trace::Trace};

/// Small segments, so that a run meets their rotation; an append of a megabyte
/// must fit beside the checkpoint.
const SEGMENT_BYTES: usize = 2 << 20;
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

/// How slow the disk is: its usual latency times a factor; or it stalls.
#[derive(Clone, Debug)]
pub struct Pace(Arc<(AtomicU32, AtomicBool)>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new((AtomicU32::new(1), AtomicBool::new(false))))
    }
}

/// How often what a stall holds up looks whether it is over.
const STALL_LOOK: Duration = Duration::from_millis(5);

impl Pace {
    /// Makes the disk `factor` times as slow as usual.
    pub fn set(&self, factor: u32) {
        self.0.0.store(factor.max(1), Ordering::Relaxed);
    }

    /// Lets nothing come to its end, or again.
    pub fn stall(&self, on: bool) {
        self.0.1.store(on, Ordering::Relaxed);
    }

    /// Whether nothing comes to its end.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }

    /// Waits for an operation that takes `latency`.
    pub(crate) async fn wait(&self, latency: Duration) {
        tokio::time::sleep(latency).await;
        while self.is_stalled() {
            tokio::time::sleep(STALL_LOOK).await;
        }
    }

    /// The time one operation takes.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Duration {
        let usual = rng.between(LATENCY.0, LATENCY.1);
        let hiccup = if rng.chance(HICCUP_PPM) {
            rng.between(Duration::ZERO, HICCUP)
        } else {
            Duration::ZERO
        };
        (usual + hiccup) * self.0.0.load(Ordering::Relaxed)
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

    /// What the machine's gauge finds. The log lies on a device of its own.
    pub fn measured(&self) -> Measured {
        let offered_bytes = self.offered_bytes.load(Ordering::Relaxed);
        let (used_bytes, file_bytes) = (self.engine.bytes(), self.engine.file_bytes());
        let whole = !self.is_full();
        let left = |bytes: u64| if whole { bytes } else { 0 };
        Measured {
            offered_bytes,
            used_bytes,
            device_free_bytes: left(offered_bytes.saturating_sub(file_bytes)),
            reusable_bytes: left(file_bytes - used_bytes),
            largest_store_bytes: self.engine.largest_bytes(),
            segment_bytes: SEGMENT_BYTES as u64,
        }
    }
}

/// What of a machine survives a crash. Clones share the disk.
#[derive(Clone, Debug)]
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
    /// Its bytes were damaged or are old: what is lost on it is no finding.
    unsound: Arc<AtomicBool>,
    /// A replica on it was lost by a known fault.
    lossy: Arc<AtomicBool>,
    /// Log and stores are another node's.
    foreign: bool,
    /// Faults of the device that were known before the last start.
    struck_before: u64,
    /// The real directory that takes the place of the three in memory.
    #[cfg(feature = "real")]
    pub real: Option<Arc<real::RealDisk>>,
}

/// What machines keep their data on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        Self::of(MemoryFiles::default(), MemoryFiles::default(), MemoryEngine::default())
    }
}

impl fmt::Display for StorageMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            #[cfg(feature = "real")]
            Self::Real => "real",
        })
    }
}

impl FromStr for StorageMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            #[cfg(feature = "real")]
            "real" => Ok(Self::Real),
            #[cfg(not(feature = "real"))]
            "real" => Err("this build has no real disks; build with `--features real`".to_owned()),
            other => Err(format!("`{other}` is neither memory nor real")),
        }
    }
}

impl Storage {
    fn of(log: MemoryFiles, state: MemoryFiles, engine: MemoryEngine) -> Self {
        Self {
            log,
            state,
            room: Room::of(engine.clone()),
            engine,
            syncs: Pace::default(),
            pace: Pace::default(),
            unsound: Arc::default(),
            lossy: Arc::default(),
            foreign: false,
            struck_before: 0,
            #[cfg(feature = "real")]
            real: None,
        }
    }

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
                Self { real: Some(Arc::new(disk)), ..Self::default() }
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

    /// Gives the stores a device of so many bytes from now on: files cannot
    /// grow over it, and the machine's gauge says how much of it is left.
    pub fn offer(&self, bytes: u64) {
        self.room.offered_bytes.store(bytes, Ordering::Relaxed);
        self.fill(self.room.is_full());
    }

    /// Takes all room, or gives it back: no file can be made, no store grows,
    /// and the machine's gauge says so.
    pub fn fill(&self, full: bool) {
        let bytes_max = full.then_some(0);
        self.log.limit(bytes_max);
        self.engine.set_bytes_max(bytes_max);
        self.engine.set_device_bytes(Some(self.room.offered_bytes.load(Ordering::Relaxed)));
        self.room.full.store(full, Ordering::Relaxed);
        #[cfg(feature = "real")]
        if let Some(real) = &self.real {
            real.fill(full);
        }
    }

    /// Lets reads of log and state files fail, or succeed again.
    pub fn fail_reads(&self, on: bool) {
        self.log.fail_reads(on);
        self.state.fail_reads(on);
    }

    /// Lets writes of log and state files fail, or succeed again.
    pub fn fail_writes(&self, on: bool) {
        self.log.fail_writes(on);
        self.state.fail_writes(on);
    }

    fn struck(&self) -> u64 {
        self.log.struck() + self.state.struck()
    }

    /// A boot has begun on it.
    pub(crate) fn note_start(&mut self) {
        self.struck_before = self.struck();
    }

    pub(crate) fn is_unsound(&self) -> bool {
        self.unsound.load(Ordering::Relaxed)
    }

    pub(crate) fn make_unsound(&self) {
        self.unsound.store(true, Ordering::Relaxed);
    }

    /// Whether a log in memory was begun on it: without one it says nobody's name.
    pub(crate) fn has_log(&self) -> bool {
        self.is_in_memory() && self.log.list().is_ok_and(|names| !names.is_empty())
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether a fault of the device explains that a log was fenced.
    pub(crate) fn excuses_fence(&self) -> bool {
        self.struck() > self.struck_before || self.is_unsound()
    }

    /// Whether something known explains that a replica on it is lost.
    pub(crate) fn excuses_loss(&self) -> bool {
        self.excuses_fence() || self.lossy.load(Ordering::Relaxed)
    }

    pub(crate) fn note_loss(&self) {
        self.lossy.store(true, Ordering::Relaxed);
    }

    /// Whether something known explains that a node does not start on it.
    pub(crate) fn excuses_start(&self) -> bool {
        self.excuses_fence() || self.foreign || self.room.is_full()
    }

    /// Whether its copy of the catalog knows of a node's start, also after the
    /// hardest power cut. False of a real disk.
    pub(crate) fn knows_start(&self, node: NodeId, boot: Boot) -> bool {
        let state = self.state.fork();
        state.crash(&mut || 1);
        let view = catalog::load(&state).unwrap_or_default();
        let seen = view.node(node).map(|record| record.boot.incarnation);
        self.is_in_memory() && seen >= Some(boot.incarnation)
    }

    /// A copy of it as it is now, on a disk of its own; none of a real one.
    pub(crate) fn image(&self) -> Option<Self> {
        let copy = || Self::of(self.log.fork(), self.state.fork(), self.engine.fork());
        self.is_in_memory().then(copy)
    }

    /// Whether its bytes are the world's to change.
    #[cfg_attr(
        not(feature = "real"),
        expect(clippy::unused_self, reason = "without real disks all are in memory")
    )]
    pub(crate) fn is_in_memory(&self) -> bool {
        #[cfg(feature = "real")]
        return self.real.is_none();
        #[cfg(not(feature = "real"))]
        return true;
    }

    /// Swaps log and stores with another machine's; each is then foreign, or
    /// at home again.
    pub(crate) fn swap(&mut self, other: &mut Self, foreign: bool) {
        std::mem::swap(&mut self.log, &mut other.log);
        std::mem::swap(&mut self.engine, &mut other.engine);
        std::mem::swap(&mut self.room.engine, &mut other.room.engine);
        std::mem::swap(&mut self.unsound, &mut other.unsound);
        std::mem::swap(&mut self.lossy, &mut other.lossy);
        (self.foreign, other.foreign) = (foreign, foreign);
        // Device and room stay with the machine, and the device is well again:
        // the end of its trouble would meet the wrong one.
        for disk in [&*self, &*other] {
            disk.fail_reads(false);
            disk.fail_writes(false);
            disk.fill(disk.room.is_full());
        }
        self.note_start();
        other.note_start();
    }

    /// Loses log and stores; the small files that say who it is stay.
    pub(crate) fn empty(&mut self) {
        self.log = MemoryFiles::default();
        self.engine = MemoryEngine::default();
        self.room.engine = self.engine.clone();
        self.fill(self.room.is_full());
        self.make_unsound();
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

    /// Opens the log for a new boot, on a disk that has been `begun` or not; one
    /// that is `old` is condemned first.
    pub(crate) fn open_log(
        &self,
        stamp: (ClusterId, NodeId),
        (begun, old): (bool, Option<OldImage>),
        rng: Rng,
        trace: &Trace,
        life: Option<Life>,
    ) -> Result<(SimulatedLog, Recovery), String> {
        let stamp = LogStamp { cluster: stamp.0, node: stamp.1, disk: 1 };
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, begun };
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
        let paces = (self.syncs.clone(), self.pace.clone());
        Ok((SimulatedLog::new(log, paces, rng, trace.clone(), life), recovery))
    }
}
