//! Time on a world's thread: it passes only where a runtime would sleep.
//!
//! Each host's runtime counts its own time, so the thread's clock is set when
//! a host begins to run. When all its tasks wait, tokio sleeps until its next
//! timer; on this thread such a sleep is over at once, and the clock stands
//! where it would have ended. A sleep beyond the point up to which the host may
//! run is cut off there, and its end is kept: until then the host has nothing
//! to do, and the world need not look at it.
//!
//! Invariant: no real time passes in a sleep, and none is read.

use std::cell::Cell;

/// What the clock shows at local time zero: far from any real uptime.
const EPOCH_S: i64 = 1_800_000_000;
const NANOS_PER_S: u64 = 1_000_000_000;

thread_local! {
    static CLOCK: Clock = const {
        Clock { now: Cell::new(0), limit: Cell::new(None), due: Cell::new(None), used: Cell::new(false) }
    };
}

struct Clock {
    /// Local nanoseconds of the host that runs.
    now: Cell<u64>,
    /// How far it may run; none while no host does.
    limit: Cell<Option<u64>>,
    /// When the sleep ends that reaches beyond.
    due: Cell<Option<u64>>,
    /// Whether a host lives, or lived, on this thread.
    used: Cell<bool>,
}

/// The time the thread's clock shows.
pub(crate) fn now() -> u64 {
    CLOCK.with(|clock| clock.now.get())
}

/// Sets the thread's clock.
pub(crate) fn set(nanos: u64) {
    CLOCK.with(|clock| {
        clock.used.set(true);
        clock.now.set(nanos);
    });
}

/// Lets sleeps pass up to `limit` from now on.
pub(crate) fn begin(limit: u64) {
    CLOCK.with(|clock| {
        clock.limit.set(Some(limit));
        clock.due.set(None);
    });
}

/// When the sleep ends that reached the limit; none before one has.
pub(crate) fn due() -> Option<u64> {
    CLOCK.with(|clock| clock.due.get())
}

/// Leaves sleeps to libc again.
pub(crate) fn end() {
    CLOCK.with(|clock| clock.limit.set(None));
}

/// The point of std's time at which a host's local time is `nanos`.
#[expect(clippy::disallowed_methods, reason = "the thread's clock is a world's")]
pub(crate) fn instant(nanos: u64) -> std::time::Instant {
    let shown = now();
    set(nanos);
    let point = std::time::Instant::now();
    set(shown);
    point
}

/// Seconds and nanoseconds, if the thread has a clock of its own.
pub(super) fn reading() -> Option<(i64, i64)> {
    let read = |clock: &Clock| {
        let now = clock.used.get().then(|| clock.now.get())?;
        let (seconds, nanos) = (now / NANOS_PER_S, now % NANOS_PER_S);
        Some((EPOCH_S + i64::try_from(seconds).ok()?, i64::try_from(nanos).ok()?))
    };
    CLOCK.try_with(read).unwrap_or(None)
}

/// Sleeps until the clock shows this; false where that is libc's affair.
pub(super) fn sleep_until(seconds: i64, nanos: i64) -> bool {
    let sleep = |clock: &Clock| {
        let Some(limit) = clock.limit.get() else { return false };
        let seconds = u64::try_from(seconds.saturating_sub(EPOCH_S)).unwrap_or(0);
        let end = seconds.saturating_mul(NANOS_PER_S).saturating_add(nanos.unsigned_abs());
        if end > limit {
            clock.due.set(Some(end));
        }
        clock.now.set(end.min(limit).max(clock.now.get()));
        true
    };
    CLOCK.try_with(sleep).unwrap_or(false)
}
