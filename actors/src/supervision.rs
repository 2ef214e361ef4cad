//! When to start a failed child again, as data.
//!
//! ractor reports failures and has no restart strategies; this is ours. A
//! child may fail `attempts_max` times within `window`; each restart waits
//! twice as long as the one before, from `backoff` on. Beyond that the failure
//! is for good and someone must look.

use std::{collections::VecDeque, time::Duration};

use cluster::units::Instant;

/// How patient a supervisor is with one kind of child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Failures tolerated within the window.
    pub attempts_max: usize,
    /// Length of the window.
    pub window: Duration,
    /// Wait before the first restart; doubles with each failure in the window.
    pub backoff: Duration,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this long.
    RestartAfter(Duration),
    /// It failed too often: give up.
    GiveUp,
}

/// The failures of one child.
#[derive(Clone, Debug)]
pub struct Failures {
    policy: RestartPolicy,
    recent: VecDeque<Instant>,
}

impl Failures {
    /// A child without failures.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, recent: VecDeque::new() }
    }

    /// Takes note of a failure and says what to do.
    pub fn record(&mut self, now: Instant) -> Verdict {
        while self.recent.front().is_some_and(|first| now.since(*first) > self.policy.window) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.policy.attempts_max {
            return Verdict::GiveUp;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).min(16);
        self.recent.push_back(now);
        Verdict::RestartAfter(self.policy.backoff * 2u32.pow(doublings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        attempts_max: 2,
        window: Duration::from_mins(1),
        backoff: Duration::from_millis(100),
    };

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn restarts_wait_longer_each_time_and_then_end() {
        let mut failures = Failures::new(POLICY);
        assert_eq!(failures.record(at(0)), Verdict::RestartAfter(Duration::from_millis(100)));
        assert_eq!(failures.record(at(1)), Verdict::RestartAfter(Duration::from_millis(200)));
        assert_eq!(failures.record(at(2)), Verdict::GiveUp);
    }

    #[test]
    fn failures_outside_the_window_are_forgotten() {
        let mut failures = Failures::new(POLICY);
        failures.record(at(0));
        failures.record(at(1));
        assert_eq!(failures.record(at(62)), Verdict::RestartAfter(Duration::from_millis(100)));
    }
}
