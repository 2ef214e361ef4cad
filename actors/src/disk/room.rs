//! Room of single stores: who may still take puts on a device that is used up.
//!
//! Idea: LMDB gives no page back to the device. Once the files have grown over
//! it, a node's room is the free pages inside its stores, and no store can use
//! another's. A put that is admitted because *some* store has room could never
//! be flushed, nor what comes after it: an overlay goes to its store in order,
//! and the deletes that would make room wait behind the put. So while the device
//! itself has only its reserve left, each replica is judged by the pages of its
//! own store.
//!
//! A store has a limit of its own as well, whatever the device has
//! ([`crate::replica::limit`]): whoever grew or is near it is looked at too.
//!
//! Invariant: what a replica is admitted fits into its store, or the device
//! has room beyond the reserve. Limits: looked at as often as the space is
//! measured; a follower on a fuller disk than its leader's takes what it must.

use std::sync::{Arc, atomic::Ordering};

use cluster::ports::engine::StoreUsage;

use super::{DiskState, flush};
use crate::{
    budget::NodeBudget,
    replica::{
        apply::{Held, ReadHalf},
        messages::ReplicaHandle,
    },
    world::{Space, SpaceGauge},
};

/// Pages copied on the way to a value, and the largest value beside: what a
/// store keeps free at least, in bytes.
const KEPT_BYTES_MIN: u64 = 8 << 20;
/// Room of a store that cannot be asked: enough, for it is not known to be full.
const UNKNOWN_ROOM: u64 = 1 << 62;
/// The part of its free pages that a store keeps, so that copying and
/// fragments find room.
const KEPT_PART: u64 = 4;

/// Replicas to be judged.
pub(super) struct Rooms {
    replicas: Vec<Candidate>,
    budget: Arc<NodeBudget>,
}

impl DiskState {
    /// Shows replicas and people what room there is.
    pub(super) fn show_space(&self, look: Look) {
        self.arguments.budget.set_space(look.space, look.grown_bytes);
        let hosted = self.arguments.hosted.borrow();
        let mut fullest = 0;
        for handle in hosted.by_shard.values() {
            fullest = fullest.max(handle.limit().percent_used());
            // What waits is counted for more than it may take.
            if handle.limit().is_near() && handle.overlay_bytes() > 0 {
                flush(handle, false);
            }
        }
        metrics::gauge!(crate::metrics::STORE_FULLEST).set(f64::from(fullest) / 100.0);
        let shown = &self.arguments.space;
        shown.send_if_modified(|shown| std::mem::replace(shown, look.space) != look.space);
    }

    /// Whom to judge at the next measure: while the device has plenty only those that
    /// may have come nearer to the limits of their stores. The first measure that finds
    /// so again still judges, and lets all go.
    pub(super) fn rooms(&self) -> Rooms {
        let tight = self.arguments.space.borrow().is_device_tight();
        let hosted = Arc::clone(&self.arguments.hosted.borrow());
        let due = |handle: &&ReplicaHandle| {
            let grown = handle.held.grown.load(Ordering::Relaxed);
            tight || handle.held.limit.is_due(grown)
        };
        let replicas = hosted.by_shard.values().filter(due).filter_map(Candidate::of).collect();
        Rooms { replicas, budget: Arc::clone(&self.arguments.budget) }
    }
}

/// Space as it was found, less what waits in overlays for room in the stores.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    space: Space,
    /// By how much overlays had grown when it began.
    grown_bytes: u64,
}

impl Rooms {
    /// Measures, and notes who may take puts. Touches the stores: on a worker.
    pub(super) fn look(&self, gauge: &dyn SpaceGauge) -> Look {
        // Read first: what is flushed meanwhile counts twice, never not at all.
        let grown_bytes = self.budget.grown_bytes();
        let waiting_bytes = self.budget.overlay_bytes() as u64;
        let space = gauge.measure().with_promised(waiting_bytes);
        for replica in &self.replicas {
            replica.judge(space.is_device_tight());
        }
        Look { space, grown_bytes }
    }
}

/// One replica's store and what waits for it.
struct Candidate {
    held: Arc<Held>,
    half: Arc<ReadHalf>,
}

impl Candidate {
    /// Nothing for a replica that is not open yet: it takes no puts either.
    fn of(handle: &ReplicaHandle) -> Option<Self> {
        let half = handle.published.borrow().half.clone()?;
        Some(Self { held: Arc::clone(&handle.held), half })
    }

    fn judge(&self, tight: bool) {
        let grown = self.held.grown.load(Ordering::Relaxed);
        let overlay = self.held.overlay.load(Ordering::Relaxed) as u64;
        let usage = self.half.store.usage();
        if let Ok(usage) = usage {
            self.held.limit.look(usage, overlay, grown);
        }
        let room = usage.map_or(UNKNOWN_ROOM, |usage| room(usage, overlay));
        let until = if tight { grown.saturating_add(room) } else { u64::MAX };
        self.held.grows_until.store(until, Ordering::Relaxed);
    }
}

/// What a store can take into pages of its own beside its overlay.
fn room(usage: StoreUsage, overlay_bytes: u64) -> u64 {
    let reusable = usage.file_bytes.saturating_sub(usage.used_bytes);
    let kept = (reusable / KEPT_PART).max(KEPT_BYTES_MIN);
    reusable.saturating_sub(kept).saturating_sub(overlay_bytes)
}

#[cfg(test)]
mod tests {
    use cluster::ports::engine::UNLIMITED;

    use super::*;

    #[test]
    fn a_store_takes_puts_into_pages_of_its_own_less_a_part() {
        let mib = |count: u64| count << 20;
        let usage =
            |used, file| StoreUsage { used_bytes: used, file_bytes: file, limit_bytes: UNLIMITED };
        assert_eq!(room(usage(mib(60), mib(60)), 0), 0, "no page is free");
        assert_eq!(room(usage(mib(60), mib(67)), 0), 0, "too few for one large value");
        assert_eq!(room(usage(mib(20), mib(60)), mib(20)), mib(10), "a quarter stays free");
        assert_eq!(room(usage(mib(20), mib(60)), mib(31)), 0);
    }
}
