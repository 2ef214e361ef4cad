//! The faults of one run, drawn from its seed.

use std::{collections::BTreeMap, time::Duration};

use cluster::units::Instant;

use super::Fault;
use crate::{disk::Death, network::Weather, rng::Rng};

/// Kinds of faults the swarm switches on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed and started again.
    Kill,
    /// A machine loses power and starts again.
    PowerLoss,
    /// All machines end at one instant, one way or the other.
    CrashAll,
    /// One machine is cut off.
    Isolate,
    /// One way between two machines is cut.
    OneWayCut,
    /// Messages are lost, doubled or late for a while.
    BadWeather,
    /// A disk is slow for a while.
    SlowDisk,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Kill,
        Self::PowerLoss,
        Self::CrashAll,
        Self::Isolate,
        Self::OneWayCut,
        Self::BadWeather,
        Self::SlowDisk,
    ];
}

/// The faults of one run, by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    faults: BTreeMap<(Instant, u32), Fault>,
}

/// Shortest and longest mean time between faults of one kind.
const GAP: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(8));
/// Shortest and longest life of a fault.
const LIFE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(8));

impl Schedule {
    /// Draws the faults of `seed` between two points of time, for `nodes`
    /// machines in usually `calm` weather. They all end before the second.
    pub fn draw(seed: u64, nodes: u32, calm: Weather, from: Instant, to: Instant) -> Self {
        let mut swarm = Rng::stream(seed, "swarm", 0);
        let mut schedule = Self::default();
        for (member, kind) in (0..).zip(Kind::ALL) {
            let wanted = swarm.chance(450_000);
            let gap = swarm.between(GAP.0, GAP.1);
            let mut draw = Draw { rng: Rng::stream(seed, "faults", member), nodes, calm };
            let mut at = from + draw.gap(gap);
            while wanted && at < to {
                let end = (at + draw.life()).min(to);
                let (begins, ends) = draw.fault(kind);
                schedule.add(at, begins);
                schedule.add(end, ends);
                at = end + draw.gap(gap);
            }
        }
        schedule
    }

    /// A schedule of these faults.
    pub fn of(faults: impl IntoIterator<Item = (Instant, Fault)>) -> Self {
        let mut schedule = Self::default();
        faults.into_iter().for_each(|(at, fault)| schedule.add(at, fault));
        schedule
    }

    /// Takes the faults that are due at `now`.
    pub fn due(&mut self, now: Instant) -> Vec<Fault> {
        let mut due = Vec::new();
        while let Some(entry) = self.faults.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        due
    }

    /// Faults still to come.
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// Whether none is to come.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    fn add(&mut self, at: Instant, fault: Fault) {
        let number = u32::try_from(self.faults.len()).unwrap_or(u32::MAX);
        self.faults.insert((at, number), fault);
    }
}

/// Draws of one kind.
struct Draw {
    rng: Rng,
    nodes: u32,
    calm: Weather,
}

impl Draw {
    fn gap(&mut self, mean: Duration) -> Duration {
        self.rng.between(mean / 4, mean * 7 / 4)
    }

    /// Mostly short, sometimes long: the product of two draws.
    fn life(&mut self) -> Duration {
        let share = u32::try_from(self.rng.below(1_000)).unwrap_or(0);
        self.rng.between(LIFE.0, LIFE.1) * share / 1_000 + LIFE.0
    }

    fn node(&mut self) -> u32 {
        1 + u32::try_from(self.rng.below(u64::from(self.nodes))).unwrap_or(0)
    }

    fn other(&mut self, than: u32) -> u32 {
        let step = u32::try_from(self.rng.below(u64::from(self.nodes) - 1)).unwrap_or(0);
        1 + (than + step) % self.nodes
    }

    /// What begins and what ends a fault of a kind.
    fn fault(&mut self, kind: Kind) -> (Fault, Fault) {
        let node = self.node();
        match kind {
            Kind::Kill => (Fault::Crash(node, Death::Kill), Fault::Start(node)),
            Kind::PowerLoss => (Fault::Crash(node, Death::Power), Fault::Start(node)),
            Kind::CrashAll => {
                let death = if self.rng.chance(700_000) { Death::Power } else { Death::Kill };
                (Fault::CrashAll(death), Fault::StartAll)
            }
            Kind::Isolate => (Fault::Isolate(node), Fault::Heal),
            Kind::OneWayCut => (Fault::OneWay(node, self.other(node)), Fault::Heal),
            Kind::BadWeather => (Fault::Weather(self.weather()), Fault::Weather(self.calm)),
            Kind::SlowDisk => {
                let factor = 10 + u32::try_from(self.rng.below(500)).unwrap_or(0);
                (Fault::SlowDisk(node, factor), Fault::SlowDisk(node, 1))
            }
        }
    }

    fn weather(&mut self) -> Weather {
        let mut ppm = |max: u64| {
            let on = self.rng.chance(600_000);
            if on { u32::try_from(self.rng.below(max)).unwrap_or(0) } else { 0 }
        };
        let (spike_ppm, drop_ppm) = (ppm(300_000), ppm(300_000));
        let (duplicate_ppm, reorder_ppm) = (ppm(200_000), ppm(200_000));
        let spike_max = self.rng.between(Duration::from_millis(20), Duration::from_secs(2));
        Weather { spike_ppm, spike_max, drop_ppm, duplicate_ppm, reorder_ppm, ..self.calm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64) -> Schedule {
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        Schedule::draw(seed, 3, Weather::CALM, at(5), at(35))
    }

    #[test]
    fn a_schedule_is_the_seeds_and_all_of_it_ends_in_time() {
        assert_eq!(draw(1), draw(1));
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut schedule = draw(seed);
            let faults = schedule.due(Instant::ORIGIN + Duration::from_secs(35));
            assert!(schedule.is_empty(), "a fault after the end");
            let count = |wanted: fn(&Fault) -> bool| faults.iter().filter(|f| wanted(f)).count();
            let crashes = count(|fault| matches!(fault, Fault::Crash(..) | Fault::CrashAll(_)));
            let starts = count(|fault| matches!(fault, Fault::Start(_) | Fault::StartAll));
            assert_eq!(crashes, starts);
            kinds.extend(
                faults.iter().map(|fault| fault.to_string().chars().take(6).collect::<String>()),
            );
        }
        assert!(kinds.len() >= 8, "the swarm never strikes with some kinds: {kinds:?}");
    }

    #[test]
    fn a_one_way_cut_has_two_ends() {
        let mut draw = Draw { rng: Rng::stream(1, "test", 0), nodes: 3, calm: Weather::CALM };
        for _ in 0..100 {
            let node = draw.node();
            assert_ne!(draw.other(node), node);
        }
    }
}
