//! What each fault does to the world, and how it ends.

use cluster::ids::NodeId;

use super::Fault;
use crate::{disk::Death, network::Weather, world::World};

impl Fault {
    /// Lets it begin; whether it did, and so must end.
    pub fn begin(&self, world: &mut World) -> bool {
        world.trace().count(self.kind().counter());
        self.set(world, true);
        true
    }

    /// Lets it end.
    pub fn end(&self, world: &mut World) {
        self.set(world, false);
    }

    fn set(&self, world: &mut World, on: bool) {
        let calm = Weather::NONE;
        match self {
            Self::Kill { node } => at(world, *node, |world, node| {
                if on { world.crash(node, Death::Kill) } else { world.start(node) }
            }),
            Self::PowerLoss { node } => at(world, *node, |world, node| {
                if on { world.crash(node, Death::Power) } else { world.start(node) }
            }),
            Self::CrashAll { death } if on => world.crash_all(*death),
            Self::CrashAll { .. } => world.start_all(),
            Self::Isolate { node } => split(world, &[*node], on),
            Self::Cut { side } => split(world, &side.0, on),
            Self::OneWayCut { from, to } => {
                let (from, to) = (named(world, &[*from]), named(world, &[*to]));
                if on { world.partition(&from, &to, true) } else { world.reunite(&from, &to, true) }
            }
            Self::Delay { most } => {
                let (latency_min, latency_max) = (most.span() / 4, most.span());
                world.change_weather(Weather { latency_min, latency_max, ..calm }, on);
            }
            Self::Jitter { ppm, most } => {
                let (spike_ppm, spike_max) = (*ppm, most.span());
                world.change_weather(Weather { spike_ppm, spike_max, ..calm }, on);
            }
            Self::Reorder { ppm } => {
                world.change_weather(Weather { reorder_ppm: *ppm, ..calm }, on);
            }
            Self::Drop { ppm } => world.change_weather(Weather { drop_ppm: *ppm, ..calm }, on),
            Self::Duplicate { ppm } => {
                world.change_weather(Weather { duplicate_ppm: *ppm, ..calm }, on);
            }
            Self::SlowDisk { node, factor } => {
                let factor = if on { *factor } else { 1 };
                at(world, *node, |world, node| world.slow_disk(node, factor));
            }
            Self::SlowSyncs { node, factor } => {
                let factor = if on { *factor } else { 1 };
                at(world, *node, |world, node| world.slow_syncs(node, factor));
            }
            Self::Bounce { node } if on => at(world, *node, |world, node| {
                if world.is_up(node) {
                    world.crash(node, Death::Kill);
                    world.start(node);
                }
            }),
            Self::Bounce { .. } => {}
            Self::PacketFlip { ppm } => {
                world.change_weather(Weather { flip_ppm: *ppm, ..calm }, on);
            }
            Self::PacketReplay { ppm } => {
                world.change_weather(Weather { replay_ppm: *ppm, ..calm }, on);
            }
            Self::HandshakeStall { ppm } => {
                world.change_weather(Weather { stall_ppm: *ppm, ..calm }, on);
            }
            Self::FullDisk { node } => at(world, *node, |world, node| world.fill_disk(node, on)),
        }
    }
}

/// Does something to a machine, if there is one of that number.
fn at(world: &mut World, number: u32, act: impl FnOnce(&mut World, NodeId)) {
    if let Some(node) = world.node(number) {
        act(world, node);
    }
}

/// The ids of machines.
fn named(world: &World, numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().filter_map(|number| world.node(*number)).collect()
}

/// Cuts some machines off from the others, or lets them meet again.
fn split(world: &mut World, side: &[u32], on: bool) {
    let side = named(world, side);
    let others: Vec<_> = world.nodes().into_iter().filter(|node| !side.contains(node)).collect();
    if on { world.partition(&side, &others, false) } else { world.reunite(&side, &others, false) }
}
