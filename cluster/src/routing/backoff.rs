//! Pauses between tries: doubling, capped, jittered.
//!
//! Full jitter over the upper half: after a leader is lost every client waits,
//! and without jitter they would all come back in the same millisecond.

use std::time::Duration;

/// First pause: a leader that only just stepped down is found again at once.
const PAUSE_MS_MIN: u64 = 10;
/// Longest pause: an election takes about a second, so a quarter of a
/// second wastes little of it while 64 tries a second stay far away.
const PAUSE_MS_MAX: u64 = 250;

/// Growing pauses of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause; `chance` is any random number.
    pub fn pause(&mut self, chance: u64) -> Duration {
        let full = PAUSE_MS_MIN.saturating_mul(1 << self.tries.min(16)).min(PAUSE_MS_MAX);
        self.tries = self.tries.saturating_add(1);
        let half = full / 2;
        Duration::from_millis(half + chance % (full - half + 1))
    }

    /// How many pauses were taken.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_never_vanish() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..8)
            .map(|_| {
                let mut low = backoff;
                let mut best = 0;
                for chance in 0..600 {
                    let mut copy = backoff;
                    let pause = copy.pause(chance).as_millis();
                    assert!(pause >= 5, "a pause of {pause} ms is a busy loop");
                    best = best.max(pause);
                    low = copy;
                }
                backoff = low;
                best
            })
            .collect();
        assert_eq!(longest, [10, 20, 40, 80, 160, 250, 250, 250]);
    }
}
