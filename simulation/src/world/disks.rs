//! Faults of disks, and the rule for those that destroy data.
//!
//! The rule: **at most one machine's disk of a run is ever destroyed**, in
//! whatever way and however often, and the removal of a node counts as its
//! destruction. Volumes have three replicas on three machines, so every shard
//! keeps two sound copies, and what a majority acknowledged is on one of them.
//! A machine that came back as a stranger is spared from then on: the node it
//! was still counts as a voter somewhere, and it would lose a second one. So is
//! one whose bytes are another's at the moment. What is spared is counted.

use cluster::{ids::NodeId, membership::Boot};

use super::World;
use crate::{
    disk::{Death, Storage},
    network::Address,
    node::Machine,
    rng::Rng,
};

/// What is done to the bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rot {
    /// A bit of the log flips.
    Log,
    /// A store cannot be read any more.
    Store,
    /// A bit of the copy of the catalog flips.
    Copy,
    /// A write meant for elsewhere lands in the log.
    Misdirected,
    /// A file of the log ends too early.
    Truncated,
    /// The next read of the log brings a flipped bit.
    OnRead,
}

impl World {
    /// The disk of a machine.
    pub fn storage(&self, node: NodeId) -> Option<&Storage> {
        self.machine(node).map(|machine| &machine.storage)
    }

    /// Makes a machine's disk `factor` times as slow as usual.
    pub fn slow_disk(&mut self, node: NodeId, factor: u32) {
        self.trace.note(self.now, &format!("{} disk at 1/{factor} speed", Address::Node(node)));
        if factor > 1 {
            self.trace.count("slow disk");
        }
        if let Some(storage) = self.storage(node) {
            storage.pace.set(factor);
            storage.syncs.set(factor);
        }
    }

    /// Makes only the syncs of a machine's log slow.
    pub fn slow_syncs(&mut self, node: NodeId, factor: u32) {
        self.trace.note(self.now, &format!("{} syncs at 1/{factor} speed", Address::Node(node)));
        if let Some(storage) = self.storage(node) {
            storage.syncs.set(factor);
        }
    }

    /// Lets nothing that was asked of a disk come to its end, or again.
    pub fn stall_disk(&mut self, node: NodeId, on: bool) {
        self.trace.note(self.now, &format!("{} disk stalls: {on}", Address::Node(node)));
        if let Some(storage) = self.storage(node) {
            storage.pace.stall(on);
            storage.syncs.stall(on);
        }
    }

    /// Takes all room of a machine's disk, or gives it back.
    pub fn fill_disk(&mut self, node: NodeId, full: bool) {
        let what = if full { "is full" } else { "has room" };
        self.trace.note(self.now, &format!("{} disk {what}", Address::Node(node)));
        if let Some(storage) = self.storage(node) {
            storage.fill(full);
        }
    }

    /// Does something to a disk that its device reports as an error.
    pub(crate) fn trouble_disk(&mut self, node: NodeId, what: &str, act: impl FnOnce(&Storage)) {
        self.trace.note(self.now, &format!("{} disk: {what}", Address::Node(node)));
        if let Some(storage) = self.storage(node) {
            act(storage);
        }
    }

    /// Whether this machine's disk may be destroyed by the rule above; if so,
    /// it is the one.
    pub(crate) fn may_destroy(&mut self, number: u32) -> bool {
        let at_home = |machine: &Machine| !machine.storage.is_foreign() && !machine.is_stranger();
        let allowed = self.destroyed.is_none_or(|destroyed| destroyed == number)
            && self.machines.get(&number).is_some_and(at_home);
        if allowed {
            self.destroyed = Some(number);
        } else {
            self.trace.count("destruction spared");
        }
        allowed
    }

    /// Lets bytes rot, by draw; whether there were any.
    pub(crate) fn rot(&mut self, node: NodeId, rot: Rot, draw: u64) -> bool {
        let now = self.now;
        // Who forgets the newer start would believe the old disk.
        if rot == Rot::Copy && self.machines.values().any(|machine| machine.runs_old_image) {
            self.trace.count("rot spared");
            return false;
        }
        let Some(machine) = self.machine_mut(node) else { return false };
        let mut rng = Rng::stream(draw, "rot", 0);
        let storage = &machine.storage;
        let what = match rot {
            Rot::Log => storage.flip_log_bit(&mut rng),
            Rot::Store => storage.damage_store(&mut rng),
            Rot::Copy => storage.flip_copy_bit(&mut rng),
            Rot::Misdirected => storage.misdirect_write(&mut rng),
            Rot::Truncated => storage.truncate_log(&mut rng),
            Rot::OnRead => {
                storage.log.flip_next_read(draw);
                Some("the next read of the log".to_owned())
            }
        };
        let Some(what) = what else { return false };
        if rot != Rot::Copy {
            storage.make_unsound();
        }
        self.trace.note(now, &format!("{} {rot:?}: {what}", Address::Node(node)));
        true
    }

    /// Keeps a copy of a machine's disk, and starts it again so that others
    /// see a newer start than the copy's.
    pub(crate) fn take_image(&mut self, node: NodeId) -> bool {
        let now = self.now;
        let Some(machine) = self.machine_mut(node).filter(|machine| machine.is_up()) else {
            return false;
        };
        let shown = machine.shown_boot();
        let Some(image) = machine.copy_disk() else { return false };
        machine.image = Some((shown, image));
        self.trace.note(now, &format!("{} is copied and started again", Address::Node(node)));
        self.start(node);
        true
    }

    /// Puts the old copy back, if every other machine knows of the newer start,
    /// so that no power cut takes it from it. Were there one that does not, it
    /// and the old disk could be a majority of three: two disks that forgot,
    /// where one may. Nor if the newer start is of the same line as the copied
    /// one: the two cannot be told apart (`node/docs/damage.md`).
    pub(crate) fn restore_image(&mut self, node: NodeId) {
        let (now, trace) = (self.now, self.trace.clone());
        let known = self.is_start_known(node);
        let Some(machine) = self.machine_mut(node) else { return };
        let Some((copied, image)) = machine.image.take() else { return };
        let line = |boot: Option<Boot>| boot.map(|boot| boot.nonce);
        let same_line = line(copied) == line(machine.shown_boot());
        if !known || same_line || machine.storage.is_foreign() {
            return trace.count("old image spared");
        }
        trace.note(now, &format!("{} gets its old disk image back", Address::Node(node)));
        trace.count("old image restored");
        machine.die(Death::Kill);
        machine.storage = image;
        machine.storage.make_unsound();
        machine.runs_old_image = true;
        self.start(node);
    }

    /// Whether all others know durably of the start a node runs with.
    fn is_start_known(&self, node: NodeId) -> bool {
        let Some(boot) = self.machine(node).and_then(Machine::shown_boot) else { return false };
        let others = self.machines.values().filter(|other| other.node() != node && !other.retired);
        others.into_iter().all(|other| other.storage.knows_start(node, boot))
    }

    /// Takes a machine's disk away: it comes back as a stranger, at the same
    /// address.
    pub(crate) fn wipe(&mut self, node: NodeId) {
        let number = self.machines.iter().find(|(_, machine)| machine.node() == node);
        let Some(number) = number.map(|(number, _)| *number) else { return };
        self.trace.note(self.now, &format!("{} loses its disk", Address::Node(node)));
        self.replace_disk(number);
    }

    /// What an operator does with a disk that is of no use any more: an empty
    /// one, with which the machine joins as another node, and the removal of
    /// the node it was.
    pub(super) fn replace_disk(&mut self, number: u32) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let before = machine.address();
        let lost = machine.node();
        machine.die(Death::Kill);
        machine.become_stranger();
        self.trace.note(self.now, &format!("{before} is {} from now on", machine.address()));
        self.order_removal(number, lost);
        self.trace.count("stranger");
        self.publish_members();
    }

    /// Takes log and stores away; the machine comes back as the node it was.
    pub(crate) fn empty_disk(&mut self, node: NodeId) -> bool {
        let now = self.now;
        let Some(machine) = self.machine_mut(node) else { return false };
        if !machine.storage.has_log() || machine.retired {
            return false;
        }
        machine.die(Death::Kill);
        machine.storage.empty();
        self.trace.note(now, &format!("{} loses its log and stores", Address::Node(node)));
        true
    }

    /// Swaps the disks of two machines, but for the small files that say who
    /// they are, and starts both; or puts them back.
    pub(crate) fn swap_disks(&mut self, a: u32, b: u32, on: bool) -> bool {
        let (Some(mut first), Some(mut second)) =
            (self.machines.remove(&a), self.machines.remove(&b))
        else {
            return false;
        };
        let whole = |machine: &Machine| {
            let disk = &machine.storage;
            // They are put back whatever became of a machine: the other needs its own.
            disk.is_foreign() != on && (!on || disk.has_log() && !machine.retired)
        };
        let possible = whole(&first) && whole(&second);
        if possible {
            self.trace.note(self.now, &format!("disks of machines {a} and {b} are swapped"));
            first.die(Death::Kill);
            second.die(Death::Kill);
            first.storage.swap(&mut second.storage, on);
        }
        self.machines.insert(a, first);
        self.machines.insert(b, second);
        if possible {
            self.start_number(a);
            self.start_number(b);
        }
        possible
    }
}
