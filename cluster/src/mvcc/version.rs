//! The version of a record, and the hybrid logical clock behind it.
//!
//! A version is one `u64`, strictly rising per shard. Where a volume may split
//! it is a hybrid logical clock: 48 bits of milliseconds, 16 of counter; apply
//! takes `max(proposed, last + 1)`. In volumes of kind *single* it is a dense
//! counter that only key-changing transactions move.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::units::WallTime;

/// Version of a record within its shard. Zero is "before everything".
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord))]
pub struct Version(pub u64);

/// A point of hybrid logical time: 48 bits of wall milliseconds, 16 of counter.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord))]
pub struct Hlc(pub u64);

/// Which clock names the versions of a shard. Fixed at its birth.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum VersionKind {
    /// A counter without gaps that only key-changing commands move: volumes of
    /// kind *single*, which never split.
    Dense,
    /// The hybrid clock: every volume that may split.
    Hybrid,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Hlc {
    /// The first point of a millisecond.
    pub const fn at(time: WallTime) -> Self {
        Self(time.0 << 16)
    }

    /// Its wall milliseconds.
    pub const fn wall(self) -> WallTime {
        WallTime(self.0 >> 16)
    }

    /// The next point.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A node's hybrid clock: never behind what it has shown or seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

/// A clock from outside that runs too far ahead of ours to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a peer's clock is {ahead_ms} ms ahead of this node's (at most {ahead_ms_max} ms is accepted): check NTP"
)]
pub struct ClockAhead {
    /// How far.
    pub ahead_ms: u64,
    /// The limit.
    pub ahead_ms_max: u64,
}

impl HybridClock {
    /// A point later than all before.
    pub fn tick(&mut self, wall: WallTime) -> Hlc {
        self.last = Hlc::at(wall).max(self.last.next());
        self.last
    }

    /// Takes note of a point seen elsewhere.
    ///
    /// # Errors
    /// If it lies more than [`crate::limits::CLOCK_AHEAD_MS_MAX`] ahead of `wall`.
    pub fn observe(&mut self, seen: Hlc, wall: WallTime) -> Result<(), ClockAhead> {
        let ahead_ms = seen.wall().0.saturating_sub(wall.0);
        if ahead_ms > crate::limits::CLOCK_AHEAD_MS_MAX {
            return Err(ClockAhead { ahead_ms, ahead_ms_max: crate::limits::CLOCK_AHEAD_MS_MAX });
        }
        self.last = self.last.max(seen);
        Ok(())
    }

    /// The highest point shown or seen.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_rise_even_when_the_wall_clock_falls_back() {
        let mut clock = HybridClock::default();
        let first = clock.tick(WallTime(1_000));
        let second = clock.tick(WallTime(400));
        assert!(second > first);
    }

    #[test]
    fn a_clock_more_than_half_a_second_ahead_is_refused() {
        let mut clock = HybridClock::default();
        let refused = clock.observe(Hlc::at(WallTime(1_501)), WallTime(1_000));
        assert_eq!(refused, Err(ClockAhead { ahead_ms: 501, ahead_ms_max: 500 }));
        assert!(clock.observe(Hlc::at(WallTime(1_500)), WallTime(1_000)).is_ok());
        assert!(clock.tick(WallTime(1_000)) > Hlc::at(WallTime(1_500)));
    }
}
