//! Which faults a seed meets: each kind on or off, at a rate of its own.

use std::time::Duration;

use actors::failpoint::FailPoint;
use cluster::units::Instant;

use super::{Fault, Group, Kind, Machines, Millis, Planned, Schedule};
use crate::{disk::Death, rng::Rng};

/// Where faults strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    /// Machines there are.
    pub nodes: u32,
    /// When the first fault may begin.
    pub from: Instant,
    /// When all have ended.
    pub to: Instant,
    /// What they strike.
    pub groups: &'static [Group],
}

/// Shortest and longest mean time between faults of one kind.
const GAP: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(8));
/// Shortest and longest life of a fault.
const LIFE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(8));
/// Share of the kinds a seed switches on, at least and at most, in a million:
/// the fewer there are, the deeper each is met.
const SHARE: (u64, u64) = (50_000, 300_000);

impl Schedule {
    /// Draws the faults of `seed` on a ground.
    pub fn draw(seed: u64, ground: &Ground) -> Self {
        let mut swarm = Rng::stream(seed, "swarm", 0);
        let share = u32::try_from(SHARE.0 + swarm.below(SHARE.1 - SHARE.0)).unwrap_or(0);
        let mut faults = Vec::new();
        for kind in Kind::ALL {
            // Streams by name: a new kind changes nothing for the others.
            let mut rng = Rng::stream(seed, kind.word(), 0);
            let wanted = rng.chance(share) && ground.groups.contains(&kind.group());
            let mean = rng.between(GAP.0, GAP.1);
            let mut draw = Draw { rng, nodes: ground.nodes };
            let mut at = ground.from + draw.gap(mean);
            while wanted && at < ground.to {
                let life = draw.life().min(ground.to.since(at));
                faults.push(Planned { at, life, fault: draw.fault(*kind) });
                at = at + life + draw.gap(mean);
            }
        }
        Self::of(faults)
    }
}

/// Draws of one kind.
struct Draw {
    rng: Rng,
    nodes: u32,
}

impl Draw {
    fn gap(&mut self, mean: Duration) -> Duration {
        self.rng.between(mean / 4, mean * 7 / 4)
    }

    /// Mostly short, sometimes long: the product of two draws.
    fn life(&mut self) -> Duration {
        let share = self.below(1_000);
        self.rng.between(LIFE.0, LIFE.1) * share / 1_000 + LIFE.0
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.rng.below(u64::from(bound))).unwrap_or(0)
    }

    fn node(&mut self) -> u32 {
        1 + self.below(self.nodes)
    }

    fn other(&mut self, than: u32) -> u32 {
        1 + (than + self.below(self.nodes - 1)) % self.nodes
    }

    /// One to all but one of the machines.
    fn side(&mut self) -> Machines {
        let mut all: Vec<u32> = (1..=self.nodes).collect();
        self.rng.shuffle(&mut all);
        let count = 1 + self.below(self.nodes - 1);
        all.truncate(usize::try_from(count).unwrap_or(1));
        Machines(all)
    }

    fn millis(&mut self, from: u32, to: u32) -> Millis {
        Millis(from + self.below(to - from))
    }

    fn death(&mut self) -> Death {
        if self.rng.chance(700_000) { Death::Power } else { Death::Kill }
    }

    /// A number between `-most` and `most`.
    fn about(&mut self, most: u32) -> i32 {
        let drawn = i64::from(self.below(2 * most + 1)) - i64::from(most);
        i32::try_from(drawn).unwrap_or(0)
    }

    /// Bytes that go bad.
    fn rot(&mut self, kind: Kind, node: u32) -> Fault {
        let draw = self.below(u32::MAX);
        if kind == Kind::RotLog {
            Fault::RotLog { node, draw }
        } else if kind == Kind::RotStore {
            Fault::RotStore { node, draw }
        } else if kind == Kind::RotCopy {
            Fault::RotCopy { node, draw }
        } else if kind == Kind::Misdirected {
            Fault::Misdirected { node, draw }
        } else if kind == Kind::Truncated {
            Fault::Truncated { node, draw }
        } else {
            Fault::FlipOnRead { node, draw }
        }
    }

    /// A fault of a kind.
    fn fault(&mut self, kind: Kind) -> Fault {
        let node = self.node();
        match kind {
            Kind::Kill => Fault::Kill { node },
            Kind::PowerLoss => Fault::PowerLoss { node },
            Kind::CrashAll => Fault::CrashAll { death: self.death() },
            Kind::Isolate => Fault::Isolate { node },
            Kind::Cut => Fault::Cut { side: self.side() },
            Kind::OneWayCut => Fault::OneWayCut { from: node, to: self.other(node) },
            Kind::Delay => Fault::Delay { most: self.millis(5, 400) },
            Kind::Jitter => {
                Fault::Jitter { ppm: self.below(300_000), most: self.millis(20, 2_000) }
            }
            Kind::Reorder => Fault::Reorder { ppm: self.below(200_000) },
            Kind::Drop => Fault::Drop { ppm: self.below(300_000) },
            Kind::Duplicate => Fault::Duplicate { ppm: self.below(200_000) },
            Kind::Pause => Fault::Pause { node },
            Kind::SlowProcessor => Fault::SlowProcessor { node, ticks: 5 + self.below(300) },
            Kind::RestartLoop => Fault::RestartLoop { node, every: self.millis(30, 1_500) },
            Kind::FailPoint => {
                let index = self.rng.index(FailPoint::ALL.len());
                let point = FailPoint::ALL.get(index).copied().unwrap_or(FailPoint::LogAsked);
                Fault::FailPoint { node, point, death: self.death() }
            }
            Kind::Replay => Fault::Replay { ppm: self.below(100_000) },
            Kind::Clog => Fault::Clog { from: node, to: self.other(node) },
            Kind::Swizzle => Fault::Swizzle { node },
            Kind::Reset => Fault::Reset { node },
            Kind::Deaf => Fault::Deaf { node },
            Kind::WallJump => Fault::WallJump { node, by_ms: self.about(300) },
            Kind::Drift => Fault::Drift { node, ppm: self.about(30_000) },
            Kind::WallFreeze => Fault::WallFreeze { node },
            Kind::Strobe => {
                Fault::Strobe { node, by_ms: self.about(300), every: self.millis(5, 500) }
            }
            Kind::SlowDisk => Fault::SlowDisk { node, factor: 10 + self.below(500) },
            Kind::SlowSyncs => Fault::SlowSyncs { node, factor: 10 + self.below(500) },
            Kind::FullDisk => Fault::FullDisk { node },
            Kind::Bounce => Fault::Bounce { node },
            Kind::PacketFlip => Fault::PacketFlip { ppm: self.below(200_000) },
            Kind::PacketReplay => Fault::PacketReplay { ppm: self.below(200_000) },
            Kind::HandshakeStall => Fault::HandshakeStall { ppm: self.below(1_000_000) },
            Kind::StalledDisk => Fault::StalledDisk { node },
            Kind::ReadError => Fault::ReadError { node },
            Kind::WriteError => Fault::WriteError { node },
            Kind::SyncError => Fault::SyncError { node },
            Kind::CommitError => Fault::CommitError { node },
            Kind::FlipOnRead
            | Kind::RotLog
            | Kind::RotStore
            | Kind::RotCopy
            | Kind::Misdirected
            | Kind::Truncated => self.rot(kind, node),
            Kind::OldImage => Fault::OldImage { node },
            Kind::WipedDisk => Fault::WipedDisk { node },
            Kind::EmptiedDisk => Fault::EmptiedDisk { node },
            Kind::SwappedDisks => Fault::SwappedDisks { a: node, b: self.other(node) },
            Kind::TransferLeaders => Fault::TransferLeaders { node },
            Kind::AddNode => Fault::AddNode {},
            Kind::RemoveNode => Fault::RemoveNode { node },
            Kind::ReplaceNode => Fault::ReplaceNode { node },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64) -> Schedule {
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        let ground = Ground { nodes: 3, from: at(5), to: at(35), groups: Group::ALL };
        Schedule::draw(seed, &ground)
    }

    #[test]
    fn a_host_meets_only_groups_it_bears_and_those_as_others_do() {
        let (from, to) = (Instant::ORIGIN, Instant::ORIGIN + Duration::from_secs(30));
        let drawn = |seed, groups| Schedule::draw(seed, &Ground { nodes: 3, from, to, groups });
        let bears = |planned: &Planned| planned.fault.kind().group() == Group::Clock;
        let mut met = 0;
        for seed in 0..50 {
            let some = drawn(seed, &[Group::Clock]);
            let all = drawn(seed, Group::ALL);
            let clocks: Vec<_> = all.faults().iter().filter(|one| bears(one)).cloned().collect();
            assert_eq!(some.faults(), clocks, "leaving groups out changes nothing for the others");
            met += clocks.len();
        }
        assert!(met > 0, "no clock was ever struck");
    }

    #[test]
    fn a_schedule_is_the_seeds_and_all_of_it_ends_in_time() {
        assert_eq!(draw(1), draw(1));
        let end = Instant::ORIGIN + Duration::from_secs(35);
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..100 {
            for planned in draw(seed).faults() {
                assert!(planned.at + planned.life <= end, "{planned}");
                kinds.insert(planned.fault.kind());
            }
        }
        assert_eq!(kinds.len(), Kind::ALL.len(), "the swarm never strikes with some kinds");
    }

    #[test]
    fn every_fault_reads_what_it_prints() {
        for seed in 0..100 {
            let schedule = draw(seed);
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
    }

    #[test]
    fn a_one_way_cut_has_two_ends() {
        let mut draw = Draw { rng: Rng::stream(1, "test", 0), nodes: 3 };
        for _ in 0..100 {
            let node = draw.node();
            assert_ne!(draw.other(node), node);
            assert!(draw.side().0.len() < 3);
        }
    }
}
