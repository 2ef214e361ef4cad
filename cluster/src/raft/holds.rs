//! The weaker write levels: answered from memory, never counted for commit.
//!
//! A follower says `Held` as soon as an append of its leader stands in its
//! memory. The leader answers a write of level *memory* once a majority,
//! itself included, holds it; *eventual* is answered when the leader does. The
//! word holds only in the term of the append: a new leader may replace what
//! followers hold, so everything here is forgotten when the term or the role
//! moves.
//!
//! Followers speak only when the leader asks by a mark on the append, so
//! strong writes cost no extra message.

use std::collections::{BTreeMap, VecDeque};

use super::core::{Effect, Effects, Ticket};
use crate::{
    ids::{LogIndex, ReplicaId},
    raft::types::Configuration,
};

/// Who holds what, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: BTreeMap<ReplicaId, LogIndex>,
    waiting: VecDeque<(LogIndex, Ticket)>,
}

impl Holds {
    /// Whether followers shall say what they hold.
    pub(super) fn wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A write at `index`, the highest so far, waits for a majority's memory.
    pub(super) fn wait(&mut self, index: LogIndex, ticket: Ticket) {
        self.waiting.push_back((index, ticket));
    }

    /// A member holds everything up to `index`.
    pub(super) fn note(&mut self, from: ReplicaId, index: LogIndex) {
        let held = self.held.entry(from).or_default();
        *held = (*held).max(index);
    }

    /// Answers whom a majority holds. `matched` tells what is durable at a
    /// member; the leader itself (`own`) holds its whole log.
    pub(super) fn answer(
        &mut self,
        own: ReplicaId,
        configuration: &Configuration,
        matched: impl Fn(ReplicaId) -> LogIndex,
        out: &mut Effects,
    ) {
        while let Some((index, ticket)) = self.waiting.front().copied() {
            let holds = |id| {
                let held = self.held.get(&id).copied().unwrap_or_default();
                id == own || held >= index || matched(id) >= index
            };
            if !configuration.has_majority(holds) {
                return;
            }
            self.waiting.pop_front();
            out.push(Effect::Held { ticket });
        }
    }

    /// Forgets everything; who waits learns it from the change of role.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
