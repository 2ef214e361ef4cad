//! Room on a node's disk: what is measured, and what it means.
//!
//! Idea: room is what the device still gives and the free pages inside the
//! stores; a reserve of it is for deletes, compaction and copying only, so that
//! a full disk can always be emptied. Simulated machines measure with the same
//! arithmetic as real ones. Invariant: room never exceeds what the node offers
//! less what it uses. Source: design §5.

use std::fmt;

use cluster::units::ByteSize;

/// Room kept for deletes, compaction and copying, where the disk is large
/// enough: design §5.
const RESERVE: ByteSize = ByteSize::gib(1);
/// On smaller disks the reserve is this part of what is offered.
const RESERVE_PART: u64 = 10;
/// Segments the log must be able to begin, whatever the size of the disk.
const RESERVE_SEGMENTS: u64 = 2;

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

    /// Whether the reserve alone may be left soon: within a second, at the pace
    /// of a fast device that writes one reserve a second.
    pub fn is_device_tight(self) -> bool {
        let twice = self.reserve_bytes.saturating_mul(2);
        self.capacity_bytes > 0 && self.reserve_bytes > 0 && self.device_bytes <= twice
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

/// What a gauge finds on a node's disk.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Bytes the node offers.
    pub offered_bytes: u64,
    /// Bytes that live: log, pages in use, the rest of the directory.
    pub used_bytes: u64,
    /// Bytes free on the device.
    pub device_free_bytes: u64,
    /// Free pages inside the node's stores.
    pub reusable_bytes: u64,
    /// Bytes in use in its largest store.
    pub largest_store_bytes: u64,
    /// Size of a segment of its log.
    pub segment_bytes: u64,
}

impl Measured {
    /// The room that is, and the reserve that stays.
    pub fn space(self) -> Space {
        let wished = RESERVE.bytes().max(self.largest_store_bytes);
        let scaled = wished.min(self.offered_bytes / RESERVE_PART);
        let unused = self.offered_bytes.saturating_sub(self.used_bytes);
        Space {
            used_bytes: self.used_bytes,
            capacity_bytes: self.offered_bytes,
            room_bytes: unused.min(self.device_free_bytes + self.reusable_bytes),
            device_bytes: unused.saturating_sub(self.reusable_bytes).min(self.device_free_bytes),
            reserve_bytes: scaled.max(RESERVE_SEGMENTS * self.segment_bytes),
        }
    }
}

/// Measures room on the disk.
pub trait SpaceGauge: Send + Sync + fmt::Debug {
    /// The room now; quick, but may touch the file system.
    fn measure(&self) -> Space;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn measured(offered: u64, used: u64, reachable: u64) -> Space {
        Measured {
            offered_bytes: offered,
            used_bytes: used,
            device_free_bytes: reachable,
            reusable_bytes: 0,
            largest_store_bytes: 0,
            segment_bytes: 64 * MIB,
        }
        .space()
    }

    #[test]
    fn an_empty_node_on_a_disk_of_others_uses_only_its_own_bytes() {
        let space = measured(250 << 30, 200 * MIB, 40 << 30);
        assert_eq!(space.used_bytes, 200 * MIB);
        assert_eq!(space.room_bytes, 40 << 30);
        assert_eq!((space.percent_used(), space.is_full()), (0, false));
    }

    #[test]
    fn a_node_is_full_when_others_have_filled_its_disk() {
        let space = measured(250 << 30, 200 * MIB, 500 * MIB);
        assert!(space.is_full(), "less than the reserve is left: {space:?}");
        let small = measured(512 * MIB, 200 * MIB, 0);
        assert_eq!((small.percent_used(), small.is_full()), (100, true));
    }

    #[test]
    fn the_reserve_is_a_gibibyte_or_the_largest_store_and_less_on_small_disks() {
        assert_eq!(measured(1 << 40, 0, 1 << 40).reserve_bytes, 1 << 30);
        assert_eq!(measured(4 << 30, 0, 4 << 30).reserve_bytes, (4 << 30) / 10);
        let large = Measured {
            offered_bytes: 1 << 40,
            used_bytes: 0,
            device_free_bytes: 1 << 40,
            reusable_bytes: 0,
            largest_store_bytes: 16 << 30,
            segment_bytes: 64 * MIB,
        };
        assert_eq!(large.space().reserve_bytes, 16 << 30);
    }
}
