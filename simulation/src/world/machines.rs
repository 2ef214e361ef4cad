//! Machines that start, end, stand still, and are started again.

use std::time::Duration;

use cluster::ids::NodeId;

use super::World;
use crate::{
    clock::Skew,
    disk::Death,
    life::{Ending, Trap},
    network::Address,
    node::{Machine, Pulse, Surroundings},
};

/// Wait of the process supervisor before it starts a node again: between these.
const RESTART_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

impl World {
    pub(super) fn machine(&self, node: NodeId) -> Option<&Machine> {
        self.machines.values().find(|machine| machine.node() == node)
    }

    pub(super) fn machine_mut(&mut self, node: NodeId) -> Option<&mut Machine> {
        self.machines.values_mut().find(|machine| machine.node() == node)
    }

    /// Whether a machine runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.machine(node).is_some_and(Machine::is_up)
    }

    /// Starts a machine that is down.
    pub fn start(&mut self, node: NodeId) {
        let number = self.machines.iter().find(|(_, machine)| machine.node() == node);
        if let Some(number) = number.map(|(number, _)| *number) {
            self.start_number(number);
        }
    }

    pub(super) fn start_number(&mut self, number: u32) {
        let wanted = |machine: &Machine| !machine.is_up() && !machine.retired;
        if self.machines.get(&number).is_some_and(wanted) {
            self.boot(number);
        }
    }

    pub(super) fn boot(&mut self, number: u32) {
        let nodes = self.nodes();
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let name = machine.address();
        self.trace.note(self.now, &format!("{name} starts"));
        self.trace.count("start");
        let around = Surroundings {
            cluster: self.cluster,
            nodes,
            zones: self.zones,
            overlay_bytes: self.setup.overlay_bytes,
            fabric: &self.fabric,
            quic: self.quic.as_ref(),
            traps: &self.traps,
            trace: &self.trace,
            resident: &self.resident,
        };
        match machine.start(self.now, &around) {
            Ok(()) if machine.storage.is_foreign() => {
                self.fail(format!("{name} starts with another node's disk"));
            }
            Ok(()) => {}
            Err(cause) => self.not_started(number, &cause),
        }
    }

    /// A node that cannot start says why; the supervisor tries again. Only a
    /// disk with a known fault excuses it.
    fn not_started(&mut self, number: u32, cause: &str) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let name = machine.address();
        if !machine.storage.excuses_start() {
            return self.fail(format!("{name} does not start: {cause}"));
        }
        self.trace.note(self.now, &format!("{name} does not start: {cause}"));
        self.trace.count("start refused");
        let unusable = machine.storage.is_unsound() && !machine.storage.is_foreign();
        if unusable {
            self.replace_disk(number);
        }
        self.restart_later(number);
    }

    /// Starts every machine that is down and wanted.
    pub fn start_all(&mut self) {
        for number in self.machines.keys().copied().collect::<Vec<_>>() {
            self.start_number(number);
        }
    }

    /// Ends a machine that runs, where it stands.
    pub fn crash(&mut self, node: NodeId, death: Death) {
        let (now, trace) = (self.now, self.trace.clone());
        let Some(machine) = self.machine_mut(node).filter(|machine| machine.is_up()) else {
            return;
        };
        let (what, counter) = match death {
            Death::Kill => ("is killed", "kill"),
            Death::Power => ("loses power", "power loss"),
        };
        trace.note(now, &format!("{} {what}", machine.address()));
        trace.count(counter);
        machine.die(death);
    }

    /// Ends all machines at one instant.
    pub fn crash_all(&mut self, death: Death) {
        for node in self.nodes() {
            self.crash(node, death);
        }
    }

    /// Stops a process as SIGSTOP does, or lets it go on: its clocks jump then.
    pub fn pause(&mut self, node: NodeId, on: bool) {
        self.set_pulse(node, if on { Pulse::Stopped } else { Pulse::Steady });
        let address = Address::Node(node);
        if on { self.fabric.stall(address) } else { self.fabric.unstall(address) }
    }

    /// Serves a machine only once in so many ticks; 1 is as usual.
    pub fn slow_processor(&mut self, node: NodeId, ticks: u32) {
        self.set_pulse(node, if ticks > 1 { Pulse::Slow(ticks) } else { Pulse::Steady });
    }

    fn set_pulse(&mut self, node: NodeId, pulse: Pulse) {
        let (now, trace) = (self.now, self.trace.clone());
        if let Some(machine) = self.machine_mut(node).filter(|machine| machine.is_up()) {
            trace.note(now, &format!("{} runs {pulse:?}", machine.address()));
            machine.pulse = pulse;
        }
    }

    /// Has a machine die at a place, the next time it comes there; or not.
    pub(crate) fn set_trap(&mut self, trap: Trap, laid: bool) {
        if laid { self.traps.lay(trap) } else { self.traps.lift(trap) }
    }

    /// Sees to a boot that ended by itself, as a process supervisor and an
    /// operator do.
    pub(super) fn supervise(&mut self, number: u32) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let Some(ending) = machine.life().and_then(crate::life::Life::ending) else { return };
        let name = machine.address();
        machine.die(Death::Kill);
        self.trace.note(self.now, &format!("{name} ended by itself: {ending:?}"));
        self.trace.count("ended by itself");
        match ending {
            Ending::FailPoint(point, _) => self.trace.count(format!("failpoint {point}")),
            Ending::Fenced(cause) => {
                self.trace.count("fenced disk");
                if !machine.storage.excuses_fence() {
                    self.fail(format!("{name} fenced a sound disk: {cause}"));
                }
            }
            Ending::NotStarted(cause) => return self.not_started(number, &cause),
            Ending::OldImage(_) => {
                self.trace.count("old image found");
                machine.runs_old_image = false;
                if !machine.storage.is_unsound() {
                    self.fail(format!("{name} took a sound disk for an old image"));
                }
            }
            Ending::Refused(cause) => return self.refused(number, &cause),
            // Whether that may be is the checkers' affair.
            Ending::Itself(_) => {}
        }
        self.restart_later(number);
    }

    /// The cluster refused a node, which it does only after its removal.
    fn refused(&mut self, number: u32, cause: &str) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let name = machine.address();
        if machine.retired {
            return self.trace.count("removed node refused");
        }
        if machine.leaving {
            let node = machine.node();
            return self.retire(number, node);
        }
        self.fail(format!("{name} was refused: {cause}"));
    }

    pub(super) fn restart_later(&mut self, number: u32) {
        let wait = self.order.between(RESTART_WAIT.0, RESTART_WAIT.1);
        let now = self.now;
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.restart_at = Some(now + wait);
        }
    }

    /// Starts again what waited for it.
    pub(super) fn restart_due(&mut self) {
        let now = self.now;
        let waits = |machine: &&Machine| machine.restart_at.is_some_and(|at| at <= now);
        let due: Vec<_> =
            self.machines.iter().filter(|(_, m)| waits(m)).map(|(number, _)| *number).collect();
        for number in due {
            if let Some(machine) = self.machines.get_mut(&number) {
                machine.restart_at = None;
            }
            self.start_number(number);
        }
    }

    /// Turns a machine's clocks.
    pub(crate) fn turn_clock(&mut self, node: NodeId, turn: impl FnOnce(&crate::clock::Dials)) {
        let now = self.now;
        if let Some(machine) = self.machine_mut(node) {
            turn(machine.dials());
            machine.rate_changed(now);
        }
    }

    /// A machine's clocks at its birth.
    pub(super) fn draw_skew(setup: &super::Setup, rng: &mut crate::rng::Rng) -> Skew {
        let mut within = |max: u32| {
            let drawn = i64::try_from(rng.below(2 * u64::from(max) + 1)).unwrap_or(0);
            drawn - i64::from(max)
        };
        Skew {
            rate_ppm: i32::try_from(within(setup.rate_ppm_max)).unwrap_or(0),
            offset_ms: within(setup.offset_ms_max),
        }
    }
}
