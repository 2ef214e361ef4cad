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
    /// One-way messages in a million that arrive again, seconds later.
    pub replay_ppm: u32,
    /// Raft messages in a million that may overtake the one before.
    pub reorder_ppm: u32,
    /// Packets in a million that arrive with one bit flipped. This and the two
    /// below need packets: without quinn there are none.
    pub packet_flip_ppm: u32,
    /// Packets in a million that come a second time, much later.
    pub packet_replay_ppm: u32,
    /// Packets of handshakes in a million that are lost.
    pub packet_stall_ppm: u32,
}

impl Weather {
    /// A quiet network of one region.
    pub const CALM: Self = Self {
        latency_min: Duration::from_millis(2),
        latency_max: Duration::from_millis(4),
        spike_ppm: 0,
        spike_max: Duration::from_millis(200),
        drop_ppm: 0,
        duplicate_ppm: 0,
        replay_ppm: 0,
        reorder_ppm: 0,
        packet_flip_ppm: 0,
        packet_replay_ppm: 0,
        packet_stall_ppm: 0,
    };

    /// What makes no other weather worse.
    pub const NONE: Self = Self {
        latency_min: Duration::ZERO,
        latency_max: Duration::ZERO,
        spike_max: Duration::ZERO,
        ..Self::CALM
    };

    /// The worse of both in everything.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        Self {
            latency_min: self.latency_min.max(other.latency_min),
            latency_max: self.latency_max.max(other.latency_max),
            spike_ppm: self.spike_ppm.max(other.spike_ppm),
            spike_max: self.spike_max.max(other.spike_max),
            drop_ppm: self.drop_ppm.max(other.drop_ppm),
            duplicate_ppm: self.duplicate_ppm.max(other.duplicate_ppm),
            replay_ppm: self.replay_ppm.max(other.replay_ppm),
            reorder_ppm: self.reorder_ppm.max(other.reorder_ppm),
            packet_flip_ppm: self.packet_flip_ppm.max(other.packet_flip_ppm),
            packet_replay_ppm: self.packet_replay_ppm.max(other.packet_replay_ppm),
            packet_stall_ppm: self.packet_stall_ppm.max(other.packet_stall_ppm),
        }
    }

    /// How far hosts may run without hearing of each other: what is sent in
    /// such a stretch arrives after its end. Whole milliseconds, as tokio's
    /// timers have no finer grain; and not so many that faults, which strike
    /// between two stretches, all come at once.
    pub(crate) fn stretch(&self) -> Duration {
        const STRETCH_MS: (u64, u64) = (1, 8);
        let whole = u64::try_from(self.latency_min.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(whole.clamp(STRETCH_MS.0, STRETCH_MS.1))
    }

    /// The time one parcel takes.
    pub(crate) fn delay(&self, rng: &mut Rng) -> Duration {
        let usual = rng.between(self.latency_min, self.latency_max);
        if rng.chance(self.spike_ppm) {
            return usual + rng.between(Duration::ZERO, self.spike_max);
        }
        usual
    }
}
