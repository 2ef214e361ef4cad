//! The `Clock` port over world time: each node's clock has its own rate, and
//! its wall clock its own offset. Both may change while it runs.
//!
//! World time is the simulator's; nobody inside sees it. A node's monotonic
//! time is that of its tokio runtime, so that timers and readings agree.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{
    ports::clock::Clock,
    units::{Instant, WallTime},
};

use crate::hooks::time;

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
        EXACT + i128::from(self.lock().skew.rate_ppm)
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

/// Converts between the world's time and one runtime's, which counts from its
/// birth.
#[derive(Debug)]
pub struct HostClock {
    dials: Arc<Dials>,
    /// Since the rate last changed.
    base: Mutex<Base>,
    /// Local nanoseconds when its runtime last ran: while it runs the thread's
    /// clock is its own, at other times (a destructor at a crash) another's.
    last: AtomicU64,
    runs: AtomicBool,
    /// The world's time before which its runtime has nothing to do.
    due: AtomicU64,
}

/// Its runtime runs as long as this is there.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a HostClock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.last.store(time::now(), Ordering::Relaxed);
        self.0.runs.store(false, Ordering::Relaxed);
    }
}

/// Tokio's timers have no finer grain.
const GRAIN_NANOS: u64 = 1_000_000;

impl HostClock {
    /// The clock of a runtime born now.
    pub(crate) fn new(dials: Arc<Dials>, born: Instant) -> Self {
        let base = Base { world: born, local: Duration::ZERO, rate: dials.rate() };
        let (last, runs, due) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Self { dials, base: Mutex::new(base), last, runs, due }
    }

    /// Makes the thread's clock this one.
    pub(crate) fn run(&self) -> Running<'_> {
        time::set(self.last.load(Ordering::Relaxed));
        self.runs.store(true, Ordering::Relaxed);
        Running(self)
    }

    /// Moves it to the world's time `world`, if that is later.
    pub(crate) fn jump_to(&self, world: Instant) {
        self.last.fetch_max(self.local_nanos_at(world), Ordering::Relaxed);
    }

    /// The world's time before which its runtime has nothing to do.
    pub(crate) fn due(&self) -> Instant {
        Instant::from_nanos(self.due.load(Ordering::Relaxed))
    }

    /// Somebody outside gave its runtime something to do.
    pub(crate) fn disturb(&self) {
        self.due.store(0, Ordering::Relaxed);
    }

    /// Its runtime has nothing to do before its own time `local`.
    pub(crate) fn rest_until(&self, local: u64) {
        let base = self.base();
        let ahead = Duration::from_nanos(local).saturating_sub(base.local);
        let exact = base.rate == EXACT && base.local.as_nanos().is_multiple_of(GRAIN_NANOS.into());
        // Local time is rounded up to the grain: it may come so much earlier.
        let margin = Duration::from_nanos(if exact { 0 } else { GRAIN_NANOS });
        let due = base.world + scale(ahead, EXACT, base.rate).saturating_sub(margin);
        self.due.store(due.as_nanos() / GRAIN_NANOS * GRAIN_NANOS, Ordering::Relaxed);
    }

    fn base(&self) -> Base {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dials were turned when the world's time was `world`.
    pub fn rate_changed(&self, world: Instant) {
        let base = self.base();
        let local = base.local + scale(world.since(base.world), base.rate, EXACT);
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) =
            Base { world, local, rate: self.dials.rate() };
        self.disturb();
    }

    /// The runtime's time when the world's is `world`, in whole milliseconds as
    /// tokio's timers are.
    pub(crate) fn local_nanos_at(&self, world: Instant) -> u64 {
        let base = self.base();
        let local = base.local + scale(world.since(base.world), base.rate, EXACT);
        u64::try_from(local.as_nanos()).unwrap_or(u64::MAX).next_multiple_of(GRAIN_NANOS)
    }

    /// The world's time when the runtime's is now.
    pub fn world_now(&self) -> Instant {
        let base = self.base();
        let local = Duration::from_nanos(self.local_nanos());
        base.world + scale(local.saturating_sub(base.local), EXACT, base.rate)
    }

    /// The runtime's point of time now, also from outside it.
    pub(crate) fn runtime_now(&self) -> std::time::Instant {
        time::instant(self.local_nanos())
    }

    fn local_nanos(&self) -> u64 {
        if self.runs.load(Ordering::Relaxed) {
            time::now()
        } else {
            self.last.load(Ordering::Relaxed)
        }
    }
}

/// Parts per million of a clock that is right.
const EXACT: i128 = 1_000_000;

/// A span times `by` over `of`.
fn scale(span: Duration, by: i128, of: i128) -> Duration {
    if by == of {
        return span;
    }
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
    use crate::host::Host;

    const SECOND: Duration = Duration::from_secs(1);

    /// A host born at `born` whose clocks err so.
    fn host(skew: Skew, born: Instant) -> (Host, Arc<HostClock>, Arc<Dials>) {
        let dials = Arc::new(Dials::new(skew));
        let host = Host::new(dials.clone(), born);
        let clock = host.clock().clone();
        (host, clock, dials)
    }

    #[test]
    fn a_fast_clock_runs_ahead_and_converts_back() {
        let born = Instant::from_nanos(7_000_000_000);
        let (host, clock, _) = host(Skew { rate_ppm: 50_000, offset_ms: -90_000 }, born);
        let world = born + SECOND * 100;
        host.step_to(world);
        assert_eq!(clock.now() - Instant::from_nanos(1_000_000_000), SECOND * 105);
        assert_eq!(clock.world_now(), world);
        assert_eq!(clock.wall().0, WALL_ORIGIN_MS + 7_000 + 100_000 - 90_000);
    }

    #[test]
    fn a_clock_whose_rate_changes_never_falls_back() {
        let (host, clock, dials) = host(Skew::default(), Instant::ORIGIN);
        let mut last = clock.now();
        for (second, more) in [(1, 50_000), (2, -90_000), (3, 40_000)] {
            let world = Instant::ORIGIN + SECOND * second;
            host.step_to(world);
            assert!(clock.now() > last);
            last = clock.now();
            dials.drift(more);
            clock.rate_changed(world);
            assert_eq!(clock.now(), last);
        }
        // One second each at 100 %, 105 % and 96 %.
        assert_eq!(last - Instant::from_nanos(1_000_000_000), Duration::from_millis(3_010));
    }

    #[test]
    fn a_host_knows_when_it_has_something_to_do_next() {
        for rate_ppm in [0, 300, -300] {
            let (host, clock, _) = host(Skew { rate_ppm, offset_ms: 0 }, Instant::ORIGIN);
            assert_eq!(clock.due(), Instant::ORIGIN, "its first task waits");
            let fired = Arc::new(AtomicU64::new(0));
            let noted = (fired.clone(), clock.clone());
            host.inside(|| {
                tokio::spawn(async move {
                    tokio::time::sleep(SECOND * 5).await;
                    noted.0.store(noted.1.world_now().as_nanos(), Ordering::Relaxed);
                })
            });
            let (mut runs, mut now) = (0, Instant::ORIGIN);
            while fired.load(Ordering::Relaxed) == 0 {
                now = now + Duration::from_millis(1);
                if clock.due() <= now {
                    host.jump_to(now);
                    host.step_to(now);
                    runs += 1;
                }
            }
            let fired = fired.load(Ordering::Relaxed);
            let off = fired.abs_diff(5_000_000_000);
            assert!(off < 3_000_000, "at {fired} with {rate_ppm} ppm");
            assert!(fired <= now.as_nanos() + 1_000_000, "it ran ahead");
            assert!(runs < 10, "{runs} runs for one timer");
        }
    }

    #[test]
    fn outside_its_runtime_a_clock_shows_when_it_last_ran() {
        let (host, clock, _) = host(Skew::default(), Instant::ORIGIN);
        let (other, ..) = self::host(Skew::default(), Instant::ORIGIN);
        host.step_to(Instant::ORIGIN + SECOND);
        // As a destructor at a crash reads it, while the thread's clock is another's.
        other.step_to(Instant::ORIGIN + SECOND * 9);
        host.crash();
        // A reading is a second ahead, so that code may subtract from it.
        assert_eq!(clock.now(), Instant::ORIGIN + SECOND * 2);
        assert_eq!(clock.world_now(), Instant::ORIGIN + SECOND);
        assert_eq!(clock.runtime_now(), time::instant(1_000_000_000));
        assert_eq!(clock.wall().0 - WALL_ORIGIN_MS, 1_000);
    }

    #[test]
    fn wall_clocks_jump_freeze_and_strobe() {
        let (host, clock, dials) = host(Skew::default(), Instant::ORIGIN);
        let at = |ms: u64| Instant::ORIGIN + Duration::from_millis(ms);
        let wall = || clock.wall().0 - WALL_ORIGIN_MS;
        host.step_to(at(1_000));
        dials.jump(5_000);
        assert_eq!(wall(), 6_000);
        dials.freeze(Some(at(1_000)));
        host.step_to(at(2_000));
        assert_eq!(wall(), 6_000);
        dials.freeze(None);
        assert_eq!(wall(), 7_000);
        dials.jump(-5_000);
        dials.strobe(Some(Strobe { by_ms: 100, every: Duration::from_millis(500) }));
        assert_eq!(wall(), 2_000);
        host.step_to(at(2_500));
        assert_eq!(wall(), 2_600);
    }
}
