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

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use cluster::{
    ids::{ClusterId, NodeId},
    log::{LogOptions, LogStamp, Recovery, SegmentedLog},
    memory::{MemoryEngine, MemoryFiles},
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

    /// Waits for an operation that takes `latency`.
    pub(crate) async fn wait(&self, latency: Duration) {
        tokio::time::sleep(latency).await;
        while self.0.1.load(Ordering::Relaxed) {
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

/// Whether the disk has room for more than what is on it.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<AtomicBool>);

impl Room {
    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What of a machine survives a crash. Clones share the disk.
#[derive(Clone, Debug, Default)]
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
    /// Its bytes were damaged or are old: what of it stops is no finding.
    unsound: Arc<AtomicBool>,
    /// Log and stores are another node's.
    foreign: bool,
    /// Faults of the device that were known at the last start.
    struck_before: u64,
}

impl Storage {
    /// Takes all room, or gives it back: no file can be made, no store grows,
    /// and the machine's gauge says so.
    pub fn fill(&self, full: bool) {
        let bytes_max = full.then_some(0);
        self.log.limit(bytes_max);
        self.engine.set_bytes_max(bytes_max);
        self.room.0.store(full, Ordering::Relaxed);
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

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether a fault of the device explains that a log was fenced.
    pub(crate) fn excuses_fence(&self) -> bool {
        self.struck() > self.struck_before || self.is_unsound()
    }

    /// Whether something known explains that a node does not start on it.
    pub(crate) fn excuses_start(&self) -> bool {
        self.excuses_fence() || self.foreign || self.room.is_full()
    }

    /// A copy of it as it is now, on a disk of its own.
    pub(crate) fn image(&self) -> Self {
        Self {
            log: self.log.fork(),
            state: self.state.fork(),
            engine: self.engine.fork(),
            ..Self::default()
        }
    }

    /// Swaps log and stores with another machine's; each is then foreign, or
    /// at home again.
    pub(crate) fn swap(&mut self, other: &mut Self, foreign: bool) {
        std::mem::swap(&mut self.log, &mut other.log);
        std::mem::swap(&mut self.engine, &mut other.engine);
        std::mem::swap(&mut self.unsound, &mut other.unsound);
        (self.foreign, other.foreign) = (foreign, foreign);
        self.note_start();
        other.note_start();
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
        self.fill(self.room.is_full());
    }

    /// Opens the log for a new boot.
    pub(crate) fn open_log(
        &self,
        stamp: (ClusterId, NodeId),
        rng: Rng,
        trace: &Trace,
        life: Option<Life>,
    ) -> Result<(SimulatedLog, Recovery), String> {
        let stamp = LogStamp { cluster: stamp.0, node: stamp.1, disk: 1 };
        let options = LogOptions { segment_bytes: SEGMENT_BYTES };
        let files = Arc::new(self.log.clone());
        let (log, recovery) = SegmentedLog::open(files, stamp, options)
            .map_err(|error| format!("the log does not open: {error}"))?;
        if recovery.torn.is_some() {
            trace.count("torn tail");
        }
        let paces = (self.syncs.clone(), self.pace.clone());
        Ok((SimulatedLog::new(log, paces, rng, trace.clone(), life), recovery))
    }
}
