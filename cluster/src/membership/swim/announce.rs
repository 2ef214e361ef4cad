//! Whom to announce this node to, and how often.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, rngs::StdRng};

use crate::{
    ids::{Incarnation, NodeId},
    units::Instant,
};

/// Mean time between rounds of announcements to members not seen. A partition
/// of a handful of nodes heals within a few rounds; a dead node costs its
/// peers a datagram a round.
pub const ANNOUNCE_PERIOD: Duration = Duration::from_secs(2);
/// Shortest time between announcements to one peer, whatever the reason: keeps
/// flapping links and a restart storm from multiplying them.
pub const ANNOUNCE_GAP: Duration = Duration::from_millis(500);
/// Members announced to per round; the next round goes on behind them.
const ROUND_MEMBERS_MAX: usize = 3;

/// Takes turns among the members not seen.
#[derive(Debug)]
pub(super) struct Announcer {
    rng: StdRng,
    last: Option<NodeId>,
    announced: BTreeMap<NodeId, Instant>,
}

impl Announcer {
    pub(super) fn new(rng: StdRng) -> Self {
        Self { rng, last: None, announced: BTreeMap::new() }
    }

    /// The next of `absent` (sorted) in turn.
    pub(super) fn next(&mut self, absent: &[NodeId]) -> Vec<NodeId> {
        let behind = |node: &&NodeId| Some(**node) > self.last;
        let first = absent.iter().position(|node| behind(&node)).unwrap_or(0);
        let (before, after) = absent.split_at(first);
        let turn: Vec<NodeId> =
            after.iter().chain(before).take(ROUND_MEMBERS_MAX).copied().collect();
        self.last = turn.last().copied();
        turn
    }

    /// Time to the next round: the period, a quarter more or less, so that
    /// nodes started together do not stay in step. A node that sees nobody
    /// hurries: it has just started, or is cut off.
    pub(super) fn pause(&mut self, alone: bool) -> Duration {
        let period = if alone { ANNOUNCE_GAP } else { ANNOUNCE_PERIOD };
        period * self.rng.random_range(75..=125) / 100
    }

    /// Whether a peer may be announced to, and if so remembers it was.
    pub(super) fn may_announce(&mut self, now: Instant, to: NodeId) -> bool {
        let before = self.announced.get(&to);
        let may = before.is_none_or(|before| now.since(*before) >= ANNOUNCE_GAP);
        if may {
            self.announced.insert(to, now);
        }
        may
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, active: &BTreeMap<NodeId, Incarnation>) {
        self.announced.retain(|node, _| active.contains_key(node));
    }
}
