//! The world a node's actors live in: its identity and its ports.
//!
//! One [`World`] is made at the edge (by `node` with devices, by `simulation`
//! with fakes) and handed to every actor by value; it is cheap to clone. It is
//! the only way an actor reaches time, chance, disk or network.

mod space;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
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

pub use space::{Measured, Space, SpaceGauge};

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
