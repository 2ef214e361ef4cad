//! The `Clock` port over world time: each node's clock has its own rate, and
//! its wall clock its own offset. Both may change while it runs.
//!
//! World time is the simulator's; nobody inside sees it. A node's monotonic
//! time is that of its paused tokio runtime, so that timers and readings agree.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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

/// A wall clock that jumps to and fro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strobe {
    /// How far.
    pub by_ms: i64,
    /// How long it stays.
    pub every: Duration,
}

/// The clocks of a machine: they go on while it is down.
///
/// A lock, though there is one thread: the port is `Sync` by contract.
#[derive(Debug, Default)]
pub struct Dials(Mutex<Setting>);

#[derive(Clone, Copy, Debug, Default)]
struct Setting {
    skew: Skew,
    frozen_at_ms: Option<u64>,
    strobe: Option<Strobe>,
}

impl Dials {
    /// Clocks that err so much.
    pub fn new(skew: Skew) -> Self {
        Self(Mutex::new(Setting { skew, ..Setting::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Setting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the wall clock forward, or back.
    pub fn jump(&self, by_ms: i64) {
        self.lock().skew.offset_ms += by_ms;
    }

    /// Makes the monotonic clock gain so much more.
    pub fn drift(&self, more_ppm: i32) {
        self.lock().skew.rate_ppm += more_ppm;
    }

    /// Stops the wall clock at what it shows at `world`, or lets it go on.
    pub fn freeze(&self, world: Option<Instant>) {
        let shown = world.map(|world| self.wall_ms(world));
        self.lock().frozen_at_ms = shown;
    }

    /// Lets the wall clock jump to and fro, or not.
    pub fn strobe(&self, strobe: Option<Strobe>) {
        self.lock().strobe = strobe;
    }

    fn rate(&self) -> i128 {
        1_000_000 + i128::from(self.lock().skew.rate_ppm)
    }

    fn wall_ms(&self, world: Instant) -> u64 {
        let Setting { skew, frozen_at_ms, strobe } = *self.lock();
        if let Some(frozen) = frozen_at_ms {
            return frozen;
        }
        let away = strobe.filter(|strobe| {
            let turn =
                world.as_nanos() / u64::try_from(strobe.every.as_nanos()).unwrap_or(1).max(1);
            turn % 2 == 1
        });
        let offset = skew.offset_ms + away.map_or(0, |strobe| strobe.by_ms);
        // Wall clocks are kept by a time service: an offset, but no drift.
        (WALL_ORIGIN_MS + world.as_nanos() / 1_000_000).saturating_add_signed(offset)
    }
}

/// A point at which both times are known.
#[derive(Clone, Copy, Debug)]
struct Base {
    world: Instant,
    local: Duration,
    rate: i128,
}

/// Converts between the world's time and one runtime's.
#[derive(Debug)]
pub struct HostClock {
    dials: Arc<Dials>,
    /// The runtime's own time at its birth.
    origin: tokio::time::Instant,
    /// Since the rate last changed.
    base: Mutex<Base>,
    /// Local nanoseconds at the last reading: readings from outside the
    /// runtime (a destructor at a crash) must not touch the real clock.
    last: AtomicU64,
}

impl HostClock {
    /// The clock of a runtime born now; call inside that runtime.
    pub fn new(dials: Arc<Dials>, born: Instant) -> Self {
        let base = Base { world: born, local: Duration::ZERO, rate: dials.rate() };
        let origin = tokio::time::Instant::now();
        Self { dials, origin, base: Mutex::new(base), last: AtomicU64::new(0) }
    }

    fn base(&self) -> Base {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dials were turned when the world's time was `world`.
    pub fn rate_changed(&self, world: Instant) {
        let base = self.base();
        let local = base.local + scale(world.since(base.world), base.rate, 1_000_000);
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) =
            Base { world, local, rate: self.dials.rate() };
    }

    /// The runtime's point of time when the world's is `world`, in whole
    /// milliseconds as tokio's timers are.
    pub fn local_at(&self, world: Instant) -> tokio::time::Instant {
        let base = self.base();
        let local = base.local + scale(world.since(base.world), base.rate, 1_000_000);
        let millis = u64::try_from(local.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.origin + Duration::from_millis(millis)
    }

    /// The world's time when the runtime's is now.
    pub fn world_now(&self) -> Instant {
        let base = self.base();
        let local = Duration::from_nanos(self.local_nanos());
        base.world + scale(local.saturating_sub(base.local), 1_000_000, base.rate)
    }

    /// The runtime's point of time now, also from outside it.
    pub(crate) fn runtime_now(&self) -> tokio::time::Instant {
        self.origin + Duration::from_nanos(self.local_nanos())
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

/// A span times `by` over `of`.
fn scale(span: Duration, by: i128, of: i128) -> Duration {
    let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
    Duration::from_nanos(u64::try_from(nanos * by / of).unwrap_or(0))
}

impl Clock for HostClock {
    fn now(&self) -> Instant {
        // One second past the origin, so that code may subtract from "now".
        Instant::from_nanos(self.local_nanos() + 1_000_000_000)
    }

    fn wall(&self) -> WallTime {
        WallTime(self.dials.wall_ms(self.world_now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn inside(skew: Skew, born: Instant, play: impl AsyncFn(HostClock, Arc<Dials>)) {
        let built = tokio::runtime::Builder::new_current_thread();
        let runtime = { built }.enable_time().start_paused(true).build().unwrap();
        let dials = Arc::new(Dials::new(skew));
        runtime.block_on(async { play(HostClock::new(dials.clone(), born), dials).await });
    }

    #[test]
    fn a_fast_clock_runs_ahead_and_converts_back() {
        let born = Instant::from_nanos(7_000_000_000);
        inside(Skew { rate_ppm: 50_000, offset_ms: -90_000 }, born, async |clock, _| {
            let world = born + SECOND * 100;
            tokio::time::sleep_until(clock.local_at(world)).await;
            assert_eq!(clock.now() - Instant::from_nanos(1_000_000_000), SECOND * 105);
            assert_eq!(clock.world_now(), world);
            assert_eq!(clock.wall().0, WALL_ORIGIN_MS + 7_000 + 100_000 - 90_000);
        });
    }

    #[test]
    fn a_clock_whose_rate_changes_never_falls_back() {
        inside(Skew::default(), Instant::ORIGIN, async |clock, dials| {
            let mut last = clock.now();
            for (second, more) in [(1, 50_000), (2, -90_000), (3, 40_000)] {
                let world = Instant::ORIGIN + SECOND * second;
                tokio::time::sleep_until(clock.local_at(world)).await;
                assert!(clock.now() > last);
                last = clock.now();
                dials.drift(more);
                clock.rate_changed(world);
                assert_eq!(clock.now(), last);
            }
            // One second each at 100 %, 105 % and 96 %.
            assert_eq!(last - Instant::from_nanos(1_000_000_000), Duration::from_millis(3_010));
        });
    }

    #[test]
    fn wall_clocks_jump_freeze_and_strobe() {
        inside(Skew::default(), Instant::ORIGIN, async |clock, dials| {
            let at = |ms: u64| Instant::ORIGIN + Duration::from_millis(ms);
            let wall = || clock.wall().0 - WALL_ORIGIN_MS;
            tokio::time::sleep_until(clock.local_at(at(1_000))).await;
            dials.jump(5_000);
            assert_eq!(wall(), 6_000);
            dials.freeze(Some(at(1_000)));
            tokio::time::sleep_until(clock.local_at(at(2_000))).await;
            assert_eq!(wall(), 6_000);
            dials.freeze(None);
            assert_eq!(wall(), 7_000);
            dials.jump(-5_000);
            dials.strobe(Some(Strobe { by_ms: 100, every: Duration::from_millis(500) }));
            assert_eq!(wall(), 2_000);
            tokio::time::sleep_until(clock.local_at(at(2_500))).await;
            assert_eq!(wall(), 2_600);
        });
    }
}
