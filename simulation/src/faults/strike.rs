//! What each fault does to the world, and how it ends.

use cluster::ids::NodeId;

use super::Fault;
use crate::{
    clock::Strobe,
    disk::Death,
    life::Trap,
    network::Weather,
    world::{Rot, World},
};

impl Fault {
    /// Lets it begin; whether it did, and so must end.
    pub fn begin(&self, world: &mut World) -> bool {
        let allowed = self.destroys().is_none_or(|machine| world.may_destroy(machine));
        let begun = allowed && self.set(world, true);
        if begun {
            world.trace().count(self.kind().counter());
        }
        begun
    }

    /// Lets it end.
    pub fn end(&self, world: &mut World) {
        self.set(world, false);
    }

    /// The machine whose data it takes away, if it does.
    fn destroys(&self) -> Option<u32> {
        if let Self::FlipOnRead { node, .. }
        | Self::ReadError { node }
        | Self::CommitError { node }
        | Self::EmptiedDisk { node }
        | Self::RotLog { node, .. }
        | Self::RotStore { node, .. }
        | Self::Misdirected { node, .. }
        | Self::Truncated { node, .. }
        | Self::OldImage { node }
        | Self::WipedDisk { node }
        | Self::RemoveNode { node }
        | Self::ReplaceNode { node } = self
        {
            return Some(*node);
        }
        None
    }

    /// Begins or ends it; whether it could. Each group of kinds knows its own.
    fn set(&self, world: &mut World, on: bool) -> bool {
        let groups = [set_process, set_network, set_weather, set_clock, set_disk, set_bytes];
        let known = groups.iter().find_map(|set| set(self, world, on));
        known.or_else(|| set_members(self, world, on)).unwrap_or(false)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other groups know the other kinds")]
fn set_process(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    Some(match fault {
        Fault::Kill { node } => at(world, *node, |world, node| {
            crash(world, node, Death::Kill, on);
        }),
        Fault::PowerLoss { node } => at(world, *node, |world, node| {
            crash(world, node, Death::Power, on);
        }),
        Fault::CrashAll { death } => {
            if on {
                world.crash_all(*death);
            } else {
                world.start_all();
            }
            true
        }
        Fault::Pause { node } => at(world, *node, |world, node| world.pause(node, on)),
        Fault::SlowProcessor { node, ticks } => {
            let ticks = if on { *ticks } else { 1 };
            at(world, *node, |world, node| world.slow_processor(node, ticks))
        }
        Fault::RestartLoop { node, every } => {
            world.restart_loop(*node, every.span(), on);
            true
        }
        Fault::Bounce { node } => !on || at(world, *node, bounce),
        Fault::FailPoint { node, point, death } => {
            world.set_trap(Trap { machine: *node, point: *point, death: *death }, on);
            true
        }
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other groups know the other kinds")]
fn set_network(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    match fault {
        Fault::Isolate { node } => split(world, &[*node], on),
        Fault::Cut { side } => split(world, &side.0, on),
        Fault::OneWayCut { from, to } => {
            let (from, to) = (named(world, &[*from]), named(world, &[*to]));
            if on { world.partition(&from, &to, true) } else { world.reunite(&from, &to, true) }
        }
        Fault::Clog { from, to } => {
            let (from, to) = (named(world, &[*from]), named(world, &[*to]));
            world.clog(&from, &to, true, on);
        }
        Fault::Swizzle { node } => {
            let (side, others) = sides(world, &[*node]);
            world.clog(&side, &others, false, on);
        }
        Fault::Reset { node } if on => return Some(at(world, *node, World::reset)),
        Fault::Reset { .. } => {}
        Fault::Deaf { node } => {
            return Some(at(world, *node, |world, node| world.deafen(node, on)));
        }
        _ => return None,
    }
    Some(true)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other groups know the other kinds")]
fn set_weather(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    let calm = Weather::NONE;
    let worse = match fault {
        Fault::Delay { most } => {
            Weather { latency_min: most.span() / 4, latency_max: most.span(), ..calm }
        }
        Fault::Jitter { ppm, most } => Weather { spike_ppm: *ppm, spike_max: most.span(), ..calm },
        Fault::Reorder { ppm } => Weather { reorder_ppm: *ppm, ..calm },
        Fault::Drop { ppm } => Weather { drop_ppm: *ppm, ..calm },
        Fault::Duplicate { ppm } => Weather { duplicate_ppm: *ppm, ..calm },
        Fault::Replay { ppm } => Weather { replay_ppm: *ppm, ..calm },
        Fault::PacketFlip { ppm } => Weather { packet_flip_ppm: *ppm, ..calm },
        Fault::PacketReplay { ppm } => Weather { packet_replay_ppm: *ppm, ..calm },
        Fault::HandshakeStall { ppm } => Weather { packet_stall_ppm: *ppm, ..calm },
        _ => return None,
    };
    world.change_weather(worse, on);
    Some(true)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other groups know the other kinds")]
fn set_clock(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    let now = world.now();
    Some(match fault {
        Fault::WallJump { node, by_ms } => {
            let by_ms = i64::from(if on { *by_ms } else { -*by_ms });
            at(world, *node, |world, node| world.turn_clock(node, |dials| dials.jump(by_ms)))
        }
        Fault::Drift { node, ppm } => {
            let ppm = if on { *ppm } else { -*ppm };
            at(world, *node, |world, node| world.turn_clock(node, |dials| dials.drift(ppm)))
        }
        Fault::WallFreeze { node } => {
            let frozen = on.then_some(now);
            at(world, *node, |world, node| world.turn_clock(node, |dials| dials.freeze(frozen)))
        }
        Fault::Strobe { node, by_ms, every } => {
            let strobe = on.then(|| Strobe { by_ms: i64::from(*by_ms), every: every.span() });
            at(world, *node, |world, node| world.turn_clock(node, |dials| dials.strobe(strobe)))
        }
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other groups know the other kinds")]
fn set_disk(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    Some(match fault {
        Fault::SlowDisk { node, factor } => {
            let factor = if on { *factor } else { 1 };
            at(world, *node, |world, node| world.slow_disk(node, factor))
        }
        Fault::SlowSyncs { node, factor } => {
            let factor = if on { *factor } else { 1 };
            at(world, *node, |world, node| world.slow_syncs(node, factor))
        }
        Fault::FullDisk { node } => at(world, *node, |world, node| world.fill_disk(node, on)),
        Fault::StalledDisk { node } => at(world, *node, |world, node| world.stall_disk(node, on)),
        Fault::ReadError { node } => at(world, *node, |world, node| {
            world.trouble_disk(node, "read errors", |disk| disk.fail_reads(on));
        }),
        Fault::WriteError { node } => at(world, *node, |world, node| {
            world.trouble_disk(node, "write errors", |disk| disk.fail_writes(on));
        }),
        Fault::SyncError { node } if on => at(world, *node, |world, node| {
            world.trouble_disk(node, "a sync fails", |disk| disk.log.fail_sync(1));
        }),
        Fault::CommitError { node } if on => at(world, *node, |world, node| {
            world.trouble_disk(node, "a commit fails", |disk| {
                disk.engine.fail_commit(1);
                disk.note_loss();
            });
        }),
        Fault::SyncError { .. } | Fault::CommitError { .. } => true,
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other groups know the other kinds")]
fn set_bytes(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    let (node, rot, draw) = match fault {
        Fault::FlipOnRead { node, draw } => (node, Rot::OnRead, draw),
        Fault::RotLog { node, draw } => (node, Rot::Log, draw),
        Fault::RotStore { node, draw } => (node, Rot::Store, draw),
        Fault::RotCopy { node, draw } => (node, Rot::Copy, draw),
        Fault::Misdirected { node, draw } => (node, Rot::Misdirected, draw),
        Fault::Truncated { node, draw } => (node, Rot::Truncated, draw),
        Fault::OldImage { node } => {
            let node = world.node(*node)?;
            if on {
                return Some(world.take_image(node));
            }
            world.restore_image(node);
            return Some(true);
        }
        Fault::WipedDisk { node } => {
            let of = |act: fn(&mut World, NodeId), world: &mut World| at(world, *node, act);
            return Some(if on { of(World::wipe, world) } else { of(World::start, world) });
        }
        Fault::EmptiedDisk { node } => {
            let node = world.node(*node)?;
            return Some(if on { world.empty_disk(node) } else { start(world, node) });
        }
        Fault::SwappedDisks { a, b } => return Some(world.swap_disks(*a, *b, on)),
        _ => return None,
    };
    // What rotted stays so: there is nothing to end.
    Some(!on || world.node(*node).is_some_and(|node| world.rot(node, rot, u64::from(*draw))))
}

fn set_members(fault: &Fault, world: &mut World, on: bool) -> Option<bool> {
    Some(match (fault, on) {
        (Fault::TransferLeaders { node }, true) => at(world, *node, World::transfer_leaders),
        (Fault::AddNode {}, true) => world.add_machine(),
        (Fault::RemoveNode { node }, true) => world.remove_machine(*node),
        (Fault::ReplaceNode { node }, true) => world.add_machine() && world.remove_machine(*node),
        (Fault::RemoveNode { node } | Fault::ReplaceNode { node }, false) => {
            world.end_removal(*node);
            true
        }
        (Fault::TransferLeaders { .. } | Fault::AddNode {}, false) => true,
        _ => return None,
    })
}

/// Ends a machine, or starts it again.
fn crash(world: &mut World, node: NodeId, death: Death, on: bool) {
    if on { world.crash(node, death) } else { world.start(node) }
}

/// Starts a machine; it is there.
fn start(world: &mut World, node: NodeId) -> bool {
    world.start(node);
    true
}

/// Ends a machine that runs, and starts it at once.
fn bounce(world: &mut World, node: NodeId) {
    if world.is_up(node) {
        world.crash(node, Death::Kill);
        world.start(node);
    }
}

/// Does something to a machine, if there is one of that number.
fn at(world: &mut World, number: u32, act: impl FnOnce(&mut World, NodeId)) -> bool {
    let node = world.node(number);
    if let Some(node) = node {
        act(world, node);
    }
    node.is_some()
}

/// The ids of machines.
fn named(world: &World, numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().filter_map(|number| world.node(*number)).collect()
}

/// Some machines, and the others.
fn sides(world: &World, numbers: &[u32]) -> (Vec<NodeId>, Vec<NodeId>) {
    let side = named(world, numbers);
    let others = world.nodes().into_iter().filter(|node| !side.contains(node)).collect();
    (side, others)
}

/// Cuts some machines off from the others, or lets them meet again.
fn split(world: &mut World, side: &[u32], on: bool) {
    let (side, others) = sides(world, side);
    if on { world.partition(&side, &others, false) } else { world.reunite(&side, &others, false) }
}
