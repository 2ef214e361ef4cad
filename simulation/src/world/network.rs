//! Cuts, clogs, resets and weather between the machines of a world.

use cluster::ids::NodeId;

use super::World;
use crate::network::{Address, Weather};

impl World {
    /// Cuts every way between two groups, or only from the first to the second.
    pub fn partition(&mut self, from: &[NodeId], to: &[NodeId], one_way: bool) {
        for (a, b) in ways(from, to, one_way) {
            self.fabric.cut(a, b);
        }
        let arrow = if one_way { "->" } else { "|" };
        self.trace.note(self.now, &format!("cut {} {arrow} {}", names(from), names(to)));
        self.trace.count(if one_way { "one-way cut" } else { "cut" });
    }

    /// Takes such a cut back; others on the same ways stay.
    pub fn reunite(&mut self, from: &[NodeId], to: &[NodeId], one_way: bool) {
        for (a, b) in ways(from, to, one_way) {
            self.fabric.mend(a, b);
        }
        self.trace.note(self.now, &format!("cut of {} and {} mended", names(from), names(to)));
    }

    /// Lets parcels queue up on the ways between two groups, or flow again.
    pub fn clog(&mut self, from: &[NodeId], to: &[NodeId], one_way: bool, on: bool) {
        for (a, b) in ways(from, to, one_way) {
            if on { self.fabric.clog(a, b) } else { self.fabric.unclog(a, b) }
        }
        let what = if on { "clog" } else { "unclog" };
        self.trace.note(self.now, &format!("{what} {} {}", names(from), names(to)));
    }

    /// Breaks all connections of a machine at once; both ends are told.
    pub fn reset(&mut self, node: NodeId) {
        self.trace.note(self.now, &format!("{} connections reset", Address::Node(node)));
        self.fabric.reset(Address::Node(node));
    }

    /// Lets no connection of a machine come up, or again.
    pub fn deafen(&mut self, node: NodeId, on: bool) {
        self.trace.note(self.now, &format!("{} handshakes stall: {on}", Address::Node(node)));
        self.fabric.deafen(Address::Node(node), on);
    }

    /// Ways between machines on which nothing passes, by number.
    pub fn cut_ways(&self) -> Vec<(u32, u32)> {
        let numbers = self.numbers();
        let address = |number: u32| self.node(number).map(Address::Node);
        let is_cut = |(from, to): &(u32, u32)| {
            let ends = address(*from).zip(address(*to));
            from != to && ends.is_some_and(|(from, to)| self.fabric.is_cut(from, to))
        };
        let ways = numbers.iter().flat_map(|from| numbers.iter().map(move |to| (*from, *to)));
        ways.filter(is_cut).collect()
    }

    /// Opens every cut.
    pub fn heal(&mut self) {
        self.trace.note(self.now, "cuts healed");
        self.fabric.heal();
    }

    /// Makes the weather worse, or takes that back. The worst of all changes
    /// under way counts.
    pub fn change_weather(&mut self, worse: Weather, on: bool) {
        if on {
            self.changes.push(worse);
        } else if let Some(index) = self.changes.iter().position(|change| *change == worse) {
            self.changes.remove(index);
        }
        let weather = self.changes.iter().fold(self.usual, |sum, change| sum.worst(*change));
        self.trace.note(self.now, &format!("weather {weather:?}"));
        self.trace.count("change of weather");
        self.fabric.set_weather(weather);
    }
}

/// The ways between two groups.
fn ways(from: &[NodeId], to: &[NodeId], one_way: bool) -> Vec<(Address, Address)> {
    let mut ways = Vec::new();
    for a in from.iter().map(|node| Address::Node(*node)) {
        for b in to.iter().map(|node| Address::Node(*node)) {
            ways.push((a, b));
            if !one_way {
                ways.push((b, a));
            }
        }
    }
    ways
}

fn names(nodes: &[NodeId]) -> String {
    let mut names: Vec<_> = nodes.iter().map(|node| Address::Node(*node).to_string()).collect();
    names.sort();
    names.join(",")
}
