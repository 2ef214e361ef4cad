//! The `Clock` port over world time: each node's clock has its own rate, and
//! its wall clock its own offset.
//!
//! World time is the simulator's; nobody inside sees it. A node's monotonic
//! time is that of its paused tokio runtime, so that timers and readings agree.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cluster::{
    ports::clock::Clock,
    units::{Instant, WallTime},
};

/// Wall milliseconds at the world's origin: 2027-01-15.
pub(crate) const WALL_ORIGIN_MS: u64 = 1_800_000_000_000;

/// How a node's clocks err.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Gain of the monotonic clock, in parts per million.
    pub rate_ppm: i32,
    /// Milliseconds the wall clock is ahead.
    pub offset_ms: i64,
}

/// Converts between the world's time and one runtime's.
#[derive(Debug)]
pub struct HostClock {
    skew: Skew,
    /// World time at which the runtime was born.
    born: Instant,
    /// The runtime's own time then.
    origin: tokio::time::Instant,
    /// Local nanoseconds at the last reading: readings from outside the
    /// runtime (a destructor at a crash) must not touch the real clock.
    last: AtomicU64,
}

impl HostClock {
    /// The clock of a runtime born now; call inside that runtime.
    pub fn new(skew: Skew, born: Instant) -> Self {
        Self { skew, born, origin: tokio::time::Instant::now(), last: AtomicU64::new(0) }
    }

    /// The runtime's point of time when the world's is `world`, in whole
    /// milliseconds as tokio's timers are.
    pub fn local_at(&self, world: Instant) -> tokio::time::Instant {
        let nanos = self.scaled(world.since(self.born));
        self.origin + Duration::from_millis(nanos.div_ceil(1_000_000))
    }

    /// The world's time when the runtime's is now.
    pub fn world_now(&self) -> Instant {
        let local = Duration::from_nanos(self.local_nanos());
        let rate = 1_000_000 + i128::from(self.skew.rate_ppm);
        let nanos = i128::try_from(local.as_nanos()).unwrap_or(i128::MAX);
        self.born + Duration::from_nanos(u64::try_from(nanos * 1_000_000 / rate).unwrap_or(0))
    }

    /// How long `span` of the world is on this clock.
    fn scaled(&self, span: Duration) -> u64 {
        let rate = 1_000_000 + i128::from(self.skew.rate_ppm);
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
        u64::try_from(nanos * rate / 1_000_000).unwrap_or(0)
    }

    fn local_nanos(&self) -> u64 {
        if tokio::runtime::Handle::try_current().is_err() {
            return self.last.load(Ordering::Relaxed);
        }
        let age = tokio::time::Instant::now().saturating_duration_since(self.origin);
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanos, Ordering::Relaxed);
        nanos
    }
}

impl Clock for HostClock {
    fn now(&self) -> Instant {
        // One second past the origin, so that code may subtract from "now".
        Instant::from_nanos(self.local_nanos() + 1_000_000_000)
    }

    fn wall(&self) -> WallTime {
        // Wall clocks are kept by a time service: an offset, but no drift.
        let ms = WALL_ORIGIN_MS + self.world_now().as_nanos() / 1_000_000;
        WallTime(ms.saturating_add_signed(self.skew.offset_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_runs_ahead_and_converts_back() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let born = Instant::from_nanos(7_000_000_000);
            let clock = HostClock::new(Skew { rate_ppm: 50_000, offset_ms: -90_000 }, born);
            let world = born + Duration::from_secs(100);
            tokio::time::sleep_until(clock.local_at(world)).await;
            assert_eq!(clock.now() - Instant::from_nanos(1_000_000_000), Duration::from_secs(105));
            assert_eq!(clock.world_now(), world);
            assert_eq!(clock.wall().0, WALL_ORIGIN_MS + 7_000 + 100_000 - 90_000);
        });
    }
}
