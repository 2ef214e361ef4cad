//! Who is alive: foca's SWIM as one of our cores.
//!
//! Every node probes another now and then; one that answers neither directly
//! nor by way of others is suspected, and declared down unless it objects. A
//! node that learns it was declared down comes back under a renewed identity.
//! Beside that, each node announces itself again and again to members it does
//! not see: that joins it at the start, after a partition and after a lost
//! first datagram alike.
//!
//! Liveness is a hint. It steers placement and connections and decides
//! nothing that must be right.
//!
//! Invariants:
//! - only nodes of the roster (the catalog's members) are seen, spoken to or
//!   spoken of; a removed node never returns by gossip;
//! - every datagram stays within `DATAGRAM_BYTES_MAX`;
//! - the table holds at most one entry per node of the roster, and each peer
//!   is announced to at most once per [`ANNOUNCE_GAP`];
//! - the same seed and inputs give the same effects.
//!
//! Source: Das, Gupta, Motivala, "SWIM" (2002); extensions of foca.

mod announce;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use foca::{Foca, Member, NoCustomBroadcast, PostcardCodec};
use rand::{SeedableRng, rngs::StdRng};

use super::wire::{GossipFault, Identity, seal, sift};
use crate::{
    catalog::{record::NodeState, view::CatalogView},
    ids::{Incarnation, NodeId},
    units::Instant,
};
use announce::Announcer;
use table::{Collected, Table, config};

pub use announce::{ANNOUNCE_GAP, ANNOUNCE_PERIOD};

/// How far a shown incarnation may lie above the registered one. A node that
/// starts while the catalog has no quorum registers later, and one that just
/// joined knows no registered ones; a start a minute takes two years to get
/// here. Without a bound a broken peer's update could outbid a node for ever.
const UNREGISTERED_STARTS_MAX: u64 = 1 << 20;

/// The nodes gossip may be about: the catalog's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Members, with the incarnation the catalog last registered.
    pub active: BTreeMap<NodeId, Incarnation>,
    /// Those removed for good.
    pub removed: BTreeSet<NodeId>,
}

impl Roster {
    /// The roster a catalog view holds.
    pub fn of(view: &CatalogView) -> Self {
        let mut roster = Self::default();
        for node in view.nodes() {
            match node.state {
                NodeState::Active => {
                    roster.active.insert(node.node, node.boot.incarnation);
                }
                NodeState::Removed => {
                    roster.removed.insert(node.node);
                }
            }
        }
        roster
    }

    fn knows(&self, identity: &Identity) -> bool {
        let registered = self.active.get(&identity.node);
        registered.is_some_and(|registered| {
            let highest = registered.0.saturating_add(UNREGISTERED_STARTS_MAX);
            identity.incarnation.0 <= highest && identity.is_plausible()
        })
    }
}

/// What happens to the core.
#[derive(Debug)]
pub enum Input<'a> {
    /// The node is up: it begins to announce itself.
    Start,
    /// A gossip datagram of an authenticated peer.
    Datagram {
        /// The connection's peer.
        from: NodeId,
        /// What it sent.
        bytes: &'a [u8],
    },
    /// A timer of [`Effect::Arm`] went off. All must, in any order.
    Timer(SwimTimer),
    /// Announce this node to another one now.
    Announce {
        /// Whom.
        to: NodeId,
    },
    /// A connection came up: a good moment to announce.
    LinkUp(NodeId),
    /// A connection was lost. Only probes decide who is down: connections are
    /// also closed for age.
    LinkDown(NodeId),
    /// The catalog's members changed.
    Roster(Roster),
    /// The node stops and says so.
    Leave,
}

/// Names an armed timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwimTimer(u64);

/// What the core asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// The datagram.
        bytes: Bytes,
    },
    /// Give the timer back after a while.
    Arm {
        /// How long.
        after: Duration,
        /// Which.
        timer: SwimTimer,
    },
    /// A node is seen, or has started anew.
    MemberUp {
        /// Which.
        node: NodeId,
        /// Its start.
        incarnation: Incarnation,
    },
    /// A node is seen no more.
    MemberDown {
        /// Which.
        node: NodeId,
    },
    /// Something to log or count.
    Report(Report),
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A peer broke a rule; its datagram was dropped.
    PeerFault {
        /// The peer.
        from: NodeId,
        /// The rule.
        fault: GossipFault,
    },
    /// This node was declared down while it ran, and came back. Often means
    /// that it, or the network, stalled.
    Rejoined {
        /// How often since its start.
        renewals: u32,
    },
    /// The catalog removed this node: it gossips no more.
    Removed,
    /// foca met a state it did not expect; it goes on.
    Unexpected(String),
}

/// The nodes seen alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveView {
    /// Each with its start and since when; the node itself among them.
    pub up: BTreeMap<NodeId, Up>,
}

impl LiveView {
    /// Their ids.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.up.keys().copied().collect()
    }
}

/// Since when a node is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Up {
    /// Its start.
    pub incarnation: Incarnation,
    /// Since when, on this node's monotonic clock.
    pub since: Instant,
}

/// What a core is born with.
#[derive(Clone, Debug)]
pub struct Birth {
    /// This node.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Seed of all chance.
    pub seed: u64,
    /// The members known at the start: the last catalog kept on disk, or what
    /// the admission answered.
    pub roster: Roster,
    /// Now.
    pub now: Instant,
}

/// The core.
#[derive(Debug)]
pub struct Swim {
    node: NodeId,
    incarnation: Incarnation,
    roster: Roster,
    foca: Foca<Identity, PostcardCodec, StdRng, NoCustomBroadcast>,
    announcer: Announcer,
    table: Table,
    /// Left or removed: nothing is done any more.
    gone: bool,
}

impl Swim {
    /// A core that knows its roster and has seen nobody.
    pub fn new(birth: Birth) -> Self {
        let Birth { node, incarnation, seed, roster, now } = birth;
        let identity = Identity::new(node, incarnation);
        let rng = StdRng::seed_from_u64(seed);
        Self {
            node,
            incarnation,
            roster,
            foca: Foca::new(identity, config(), rng, PostcardCodec),
            announcer: Announcer::new(StdRng::seed_from_u64(!seed)),
            table: Table::new(node, Up { incarnation, since: now }),
            gone: false,
        }
    }

    /// The nodes seen alive.
    pub fn live(&self) -> &LiveView {
        self.table.live()
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Effect>) {
        if self.gone {
            return;
        }
        match input {
            Input::Start => self.announce_round(now, out),
            Input::Datagram { from, bytes } => self.datagram(now, from, bytes, out),
            Input::Timer(timer) => self.timer(now, timer, out),
            Input::Announce { to } | Input::LinkUp(to) => self.announce(now, to, out),
            Input::LinkDown(_) => {}
            Input::Roster(roster) => self.change_roster(now, roster, out),
            Input::Leave => self.leave(now, out),
        }
    }

    fn datagram(&mut self, now: Instant, from: NodeId, bytes: &[u8], out: &mut Vec<Effect>) {
        match sift(bytes, from, |identity| self.knows(identity)) {
            Ok(body) => {
                let mut collected = Collected::default();
                let done = self.foca.handle_data(&body, &mut collected);
                self.finish(now, done, collected, Some(from), out);
            }
            Err(fault) => out.push(Effect::Report(Report::PeerFault { from, fault })),
        }
    }

    /// Whether gossip may be about this member. The node knows itself, even
    /// before the catalog it was admitted to has told it so.
    fn knows(&self, identity: &Identity) -> bool {
        if identity.node == self.node {
            return identity.incarnation <= self.incarnation && identity.is_plausible();
        }
        self.roster.knows(identity)
    }

    fn timer(&mut self, now: Instant, timer: SwimTimer, out: &mut Vec<Effect>) {
        match self.table.take_timer(timer) {
            Some(table::Pending::Announce) => self.announce_round(now, out),
            Some(table::Pending::Foca(timer)) => {
                let mut collected = Collected::default();
                let done = self.foca.handle_timer(timer, &mut collected);
                self.finish(now, done, collected, None, out);
            }
            None => {}
        }
    }

    /// Announces this node to some that it does not see, and arms the next round.
    fn announce_round(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let live = self.table.live();
        let absent = self.roster.active.keys().filter(|node| !live.up.contains_key(node));
        let absent: Vec<NodeId> = absent.copied().collect();
        for node in self.announcer.next(&absent) {
            self.announce(now, node, out);
        }
        let alone = self.table.live().up.len() == 1;
        let after = self.announcer.pause(alone);
        let timer = self.table.arm(table::Pending::Announce);
        out.push(Effect::Arm { after, timer });
    }

    fn announce(&mut self, now: Instant, to: NodeId, out: &mut Vec<Effect>) {
        let Some(registered) = self.roster.active.get(&to) else { return };
        // This node is always among the seen.
        let seen = self.table.live().up.contains_key(&to);
        if seen || !self.announcer.may_announce(now, to) {
            return;
        }
        // An announcement reaches a node whatever its identity is by now.
        let to = Identity::new(to, *registered);
        let mut collected = Collected::default();
        let done = self.foca.announce(to, &mut collected);
        self.finish(now, done, collected, None, out);
    }

    fn change_roster(&mut self, now: Instant, roster: Roster, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.roster, roster);
        if self.roster.removed.contains(&self.node) {
            self.gone = true;
            out.push(Effect::Report(Report::Removed));
            return;
        }
        self.announcer.keep(&self.roster.active);
        self.drop_strangers(now, out);
        let new = self.roster.active.keys().filter(|node| !before.active.contains_key(node));
        for node in new.copied().collect::<Vec<_>>() {
            self.announce(now, node, out);
        }
    }

    /// Declares down whom the catalog does not know any more.
    fn drop_strangers(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let gone: Vec<Member<Identity>> = self
            .foca
            .iter_members()
            .filter(|member| !self.roster.active.contains_key(&member.id().node))
            .map(|member| Member::down(*member.id()))
            .collect();
        if !gone.is_empty() {
            let mut collected = Collected::default();
            // Not broadcast: everyone hears it from the catalog.
            let done = self.foca.apply_many(gone.into_iter(), false, &mut collected);
            self.finish(now, done, collected, None, out);
        }
    }

    fn leave(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut collected = Collected::default();
        let done = self.foca.leave_cluster(&mut collected);
        self.finish(now, done, collected, None, out);
        self.gone = true;
    }

    /// Turns what foca did into effects.
    fn finish(
        &mut self,
        now: Instant,
        done: Result<(), foca::Error>,
        collected: Collected,
        from: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        if let Err(error) = done {
            out.push(Effect::Report(report(&error, from)));
        }
        for (to, body) in collected.sends {
            if self.roster.active.contains_key(&to) {
                out.push(Effect::Send { to, bytes: seal(&body).into() });
            }
        }
        for (after, timer) in collected.timers {
            if !self.table.has_room_for(&timer) {
                continue;
            }
            let timer = self.table.arm(table::Pending::Foca(timer));
            out.push(Effect::Arm { after, timer });
        }
        let mut rejoined = false;
        for notice in &collected.notices {
            rejoined |= self.table.note(now, notice, out);
        }
        if rejoined {
            self.rejoined(now, out);
        }
    }

    /// Declared down and back: those who did it may not be seen here either.
    fn rejoined(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let renewals = self.foca.identity().renewal;
        debug_assert_eq!(self.foca.identity().incarnation, self.incarnation);
        out.push(Effect::Report(Report::Rejoined { renewals }));
        let absent: Vec<NodeId> = self.roster.active.keys().copied().collect();
        for node in self.announcer.next(&absent) {
            self.announce(now, node, out);
        }
    }
}

fn report(error: &foca::Error, from: Option<NodeId>) -> Report {
    match from {
        Some(from) => Report::PeerFault { from, fault: GossipFault::Malformed(error.to_string()) },
        None => Report::Unexpected(error.to_string()),
    }
}
