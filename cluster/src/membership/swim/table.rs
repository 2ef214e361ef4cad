//! What the core remembers beside foca: timers under way and who is seen.

use std::{collections::BTreeMap, num::NonZeroU8, num::NonZeroUsize, time::Duration};

use foca::{Config, Notification, OwnedNotification, PeriodicParams, Runtime, Timer};

use super::{Effect, LiveView, SwimTimer, Up};
use crate::{
    ids::NodeId,
    membership::wire::{BODY_BYTES_MAX, Identity},
    units::Instant,
};

const fn count(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => NonZeroUsize::MIN,
    }
}

/// Timers under way past which a down member is no more scheduled to be
/// forgotten: four for each of a thousand nodes.
const TIMERS_MAX: usize = 4_096;

/// How foca runs. A node that stops is declared down after a probe (≤ 1 s
/// until it is some node's turn in small clusters), the rest of that probe's
/// second and three seconds of suspicion.
pub(super) fn config() -> Config {
    Config {
        probe_period: Duration::from_secs(1),
        // Twice what a loaded two-core machine or a link across a continent
        // takes; leaves more than half of the period for indirect probes.
        probe_rtt: Duration::from_millis(400),
        num_indirect_probes: count(3),
        // Three per 200 ms: a suspicion is spoken of for two of its three
        // seconds, so that a node cut off for a moment hears of it and objects.
        // (foca does not repeat it to the suspect.)
        max_transmissions: NonZeroU8::MIN.saturating_add(29),
        suspect_to_down_after: Duration::from_secs(3),
        // Longer than any gossip about it lives. A node that comes back has a
        // new identity and need not wait.
        remove_down_after: Some(Duration::from_mins(10)),
        max_packet_size: count(BODY_BYTES_MAX),
        notify_down_members: true,
        // Beside the probes; finds what gossip lost.
        periodic_announce: Some(PeriodicParams {
            frequency: Duration::from_secs(15),
            num_members: count(1),
        }),
        // The announcer does it, for it knows the catalog's members.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: Duration::from_millis(200),
            num_members: count(3),
        }),
    }
}

/// What foca did within one call.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) sends: Vec<(NodeId, Vec<u8>)>,
    pub(super) timers: Vec<(Duration, Timer<Identity>)>,
    pub(super) notices: Vec<OwnedNotification<Identity>>,
}

impl Runtime<Identity> for Collected {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.notices.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to.node, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// What a timer is for.
#[derive(Debug)]
pub(super) enum Pending {
    Announce,
    Foca(Timer<Identity>),
}

#[derive(Debug)]
pub(super) struct Table {
    node: NodeId,
    live: LiveView,
    pending: BTreeMap<SwimTimer, Pending>,
    next: u64,
}

impl Table {
    pub(super) fn new(node: NodeId, own: Up) -> Self {
        let live = LiveView { up: BTreeMap::from([(node, own)]) };
        Self { node, live, pending: BTreeMap::new(), next: 0 }
    }

    pub(super) fn live(&self) -> &LiveView {
        &self.live
    }

    pub(super) fn arm(&mut self, pending: Pending) -> SwimTimer {
        let timer = SwimTimer(self.next);
        self.next += 1;
        self.pending.insert(timer, pending);
        timer
    }

    /// Whether one more timer may be armed. All but those that forget a down
    /// member are few by the rate of probes; and forgetting can be left out.
    pub(super) fn has_room_for(&self, timer: &Timer<Identity>) -> bool {
        self.pending.len() < TIMERS_MAX || !matches!(timer, Timer::RemoveDown(_))
    }

    pub(super) fn take_timer(&mut self, timer: SwimTimer) -> Option<Pending> {
        self.pending.remove(&timer)
    }

    /// Notes one thing foca said; true if this node had to rejoin.
    pub(super) fn note(
        &mut self,
        now: Instant,
        notice: &OwnedNotification<Identity>,
        out: &mut Vec<Effect>,
    ) -> bool {
        match notice {
            OwnedNotification::MemberUp(member) => self.up(now, member, out),
            OwnedNotification::Rename(before, after) => {
                let restarted = after.incarnation > before.incarnation;
                if restarted && self.live.up.contains_key(&after.node) {
                    self.up(now, after, out);
                }
            }
            OwnedNotification::MemberDown(member) => {
                if member.node != self.node && self.live.up.remove(&member.node).is_some() {
                    out.push(Effect::MemberDown { node: member.node });
                }
            }
            OwnedNotification::Rejoin(_) => return true,
            OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
        }
        false
    }

    fn up(&mut self, now: Instant, member: &Identity, out: &mut Vec<Effect>) {
        let Identity { node, incarnation, .. } = *member;
        let since = match self.live.up.get(&node) {
            Some(up) if up.incarnation == incarnation => return,
            Some(_) | None => now,
        };
        if node != self.node {
            self.live.up.insert(node, Up { incarnation, since });
            out.push(Effect::MemberUp { node, incarnation });
        }
    }
}
