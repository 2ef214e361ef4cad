//! The world a node's actors live in: its identity and its ports.
//!
//! One [`World`] is made at the edge (by `node` with devices, by `simulation`
//! with fakes) and handed to every actor by value; it is cheap to clone. It is
//! the only way an actor reaches time, chance, disk or network.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::{
    ids::{ClusterId, NodeId},
    limits::CLOCK_AHEAD_MS_MAX,
    membership::Boot,
    mvcc::version::{ClockAhead, Hlc},
    ports::{
        clock::Clock, engine::Engine, entropy::Entropy, files::Files, log::LogStore,
        network::Network, workers::Workers,
    },
    units::WallTime,
};

use crate::{failpoint::FailPoint, probe::Probe};

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id, born with its data directory.
    pub node: NodeId,
    /// This start of it.
    pub boot: Boot,
}

/// Room on the disk, as last measured by its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes this node's data takes.
    pub used_bytes: u64,
    /// Bytes the node offers; zero when they are not known.
    pub capacity_bytes: u64,
    /// Bytes the node can still take: what it offers and does not use, but not
    /// more than others have left of the device.
    pub room_bytes: u64,
    /// Bytes of those that any file could take: the rest are free pages inside
    /// stores, and of use to their own store only.
    pub device_bytes: u64,
    /// Bytes of that kept for deletes, compaction and copying.
    pub reserve_bytes: u64,
}

/// How full a disk may be before puts are refused, in percent. Deletes go on.
const FULL_PERCENT: u8 = 95;

/// How full a disk may be before old versions are kept for a short time only,
/// in percent.
const TIGHT_PERCENT: u8 = 90;

impl Space {
    /// A device nobody else uses, without reserve.
    pub fn of(used_bytes: u64, capacity_bytes: u64) -> Self {
        let room_bytes = capacity_bytes.saturating_sub(used_bytes);
        let device_bytes = room_bytes;
        Self { used_bytes, capacity_bytes, room_bytes, device_bytes, reserve_bytes: 0 }
    }

    /// How full, in percent of what the node has or can have; an unknown
    /// capacity counts as empty.
    pub fn percent_used(self) -> u8 {
        if self.capacity_bytes == 0 {
            return 0;
        }
        let reachable = self.used_bytes.saturating_add(self.room_bytes);
        // A device without a byte is full.
        let percent = self.used_bytes.saturating_mul(100).checked_div(reachable).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }

    /// Whether only what makes room may still be written.
    pub fn is_full(self) -> bool {
        let reserved = self.room_bytes <= self.reserve_bytes && self.reserve_bytes > 0;
        self.capacity_bytes > 0 && (reserved || self.percent_used() >= FULL_PERCENT)
    }

    /// Whether history is worth less than the room it takes: before puts are
    /// refused, so that they are refused for what lives only.
    pub fn is_tight(self) -> bool {
        let half_again = self.reserve_bytes.saturating_add(self.reserve_bytes / 2);
        let reserved = self.room_bytes <= half_again && self.reserve_bytes > 0;
        self.capacity_bytes > 0 && (reserved || self.percent_used() >= TIGHT_PERCENT)
    }

    /// Whether new files and pages have the reserve only, whatever can be used
    /// again inside of stores.
    pub fn is_device_scarce(self) -> bool {
        self.capacity_bytes > 0 && self.reserve_bytes > 0 && self.device_bytes <= self.reserve_bytes
    }

    /// How much of what the node offers no new file can have, in percent.
    pub fn device_percent_used(self) -> u8 {
        let taken = self.capacity_bytes.saturating_sub(self.device_bytes);
        let percent = taken.saturating_mul(100).checked_div(self.capacity_bytes).unwrap_or(0);
        u8::try_from(percent).unwrap_or(100)
    }

    /// The same with `bytes` that are promised to it but not yet on it.
    #[must_use]
    pub fn with_promised(self, bytes: u64) -> Self {
        Self {
            used_bytes: self.used_bytes.saturating_add(bytes),
            room_bytes: self.room_bytes.saturating_sub(bytes),
            device_bytes: self.device_bytes.saturating_sub(bytes),
            ..self
        }
    }
}

/// Measures room on the disk.
pub trait SpaceGauge: Send + Sync + fmt::Debug {
    /// The room now; quick, but may touch the file system.
    fn measure(&self) -> Space;
}

/// A node's hybrid clock, shared by all its shards without a lock: it only
/// ever rises, so a compare-and-swap loop is all it takes.
#[derive(Debug, Default)]
pub struct NodeClock(AtomicU64);

impl NodeClock {
    /// A point later than all before on this node.
    pub fn tick(&self, wall: WallTime) -> Hlc {
        let mut next = Hlc::at(wall);
        let update = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
            next = Hlc::at(wall).max(Hlc(last).next());
            Some(next.0)
        });
        debug_assert!(update.is_ok(), "the update never declines");
        next
    }

    /// Takes note of a point seen elsewhere.
    ///
    /// # Errors
    /// If it lies too far ahead of `wall` to be believed.
    pub fn observe(&self, seen: Hlc, wall: WallTime) -> Result<(), ClockAhead> {
        let ahead_ms = seen.wall().0.saturating_sub(wall.0);
        if ahead_ms > CLOCK_AHEAD_MS_MAX {
            return Err(ClockAhead { ahead_ms, ahead_ms_max: CLOCK_AHEAD_MS_MAX });
        }
        self.0.fetch_max(seen.0, Ordering::AcqRel);
        Ok(())
    }

    /// The highest point shown or seen.
    pub fn last(&self) -> Hlc {
        Hlc(self.0.load(Ordering::Acquire))
    }
}

/// Everything a node's actors may touch.
#[derive(Clone, Debug)]
pub struct World {
    /// Who this node is.
    pub identity: NodeIdentity,
    /// Its two clocks.
    pub clock: Arc<dyn Clock>,
    /// Its hybrid clock.
    pub hybrid: Arc<NodeClock>,
    /// Its source of chance.
    pub entropy: Arc<dyn Entropy>,
    /// Its way to others.
    pub network: Arc<dyn Network>,
    /// Its log.
    pub log: Arc<dyn LogStore>,
    /// Its stores.
    pub engine: Arc<dyn Engine>,
    /// Threads that may block.
    pub workers: Arc<dyn Workers>,
    /// Small state files (the last known catalog).
    pub state_files: Arc<dyn Files>,
    /// Room on the disk.
    pub space: Arc<dyn SpaceGauge>,
    /// Who watches: checkers in simulation, metrics in a node.
    pub probe: Arc<dyn Probe>,
}

impl World {
    /// Says that a named place was reached.
    pub fn reach(&self, point: FailPoint) {
        self.probe.reach(point);
    }

    /// A new point of hybrid time.
    pub fn tick_hybrid(&self) -> Hlc {
        self.hybrid.tick(self.clock.wall())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_hybrid_clock_never_falls() {
        let clock = NodeClock::default();
        let first = clock.tick(WallTime(5_000));
        assert!(clock.tick(WallTime(1)) > first);
        assert!(clock.observe(Hlc::at(WallTime(5_501)), WallTime(5_000)).is_err());
        assert!(clock.observe(Hlc::at(WallTime(5_400)), WallTime(5_000)).is_ok());
        assert!(clock.tick(WallTime(5_000)) > Hlc::at(WallTime(5_400)));
    }

    #[test]
    fn a_disk_of_unknown_size_counts_as_empty() {
        assert_eq!(Space::default().percent_used(), 0);
        assert!(!Space::default().is_full());
        assert_eq!(Space::of(95, 100).percent_used(), 95);
        assert!(Space::of(95, 100).is_full() && !Space::of(94, 100).is_full());
        assert!(Space::of(90, 100).is_tight() && !Space::of(89, 100).is_tight());
        let reserved = |room_bytes| Space { room_bytes, reserve_bytes: 20, ..Space::of(10, 100) };
        assert!(reserved(30).is_tight() && !reserved(31).is_tight() && !reserved(30).is_full());
    }
}
