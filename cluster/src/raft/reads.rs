//! Linearizable reads: one heartbeat round answers everyone who waits.
//!
//! raft-rs drops a read silently while it has no leader or the leader has
//! committed nothing in its term, and forgets all of them when the term moves.
//! So the queue is ours: reads wait here until the leader's own entry is
//! committed, share one round with one unique context, and fail by name when
//! the role changes. One round is under way at a time, as in etcd: whoever
//! comes meanwhile shares the next, so rounds grow with latency, not with load.
//! raft-rs repeats the round's context with each heartbeat until a quorum
//! answered it.
//!
//! Source: Raft dissertation §6.4.

use raft::{RawNode, ReadState, StateRole};

use super::{
    core::{Effect, Effects, Ticket},
    storage::Log,
};
use crate::ids::{LogIndex, ReplicaId};

/// Reads that may wait for the next round. Admission lies in front of the
/// core; this bounds a fault in it (16 bytes each).
const WAITING_MAX: usize = 65_536;

#[derive(Debug)]
struct Round {
    context: Vec<u8>,
    tickets: Vec<Ticket>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: Vec<Ticket>,
    round: Option<Round>,
    pub(super) rounds: u64,
    pub(super) answered: u64,
}

impl Reads {
    /// Queues a read; false when there is no room.
    pub(super) fn push(&mut self, ticket: Ticket) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push(ticket);
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.round.is_none()
    }

    /// Begins a round for all who wait, if none is under way.
    pub(super) fn issue(&mut self, raw: &mut RawNode<Log>) {
        // Asked after each step, and most steps know of no read.
        if self.is_idle()
            || raw.raft.state != StateRole::Leader
            || !raw.raft.commit_to_current_term()
        {
            return;
        }
        let lost = raw.raft.pending_read_count() == 0 && raw.raft.ready_read_count() == 0;
        if let Some(round) = self.round.take_if(|_| lost) {
            // raft-rs forgot it; never seen, and cheap to mend.
            self.waiting.splice(..0, round.tickets);
        }
        if self.waiting.is_empty() || self.round.is_some() {
            return;
        }
        self.rounds += 1;
        // Term and number: no round of another term or life looks the same.
        let mut context = raw.raft.term.to_le_bytes().to_vec();
        context.extend_from_slice(&self.rounds.to_le_bytes());
        raw.read_index(context.clone());
        self.round = Some(Round { context, tickets: std::mem::take(&mut self.waiting) });
    }

    /// Answers the round raft-rs confirmed.
    pub(super) fn answer(&mut self, states: Vec<ReadState>, out: &mut Effects) {
        for state in states {
            let Some(round) = self.round.take_if(|round| round.context == state.request_ctx) else {
                continue;
            };
            let index = LogIndex(state.index);
            for ticket in round.tickets {
                self.answered += 1;
                out.push(Effect::ReadReady { ticket, index });
            }
        }
    }

    /// Fails everyone: the term or the role moved.
    pub(super) fn fail(&mut self, leader: Option<ReplicaId>, out: &mut Effects) {
        let begun = self.round.take().map(|round| round.tickets).unwrap_or_default();
        for ticket in begun.into_iter().chain(std::mem::take(&mut self.waiting)) {
            out.push(Effect::ReadFailed { ticket, leader });
        }
    }
}
