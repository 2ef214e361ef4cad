//! One paused runtime of the world, stepped by it.
//!
//! Stepping runs every timer and task due up to a point of world time, in the
//! runtime's own order; between steps nothing runs. Dropping a host is a crash:
//! its tasks end where they stand.

use std::{sync::Arc, time::Duration};

use cluster::units::Instant;
use tokio::runtime::{Builder, Runtime};

use crate::clock::{Dials, HostClock};

/// A runtime and its clock.
#[derive(Debug)]
pub struct Host {
    runtime: Runtime,
    clock: Arc<HostClock>,
}

impl Host {
    /// A runtime born at `now`.
    ///
    /// # Panics
    /// If the operating system cannot give a runtime its few resources.
    pub fn new(dials: Arc<Dials>, now: Instant) -> Self {
        let built = Builder::new_current_thread().enable_time().start_paused(true).build();
        #[expect(clippy::expect_used, reason = "a world without runtimes cannot go on")]
        let runtime = built.expect("a paused runtime needs no device");
        let clock = {
            let _inside = runtime.enter();
            Arc::new(HostClock::new(dials, now))
        };
        Self { runtime, clock }
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<HostClock> {
        &self.clock
    }

    /// Runs `work` inside the runtime without letting time pass.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.runtime.enter();
        work()
    }

    /// Runs everything due until the world's time is `world`.
    pub fn step_to(&self, world: Instant) {
        let until = self.clock.local_at(world);
        self.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }

    /// Moves its clock to the world's time `world` at once, as if the process
    /// had not run meanwhile: timers that came due fire together, late.
    pub fn jump_to(&self, world: Instant) {
        let until = self.clock.local_at(world);
        self.runtime.block_on(async {
            let missed = until.saturating_duration_since(tokio::time::Instant::now());
            tokio::time::advance(missed).await;
        });
    }

    /// Runs from `here` to `end` and hands over on the way what arrives, each
    /// at its time.
    pub(crate) fn step_through<T>(
        &self,
        mut here: Instant,
        arrivals: Vec<(Instant, T)>,
        end: Instant,
        mut take: impl FnMut(T),
    ) {
        let mut arrivals = arrivals.into_iter().peekable();
        while let Some((at, first)) = arrivals.next() {
            if at > here {
                self.step_to(at);
                here = at;
            }
            self.inside(|| {
                take(first);
                while let Some((_, next)) = arrivals.next_if(|(next_at, _)| *next_at == at) {
                    take(next);
                }
            });
        }
        self.step_to(end);
    }

    /// Ends the runtime where it stands.
    pub fn crash(self) {
        // Destructors of tasks may read the clock, which the runtime's context
        // answers; nothing is waited for.
        self.runtime.shutdown_timeout(Duration::ZERO);
    }
}
