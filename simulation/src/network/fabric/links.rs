//! Connections between hosts: who dials whom, when one comes up or is lost, and who is
//! told.

use cluster::{ids::NodeId, ports::network::RequestError};

use super::{
    super::{
        Address,
        link::{Boots, Change, Link},
        slots::Slot,
    },
    State, pair,
    traffic::{Body, Parcel},
};

impl State {
    pub(super) fn learn(&mut self, from: (Slot, u64), node: NodeId) {
        if self.slots.node(from.0).is_none_or(|me| me == node) {
            return;
        }
        let peer = self.slots.of(Address::Node(node));
        if self.slots.boot(from.0) == from.1 && self.known.insert((from.0, peer)) {
            let ends = pair(from.0, peer);
            let link = Link::fresh(self.now, &mut self.rng);
            self.links.entry(ends).or_insert(link);
            self.links_stirred = true;
        }
    }

    /// A healthy link stays as it is until something happens to it, so this is
    /// needed only then, and when a link's own time has come.
    pub(super) fn check_links(&mut self) {
        self.links_stirred = false;
        let pairs: Vec<_> = self.links.keys().copied().collect();
        for ends in pairs {
            let wanted = match (self.slots.node(ends.0), self.slots.node(ends.1)) {
                (Some(_), Some(_)) => self.knows_either(ends),
                // A client dials when it asks, never by itself.
                (None, _) | (_, None) => {
                    self.links.get(&ends).is_some_and(|link| link.connection().is_some())
                }
            };
            if wanted {
                self.check_link(ends);
            } else {
                self.close(ends);
            }
        }
        self.links_due = self.links.values().filter_map(Link::due).min();
    }

    /// Whether one of two nodes knows where the other is.
    pub(super) fn knows_either(&self, (a, b): (Slot, Slot)) -> bool {
        self.known.contains(&(a, b)) || self.known.contains(&(b, a))
    }

    pub(super) fn check_link(&mut self, ends: (Slot, Slot)) {
        let boots = (self.slots.boot(ends.0), self.slots.boot(ends.1));
        let fresh = self.links.get(&ends).is_some_and(|link| link.connection().is_none());
        let open = self.open(ends) && !(fresh && self.deaf(ends));
        let Some(link) = self.links.get_mut(&ends) else { return };
        match link.check(self.now, boots, open, &mut self.connections, &mut self.rng) {
            Change::None => {}
            Change::Rose => self.tell(ends, boots, true),
            Change::Fell { connection, boots } => self.lose(ends, connection, boots),
        }
    }

    fn open(&self, (low, high): (Slot, Slot)) -> bool {
        let cut = self.cuts.contains_key(&(low, high)) || self.cuts.contains_key(&(high, low));
        !cut && !self.stalled.contains(&low) && !self.stalled.contains(&high)
    }

    pub(super) fn deaf(&self, ends: (Slot, Slot)) -> bool {
        self.deaf.contains(&ends.0) || self.deaf.contains(&ends.1)
    }

    pub(super) fn reset(&mut self, host: Slot) {
        self.links_stirred = true;
        let touches = |ends: &&(Slot, Slot)| ends.0 == host || ends.1 == host;
        let pairs: Vec<_> = self.links.keys().filter(touches).copied().collect();
        for ends in pairs {
            let (now, rng) = (self.now, &mut self.rng);
            let lost = self.links.get_mut(&ends).and_then(|link| link.reset(now, rng));
            if let Some((connection, boots)) = lost {
                self.trace.count("connection reset");
                self.lose(ends, connection, boots);
            }
        }
    }

    fn close(&mut self, ends: (Slot, Slot)) {
        if let Some(Link::Up { connection, boots, .. }) = self.links.remove(&ends) {
            self.lose(ends, connection, boots);
        }
    }

    /// Tells both ends, as far as these boots live.
    fn tell(&mut self, ends: (Slot, Slot), boots: Boots, up: bool) {
        let hosts = (self.slots.host(ends.0), self.slots.host(ends.1));
        for (to, boot, peer) in [(ends.0, boots.0, hosts.1), (ends.1, boots.1, hosts.0)] {
            let (Some(peer), Some(_)) = (peer.node(), self.slots.node(to)) else { continue };
            if self.slots.boot(to) == boot {
                let body = Body::Notice { peer, up };
                let parcel = Parcel { from: to, to, connection: None, boot, body };
                self.enqueue(self.now, parcel);
            }
        }
        if hosts.0.node().is_some() && hosts.1.node().is_some() {
            let line = if up { "link up" } else { "link lost" };
            self.trace.note(self.now, &format!("{line} {} {}", hosts.0, hosts.1));
            self.trace.count(if up { "link up" } else { "link lost" });
        }
    }

    fn lose(&mut self, ends: (Slot, Slot), connection: u64, boots: Boots) {
        self.tell(ends, boots, false);
        for direction in [ends, (ends.1, ends.0)] {
            self.lanes.remove(&direction);
        }
        let lost: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.connection == Some(connection))
            .map(|(ticket, pending)| (*ticket, pending.caller, pending.to))
            .collect();
        for (ticket, caller, node) in lost {
            let cause = "the connection was given up".to_owned();
            self.fail(self.now, ticket, caller, RequestError::Lost { node, cause });
        }
    }
}
