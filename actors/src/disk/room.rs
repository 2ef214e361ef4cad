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
//! Invariant: what a replica is admitted fits into its store, or the device
//! has room beyond the reserve. Limits: looked at as often as the space is
//! measured; a follower on a fuller disk than its leader's takes what it must.

use std::sync::{Arc, atomic::Ordering};

use cluster::ports::engine::StoreUsage;

use super::DiskState;
use crate::{
    replica::{
        apply::{Held, ReadHalf},
        messages::ReplicaHandle,
    },
    world::Space,
};

/// Pages copied on the way to a value, and the largest value beside: what a
/// store keeps free at least, in bytes.
const KEPT_BYTES_MIN: u64 = 8 << 20;
/// The part of its free pages that a store keeps, so that copying and
/// fragments find room.
const KEPT_PART: u64 = 4;

/// Replicas to be judged, and bytes that wait in the overlays of all.
pub(super) struct Rooms {
    replicas: Vec<Candidate>,
    promised_bytes: u64,
}

impl DiskState {
    /// Shows replicas and people what room there is.
    pub(super) fn show_space(&self, measured: Space) {
        // What waits in overlays needs room in the stores as well.
        let promised = self.arguments.budget.overlay_bytes();
        let space = measured.with_promised(promised as u64);
        self.arguments.budget.set_scarce(space.is_device_scarce());
        self.arguments.space.send_if_modified(|shown| std::mem::replace(shown, space) != space);
    }

    /// Whom to judge at the next measure. Replicas are cramped only while the
    /// device is scarce: the measure that finds it so no longer still judges,
    /// and lets all of them go.
    pub(super) fn rooms(&self) -> Rooms {
        let scarce = self.arguments.space.borrow().is_device_scarce();
        let hosted = scarce.then(|| Arc::clone(&self.arguments.hosted.borrow()));
        let handles = hosted.iter().flat_map(|hosted| hosted.by_shard.values());
        let promised_bytes = self.arguments.budget.overlay_bytes() as u64;
        Rooms { replicas: handles.filter_map(Candidate::of).collect(), promised_bytes }
    }
}

impl Rooms {
    /// Notes who may take puts. Touches the stores: on a worker.
    pub(super) fn judge(&self, space: Space) {
        let scarce = space.with_promised(self.promised_bytes).is_device_scarce();
        for replica in &self.replicas {
            replica.judge(scarce);
        }
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

    fn judge(&self, scarce: bool) {
        let overlay = self.held.overlay.load(Ordering::Relaxed) as u64;
        let cramped = scarce && self.half.store.usage().is_ok_and(|usage| !takes(usage, overlay));
        self.held.cramped.store(cramped, Ordering::Relaxed);
    }
}

/// Whether a store has pages of its own for its overlay and for one put more.
fn takes(usage: StoreUsage, overlay_bytes: u64) -> bool {
    let reusable = usage.file_bytes.saturating_sub(usage.used_bytes);
    let kept = (reusable / KEPT_PART).max(KEPT_BYTES_MIN);
    overlay_bytes.saturating_add(kept) <= reusable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_takes_puts_into_pages_of_its_own_less_a_part() {
        let mib = |count: u64| count << 20;
        let usage = |used, file| StoreUsage { used_bytes: used, file_bytes: file, free_bytes: 0 };
        assert!(!takes(usage(mib(60), mib(60)), 0), "no page is free");
        assert!(!takes(usage(mib(60), mib(67)), 0), "too few for one large value");
        assert!(takes(usage(mib(20), mib(60)), mib(30)));
        assert!(!takes(usage(mib(20), mib(60)), mib(31)), "a quarter stays free");
    }
}
