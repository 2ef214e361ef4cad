//! What goes wrong, and when: a schedule drawn from the seed.
//!
//! Swarm: each seed switches on a random subset of the kinds at random rates,
//! so that some seeds meet only power cuts and others everything at once.
//! Every fault ends by itself; after the schedule's end the world is whole.
//! Source: Groce et al., "Swarm Testing", ISSTA 2012.

mod schedule;

use std::fmt;

pub use schedule::{Kind, Schedule};

use crate::{disk::Death, network::Weather, world::World};

/// One thing that happens to the world. Machines are named by number, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A machine ends where it stands.
    Crash(u32, Death),
    /// All machines end at one instant.
    CrashAll(Death),
    /// A machine that is down starts.
    Start(u32),
    /// All machines that are down start.
    StartAll,
    /// Nothing passes between one machine and the others.
    Isolate(u32),
    /// Nothing passes from one machine to another; the way back is open.
    OneWay(u32, u32),
    /// Every way is open again.
    Heal,
    /// The network changes.
    Weather(Weather),
    /// A disk is so many times slower than usual.
    SlowDisk(u32, u32),
}

impl Fault {
    /// Lets it happen.
    pub fn strike(&self, world: &mut World) {
        let nodes = world.nodes();
        let of = |number: &u32| {
            let index = usize::try_from(*number).unwrap_or(0);
            nodes.get(index.wrapping_sub(1)).copied().into_iter()
        };
        match self {
            Self::Crash(node, death) => of(node).for_each(|node| world.crash(node, *death)),
            Self::CrashAll(death) => world.crash_all(*death),
            Self::Start(node) => of(node).for_each(|node| world.start(node)),
            Self::StartAll => world.start_all(),
            Self::Isolate(node) => {
                let alone: Vec<_> = of(node).collect();
                let others: Vec<_> =
                    nodes.iter().copied().filter(|node| !alone.contains(node)).collect();
                world.partition(&alone, &others, false);
            }
            Self::OneWay(from, to) => {
                let (from, to): (Vec<_>, Vec<_>) = (of(from).collect(), of(to).collect());
                world.partition(&from, &to, true);
            }
            Self::Heal => world.heal(),
            Self::Weather(weather) => world.set_weather(*weather),
            Self::SlowDisk(node, factor) => {
                of(node).for_each(|node| world.slow_disk(node, *factor));
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
