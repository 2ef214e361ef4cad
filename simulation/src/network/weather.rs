//! How the network treats parcels at the moment.

use std::time::Duration;

use crate::rng::Rng;

/// Delays and losses, for all links alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Shortest way.
    pub latency_min: Duration,
    /// Longest usual way.
    pub latency_max: Duration,
    /// Parcels in a million that take up to `spike_max` longer.
    pub spike_ppm: u32,
    /// Longest extra delay.
    pub spike_max: Duration,
    /// One-way messages in a million that are lost. On streams a loss is a
    /// retransmission: a spike.
    pub drop_ppm: u32,
    /// One-way messages in a million that arrive twice.
    pub duplicate_ppm: u32,
    /// Raft messages in a million that may overtake the one before.
    pub reorder_ppm: u32,
}

impl Weather {
    /// A quiet local network.
    pub const CALM: Self = Self {
        latency_min: Duration::from_micros(300),
        latency_max: Duration::from_micros(1_500),
        spike_ppm: 0,
        spike_max: Duration::from_millis(200),
        drop_ppm: 0,
        duplicate_ppm: 0,
        reorder_ppm: 0,
    };

    /// The time one parcel takes.
    pub(crate) fn delay(&self, rng: &mut Rng) -> Duration {
        let usual = rng.between(self.latency_min, self.latency_max);
        if rng.chance(self.spike_ppm) {
            return usual + rng.between(Duration::ZERO, self.spike_max);
        }
        usual
    }
}
