//! One runtime of the world, run up to points of the world's time.
//!
//! Running does every timer and task due up to a point, in the runtime's own
//! order; between two runs nothing happens. Its clock moves where it would
//! sleep (`hooks/time.rs`), which also tells when it has something to do next.
//! Dropping a host is a crash: its tasks end where they stand.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use cluster::units::Instant;
use tokio::runtime::{Builder, Runtime};

use crate::{
    clock::{Dials, HostClock},
    hooks::time,
};

/// A sleep that never matters: a runtime without any timer would sleep without
/// end, and could not be woken.
const LONG: Duration = Duration::from_hours(365 * 24);

/// A runtime and its clock.
#[derive(Debug)]
pub struct Host {
    runtime: Runtime,
    clock: Arc<HostClock>,
    /// Of the future that waits for the end of a run.
    ///
    /// A lock, though there is one thread: tokio's hooks are `Sync` by contract.
    end: Arc<Mutex<Option<Waker>>>,
}

impl Host {
    /// A runtime born at `now`.
    ///
    /// # Panics
    /// If the operating system cannot give a runtime its few resources.
    pub fn new(dials: Arc<Dials>, now: Instant) -> Self {
        let end: Arc<Mutex<Option<Waker>>> = Arc::default();
        let ended = end.clone();
        let wake = move || {
            if time::due().is_some()
                && let Some(waker) = &*ended.lock().unwrap_or_else(PoisonError::into_inner)
            {
                waker.wake_by_ref();
            }
        };
        time::set(0);
        let built = Builder::new_current_thread().enable_time().on_thread_unpark(wake).build();
        #[expect(clippy::expect_used, reason = "a world without runtimes cannot go on")]
        let runtime = built.expect("a runtime of timers needs no device");
        let clock = Arc::new(HostClock::new(dials, now));
        runtime.spawn(async {
            loop {
                tokio::time::sleep(LONG).await;
            }
        });
        Self { runtime, clock, end }
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<HostClock> {
        &self.clock
    }

    /// Runs `work` inside the runtime without letting time pass. What that asks
    /// of the runtime is due at once.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.clock.disturb();
        let _inside = self.runtime.enter();
        let _running = self.clock.run();
        work()
    }

    /// Runs everything due until the world's time is `world`.
    pub fn step_to(&self, world: Instant) {
        let until = self.clock.local_nanos_at(world);
        let running = self.clock.run();
        time::begin(until);
        self.runtime.block_on(poll_fn(|cx| {
            if time::due().is_some() {
                return Poll::Ready(());
            }
            let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            if end.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *end = Some(cx.waker().clone());
            }
            Poll::Pending
        }));
        time::end();
        drop(running);
        self.clock.rest_until(time::due().unwrap_or(0));
    }

    /// Moves its clock to the world's time `world` at once. If the process had
    /// something to do meanwhile, it did not run: timers that came due fire
    /// together, late.
    pub fn jump_to(&self, world: Instant) {
        self.clock.jump_to(world);
    }

    /// Runs from `here` to `end` and hands over on the way what arrives, each
    /// at its time.
    pub(crate) fn step_through<T>(
        &self,
        here: Instant,
        arrivals: Vec<(Instant, T)>,
        end: Instant,
        mut take: impl FnMut(T),
    ) {
        self.jump_to(here);
        let mut arrivals = arrivals.into_iter().peekable();
        while let Some((at, first)) = arrivals.next() {
            if self.clock.due() <= at {
                self.step_to(at);
            } else {
                self.jump_to(at);
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
        // Destructors of tasks may read the clock; nothing is waited for.
        let _running = self.clock.run();
        self.runtime.shutdown_timeout(Duration::ZERO);
    }
}
