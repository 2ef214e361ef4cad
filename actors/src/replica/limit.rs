//! A store's limit: how much of it is left for puts.
//!
//! LMDB's map has an end, and a store that meets it takes nothing more: no
//! delete, and no compaction, for an overlay goes to its store in order. So a
//! limit is met early. What it keeps ([`kept_bytes`]) is for what makes room.
//!
//! Idea: whoever looks at the store (`StoreLimit::look`) says how far the
//! overlay may grow until somebody looks again; a leader compares before it
//! proposes a put. Invariant: what was admitted fits below the limit, whatever
//! of it still waits in the overlay. Limits: pages that an old view keeps from
//! being used again count as free; a follower with a smaller limit than its
//! leader's takes what it must.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use cluster::{
    limits::VALUE_BYTES_MAX,
    ports::engine::{StoreUsage, UNLIMITED, kept_bytes},
};

/// Bytes in the store for one in the overlay, at most: pages are half full after
/// they were split, and half of a page that a value begins may stay empty.
const EXPANSION: u64 = 2;
/// The part of its free pages that may be too scattered for a large value.
const SCATTERED_PART: u64 = 4;
/// How near the limit overlays go to the store in small steps, and history is
/// let go of sooner: what comes within a second or two on a fast device.
const NEAR_BYTES: u64 = 256 << 20;
/// On smaller stores the same is this part of the limit.
const NEAR_PART: u64 = 8;

/// What a store's limit leaves, as it was found last.
#[derive(Debug)]
pub struct StoreLimit {
    /// The limit; zero before anybody looked.
    bytes: AtomicU64,
    /// What the overlay had grown by, all added up, when somebody looked.
    looked_at: AtomicU64,
    /// What it may grow to before the limit is met.
    grows_until: AtomicU64,
    percent_used: AtomicU8,
    near: AtomicBool,
}

impl Default for StoreLimit {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            grows_until: AtomicU64::new(u64::MAX),
            percent_used: AtomicU8::new(0),
            near: AtomicBool::new(false),
        }
    }
}

impl StoreLimit {
    /// Notes how full the store was, with an overlay of `overlay_bytes` for it that
    /// had grown by `grown` bytes in all.
    pub(crate) fn look(&self, usage: StoreUsage, overlay_bytes: u64, grown: u64) {
        let limit = usage.limit_bytes;
        let (room, until) = if limit == UNLIMITED {
            (u64::MAX, u64::MAX)
        } else {
            let room = room(usage, overlay_bytes);
            (room, grown.saturating_add(room))
        };
        let percent = u128::from(usage.used_bytes) * 100 / u128::from(limit.max(1));
        self.bytes.store(limit, Relaxed);
        self.looked_at.store(grown, Relaxed);
        self.grows_until.store(until, Relaxed);
        self.percent_used.store(u8::try_from(percent).unwrap_or(u8::MAX), Relaxed);
        self.near.store(room < NEAR_BYTES.min(limit / NEAR_PART), Relaxed);
    }

    /// Whether to look again: a store that is not near its limit comes there only
    /// by growing, one that is leaves it also by what is swept.
    pub(crate) fn is_due(&self, grown: u64) -> bool {
        self.is_near() || self.looked_at.load(Relaxed) != grown
    }

    /// Bytes that may still come, of which `grown` are counted already.
    pub(super) fn room(&self, grown: u64) -> u64 {
        self.grows_until.load(Relaxed).saturating_sub(grown)
    }

    /// Whether puts are refused: there was no room for a largest value.
    pub fn is_full(&self) -> bool {
        self.room(self.looked_at.load(Relaxed)) < VALUE_BYTES_MAX as u64
    }

    /// Whether the limit may be met before anybody looks again.
    pub(crate) fn is_near(&self) -> bool {
        self.near.load(Relaxed)
    }

    /// How much of the limit is used, in percent: more than a hundred if it was lowered.
    pub fn percent_used(&self) -> u8 {
        self.percent_used.load(Relaxed)
    }

    /// The limit in bytes; zero before anybody looked.
    pub fn limit_bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// Bytes that the overlay may grow by beside what it has.
fn room(usage: StoreUsage, overlay_bytes: u64) -> u64 {
    let reusable = usage.file_bytes.saturating_sub(usage.used_bytes);
    let taken = usage.used_bytes + reusable / SCATTERED_PART + kept_bytes(usage.limit_bytes);
    let free = usage.limit_bytes.saturating_sub(taken);
    (free / EXPANSION).saturating_sub(overlay_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn usage(used_bytes: u64, file_bytes: u64, limit_bytes: u64) -> StoreUsage {
        StoreUsage { used_bytes, file_bytes, limit_bytes }
    }

    #[test]
    fn puts_end_at_nine_tenths_less_what_waits_and_may_be_scattered() {
        let room = |used, file, overlay| room(usage(used, file, 100 * GIB), overlay);
        assert_eq!(room(80 * GIB, 80 * GIB, 0), 5 * GIB, "what comes may take twice its bytes");
        assert_eq!(room(80 * GIB, 80 * GIB, GIB), 4 * GIB);
        assert_eq!(room(90 * GIB, 90 * GIB, 0), 0);
        assert_eq!(
            room(80 * GIB, 100 * GIB, 0),
            5 * GIB / 2,
            "a quarter of free pages is scattered"
        );
        assert_eq!(room(120 * GIB, 120 * GIB, 0), 0, "the limit was lowered");
    }

    #[test]
    fn a_small_store_keeps_room_for_the_largest_delete() {
        let room = |used| room(usage(used, used, 256 * MIB), 0);
        assert_eq!(room(184 * MIB), 0);
        assert_eq!(room(164 * MIB), 10 * MIB);
    }

    #[test]
    fn a_store_is_looked_at_when_it_grew_or_is_near_its_limit() {
        let limit = StoreLimit::default();
        assert_eq!((limit.room(7), limit.limit_bytes()), (u64::MAX - 7, 0));
        limit.look(usage(GIB, GIB, 64 * GIB), 0, 5);
        assert!(!limit.is_due(5) && limit.is_due(6) && !limit.is_near() && !limit.is_full());
        limit.look(usage(58 * GIB, 58 * GIB, 64 * GIB), 0, 5);
        assert!(limit.is_due(5) && limit.is_near() && limit.is_full());
        assert_eq!((limit.room(5), limit.percent_used()), (0, 90));
        limit.look(usage(GIB, 58 * GIB, UNLIMITED), 0, 9);
        assert_eq!((limit.room(9), limit.is_near()), (u64::MAX - 9, false));
    }
}
