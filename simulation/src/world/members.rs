//! Machines that come and go for good, and leaders that move: what an operator
//! does with `cdb start --join` and the removal of a node.

use std::time::Duration;

use cluster::{ids::NodeId, units::Instant};

use super::World;
use crate::{
    disk::Death,
    network::Address,
    node::Machine,
    orders::{Done, Order},
};

/// Machines a world grows to.
pub const MACHINES_MAX: u32 = 7;
/// How often an operator says an order again that was not carried out.
const SAID_AGAIN: Duration = Duration::from_millis(700);

/// A node that an operator is having removed.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    number: u32,
    node: NodeId,
    done: Done,
    say_at: Instant,
    /// The operator wants it no more, and does not know whether it was carried out.
    given_up: bool,
}

/// A machine that is killed and started again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loop {
    number: u32,
    every: Duration,
    pub(super) turn_at: Instant,
}

impl World {
    /// Kills and starts a machine again and again, or no longer.
    pub fn restart_loop(&mut self, number: u32, every: Duration, on: bool) {
        let turn_at = self.now;
        if on {
            self.loops.push(Loop { number, every, turn_at });
        } else {
            self.loops.retain(|turning| turning.number != number || turning.every != every);
            self.start_number(number);
        }
    }

    /// Turns every restart loop that is due.
    pub(super) fn turn_loops(&mut self) {
        for index in 0..self.loops.len() {
            let Some(turning) = self.loops.get_mut(index) else { return };
            if turning.turn_at > self.now {
                continue;
            }
            turning.turn_at = self.now + turning.every;
            let number = turning.number;
            let Some(node) = self.node(number) else { continue };
            if self.is_up(node) { self.crash(node, Death::Kill) } else { self.start_number(number) }
        }
    }

    /// Has a machine give every leadership away.
    pub fn transfer_leaders(&mut self, node: NodeId) {
        self.trace.note(self.now, &format!("{} is to give leadership away", Address::Node(node)));
        if let Some(machine) = self.machine(node) {
            machine.order(Order::GiveUpLeadership);
        }
    }

    /// Adds a machine, which joins the cluster by itself; none if there are
    /// [`MACHINES_MAX`].
    pub fn add_machine(&mut self) -> bool {
        let number = self.machines.keys().max().map_or(1, |most| most + 1);
        if number > MACHINES_MAX {
            return false;
        }
        let dials = self.draw_dials();
        let machine = Machine::new(number, self.seed, dials, self.setup.storage);
        self.trace.note(self.now, &format!("{} is added", machine.address()));
        self.machines.insert(number, machine);
        self.hosts.push(Some(number));
        self.publish_members();
        self.start_number(number);
        true
    }

    /// Has a node removed from the cluster for good.
    pub fn remove_machine(&mut self, number: u32) -> bool {
        let wanted = |machine: &&mut Machine| !machine.retired;
        let Some(machine) = self.machines.get_mut(&number).filter(wanted) else { return false };
        machine.leaving = true;
        let node = machine.node();
        self.order_removal(number, node);
        true
    }

    /// Has a node removed that a machine is or was.
    pub(super) fn order_removal(&mut self, number: u32, node: NodeId) {
        let say_at = self.now;
        self.trace.note(say_at, &format!("{} is to be removed", Address::Node(node)));
        self.removals.push(Removal {
            number,
            node,
            done: Done::default(),
            say_at,
            given_up: false,
        });
    }

    /// Gives a removal up that the cluster has not agreed to; what it has agreed to,
    /// though the answer was lost, is seen later. What a machine was before its disk was
    /// lost stays unwanted.
    pub fn end_removal(&mut self, number: u32) {
        let is = self.node(number);
        for removal in self.removals.iter_mut().filter(|removal| Some(removal.node) == is) {
            removal.given_up = true;
        }
    }

    /// Starts a machine again whose node was removed for good.
    pub fn start_removed(&mut self, number: u32) {
        if self.machines.get(&number).is_some_and(|machine| machine.retired && !machine.is_up()) {
            self.boot(number);
        }
    }

    /// Says orders again that were not carried out, and sees to those that were.
    pub(super) fn operate(&mut self) {
        for mut removal in std::mem::take(&mut self.removals) {
            if removal.done.is_set() {
                self.retire(removal.number, removal.node);
                continue;
            }
            if removal.say_at <= self.now {
                removal.say_at = self.now + SAID_AGAIN;
                self.say(&removal);
            }
            self.removals.push(removal);
        }
    }

    fn say(&mut self, removal: &Removal) {
        let (node, done) = (removal.node, removal.done.clone());
        let order =
            if removal.given_up { Order::Miss(node, done) } else { Order::Remove(node, done) };
        self.tell_any_but(removal.number, order);
    }

    /// Gives an order to a machine that runs, but not to this one.
    fn tell_any_but(&mut self, spared: u32, order: Order) {
        let others = self
            .machines
            .iter()
            .filter(|(number, machine)| **number != spared && machine.is_up() && !machine.retired);
        let others: Vec<u32> = others.map(|(number, _)| *number).collect();
        let Some(number) = self.order.pick(&others) else { return };
        if let Some(machine) = self.machines.get(number) {
            machine.order(order);
        }
    }

    /// A removed node is told so at its next start, and then left alone. Its
    /// operator tries to get it back, and must fail.
    pub(super) fn retire(&mut self, number: u32, node: NodeId) {
        self.trace.note(self.now, &format!("{} is removed", Address::Node(node)));
        self.trace.count("node removed");
        let is_it = |machine: &&mut Machine| machine.node() == node;
        if let Some(machine) = self.machines.get_mut(&number).filter(is_it) {
            machine.retired = true;
        }
        self.tell_any_but(number, Order::Readmit(node));
        self.publish_members();
    }
}
