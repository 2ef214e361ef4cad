//! Whether a boot still lives: shared by its ports, which are dead with it.
//!
//! A process dies between two instructions, a runtime only between two ticks.
//! So a death inside a tick (a fail point, a fenced log) makes every port of
//! the boot dead at once: from that instant nothing of it reaches disk or
//! network, and the world drops the runtime at the tick's end.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use actors::{failpoint::FailPoint, root::OldImage};

use crate::{
    disk::{Death, Storage},
    network::{Address, Fabric},
    quic::Wire,
    rng::Rng,
    trace::Trace,
};

/// How a boot ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It died where it was told to.
    FailPoint(FailPoint, Death),
    /// Its log's device failed.
    Fenced(String),
    /// The cluster refused it: it was removed.
    Refused(String),
    /// It found that its disk is an old image, noted that, and is to start again.
    OldImage(OldImage),
    /// It did not start.
    NotStarted(String),
    /// Anything else, which is a finding.
    Itself(String),
}

/// A place at which a machine is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trap {
    /// The machine's number; 0 for whichever comes there first.
    pub(crate) machine: u32,
    /// The place.
    pub(crate) point: FailPoint,
    /// How it dies.
    pub(crate) death: Death,
}

/// The traps of a world. The mask lets a place without one cost a load.
///
/// A lock, though there is one thread: probes are `Sync` by contract.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traps(Arc<(AtomicU64, Mutex<Vec<Trap>>)>);

impl Traps {
    /// Lays a trap.
    pub(crate) fn lay(&self, trap: Trap) {
        self.with(|traps| traps.push(trap));
    }

    /// Takes a trap away that nobody met.
    pub(crate) fn lift(&self, trap: Trap) {
        self.with(|traps| traps.retain(|laid| *laid != trap));
    }

    /// The trap a machine meets at a place; it springs once.
    fn spring(&self, machine: u32, point: FailPoint) -> Option<Trap> {
        if self.0.0.load(Ordering::Relaxed) & bit(point) == 0 {
            return None;
        }
        self.with(|traps| {
            let meets = |trap: &Trap| [0, machine].contains(&trap.machine) && trap.point == point;
            let index = traps.iter().position(meets)?;
            Some(traps.remove(index))
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Trap>) -> T) -> T {
        let mut traps = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = work(&mut traps);
        let mask = traps.iter().fold(0, |mask, trap| mask | bit(trap.point));
        self.0.0.store(mask, Ordering::Relaxed);
        outcome
    }
}

/// A place as a bit of a mask: there are fewer than 64.
const fn bit(point: FailPoint) -> u64 {
    1 << point as u64
}

const _: () = assert!(FailPoint::ALL.len() <= 64, "a mask has 64 bits");

/// One boot's life.
///
/// Locks, though there is one thread: the ports are `Sync` by contract.
#[derive(Clone, Debug)]
pub struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: u32,
    address: Address,
    dead: AtomicBool,
    /// Places reached, as a mask.
    reached: AtomicU64,
    ending: Mutex<Option<Ending>>,
    rng: Mutex<Rng>,
    storage: Storage,
    fabric: Fabric,
    /// In quinn mode.
    wire: Option<Wire>,
    traps: Traps,
    trace: Trace,
}

impl Life {
    pub(crate) fn new(
        (machine, address): (u32, Address),
        storage: Storage,
        (fabric, wire): (Fabric, Option<Wire>),
        (traps, trace): (Traps, Trace),
        rng: Rng,
    ) -> Self {
        Self(Arc::new(Inner {
            machine,
            address,
            dead: AtomicBool::new(false),
            reached: AtomicU64::new(0),
            ending: Mutex::default(),
            rng: Mutex::new(rng),
            storage,
            fabric,
            wire,
            traps,
            trace,
        }))
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Whether something known is wrong with its disk: a replica lost on it is
    /// no finding.
    pub fn is_damaged(&self) -> bool {
        self.0.storage.excuses_loss()
    }

    /// A replica was lost by it, and stays so over restarts.
    pub(crate) fn note_loss(&self) {
        self.0.storage.note_loss();
    }

    /// Whether this boot came by a place.
    pub fn has_reached(&self, point: FailPoint) -> bool {
        self.0.reached.load(Ordering::Relaxed) & bit(point) != 0
    }

    /// A place was reached: the boot may end here.
    pub fn reach(&self, point: FailPoint) {
        if self.is_over() {
            return;
        }
        if self.0.reached.fetch_or(bit(point), Ordering::Relaxed) & bit(point) == 0 {
            self.0.trace.count(format!("reached {point}"));
        }
        if let Some(trap) = self.0.traps.spring(self.0.machine, point) {
            self.end(Ending::FailPoint(point, trap.death), trap.death);
        }
    }

    /// Ends the boot at this instant. The first ending counts.
    pub fn end(&self, ending: Ending, death: Death) {
        if self.0.dead.swap(true, Ordering::Relaxed) {
            return;
        }
        *self.0.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        self.die(death);
    }

    /// How it ended by itself, if it did.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.0.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The world ends the boot; does nothing more if it is over already.
    pub(crate) fn kill(&self, death: Death) {
        if !self.0.dead.swap(true, Ordering::Relaxed) {
            self.die(death);
        }
    }

    fn die(&self, death: Death) {
        self.0.fabric.fall(self.0.address);
        if let Some(wire) = &self.0.wire {
            wire.fall(self.0.address);
        }
        let mut rng = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.storage.die(death, &mut rng);
    }
}
