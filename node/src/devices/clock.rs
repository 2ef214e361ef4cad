//! The node's two clocks, read from the operating system.
//!
//! The monotonic one counts from the moment the clock was made, so it starts
//! near zero like a simulated one. The wall clock may jump; nothing here or
//! above takes an order from it.

use std::time::{Instant as SystemInstant, SystemTime, UNIX_EPOCH};

use cluster::{
    ports::clock::Clock,
    units::{Instant, WallTime},
};

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: SystemInstant,
}

impl SystemClock {
    /// A clock whose origin is now.
    #[expect(clippy::disallowed_methods, reason = "this is the device behind the Clock port")]
    pub fn new() -> Self {
        Self { origin: SystemInstant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN + self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the device behind the Clock port")]
    fn wall(&self) -> WallTime {
        // A clock before 1970 is broken; zero then says "unknown".
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_starts_near_its_origin_and_never_falls() {
        let clock = SystemClock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second >= first);
        assert!(first.as_nanos() < 60_000_000_000, "{first:?}");
    }

    #[test]
    fn the_wall_clock_counts_milliseconds() {
        // 2020-01-01 and 2200-01-01, from `date -u +%s`.
        let now = SystemClock::new().wall().0;
        assert!((1_577_836_800_000..7_258_118_400_000).contains(&now), "{now}");
    }
}
