//! Snapshots are offered, fetched and only then believed.
//!
//! raft-rs would send the data inside a message. Here its message becomes an
//! offer of a pinned state; the follower fetches the pieces at its own pace,
//! and its core hears of the snapshot when everything lies on its disk.
//!
//! The leader keeps one offer per follower: *pinning* (the driver looks for a
//! state), *pinned* (raft-rs takes it with its next attempt), *offered*. Offers
//! are repeated, for messages get lost, and every offered one ends in exactly
//! one report to raft-rs, or the follower would stay paused for ever: by the
//! follower's result, by its silence, or by age.
//!
//! The follower keeps one fetch. It survives a change of leader: a snapshot is
//! committed state, whoever offered it.

use std::collections::BTreeMap;

use raft::eraftpb::Snapshot;

use super::{
    configuration::to_conf_state,
    core::{Effect, Effects},
};
use crate::{
    ids::{Epoch, LogIndex, ReplicaId, Term},
    raft::types::{Configuration, Message, SnapshotOffer},
};

/// Ticks between repetitions of an offer (1 s).
const REPEAT_TICKS: u64 = 10;
/// Ticks after which raft-rs has had its chance to take a pinned state (5 s).
const PINNED_TICKS_MAX: u64 = 50;
/// Ticks after which a silent follower's offer is given up (1 min); it gets
/// another when it speaks again, and begins anew. A node that is restarted is
/// back by then and goes on where it was. What the pin costs meanwhile: entries
/// since, which a log over its budget lets go of all the same.
const SILENT_TICKS_MAX: u64 = 600;
/// Ticks after which any offer is given up (1 h), so that a pin never holds
/// compaction back for good.
const AGE_TICKS_MAX: u64 = 36_000;
/// Offers a leader makes in one term, in the low bits of their ids.
const PER_TERM_BITS: u32 = 20;

#[derive(Debug)]
enum Stage {
    Pinning,
    Pinned { offer: SnapshotOffer, since: u64 },
    Offered { offer: SnapshotOffer, since: u64, said: u64 },
}

/// A leader's offers.
#[derive(Debug, Default)]
pub(super) struct Offers {
    offers: BTreeMap<ReplicaId, (u64, Stage)>,
    made: u64,
}

/// An offer that ended without the follower's word.
pub(super) struct GivenUp {
    pub(super) to: ReplicaId,
    pub(super) id: u64,
}

impl Offers {
    pub(super) fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// raft-rs wants to send a snapshot: asks for a pin unless one is on its way.
    pub(super) fn want(&mut self, to: ReplicaId, term: Term, out: &mut Effects) {
        if self.offers.contains_key(&to) {
            return;
        }
        self.made += 1;
        let number = self.made & ((1 << PER_TERM_BITS) - 1);
        let id = (term.0 << PER_TERM_BITS) | number;
        self.offers.insert(to, (id, Stage::Pinning));
        out.push(Effect::PinSnapshot { id, to });
    }

    /// A state is pinned; says for whom, if it is still wanted.
    pub(super) fn pinned(&mut self, id: u64, offer: SnapshotOffer, tick: u64) -> Option<ReplicaId> {
        let (to, (_, stage)) = self
            .offers
            .iter_mut()
            .find(|(_, (known, stage))| *known == id && matches!(stage, Stage::Pinning))?;
        *stage = Stage::Pinned { offer, since: tick };
        Some(*to)
    }

    /// raft-rs sends what is pinned for `to`: gives the offer to send instead.
    pub(super) fn offer(&mut self, to: ReplicaId, tick: u64) -> Option<SnapshotOffer> {
        let (_, stage) = self.offers.get_mut(&to)?;
        let offer = match stage {
            Stage::Pinned { offer, .. } | Stage::Offered { offer, .. } => offer.clone(),
            Stage::Pinning => return None,
        };
        *stage = Stage::Offered { offer: offer.clone(), since: tick, said: tick };
        Some(offer)
    }

    /// Ends the offer with this id, whatever its stage.
    pub(super) fn end(&mut self, id: u64) -> Option<ReplicaId> {
        let to = self.offers.iter().find(|(_, (known, _))| *known == id).map(|(to, _)| *to)?;
        self.offers.remove(&to);
        Some(to)
    }

    /// Replicas that were sent an offer, with its id.
    pub(super) fn offered(&self) -> Vec<(ReplicaId, u64)> {
        self.offers
            .iter()
            .filter(|(_, (_, stage))| matches!(stage, Stage::Offered { .. }))
            .map(|(to, (id, _))| (*to, *id))
            .collect()
    }

    /// First position a follower with an offer needs of the log.
    pub(super) fn needed_from(&self) -> Option<LogIndex> {
        let index = |stage: &Stage| match stage {
            Stage::Pinning => None,
            Stage::Pinned { offer, .. } | Stage::Offered { offer, .. } => Some(offer.index.0 + 1),
        };
        self.offers.values().filter_map(|(_, stage)| index(stage)).min().map(LogIndex)
    }

    /// Repeats offers, and gives up those of followers that are silent or slow
    /// beyond measure.
    pub(super) fn tick(
        &mut self,
        tick: u64,
        heard: &BTreeMap<ReplicaId, u64>,
        out: &mut Effects,
    ) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        for (to, (id, stage)) in &mut self.offers {
            let over = match stage {
                Stage::Pinning => false,
                // raft-rs takes a pinned state with its next attempt, or needs none.
                Stage::Pinned { since, .. } => tick - *since > PINNED_TICKS_MAX,
                Stage::Offered { offer, since, said } => {
                    if tick - *said >= REPEAT_TICKS {
                        *said = tick;
                        let message = Message::SnapshotOffer(offer.clone());
                        out.push(Effect::Send { to: *to, message });
                    }
                    let silent = tick - heard.get(to).copied().unwrap_or(*since).max(*since);
                    silent > SILENT_TICKS_MAX || tick - *since > AGE_TICKS_MAX
                }
            };
            if over {
                given_up.push(GivenUp { to: *to, id: *id });
            }
        }
        for gone in &given_up {
            self.offers.remove(&gone.to);
        }
        given_up
    }

    /// Lets go of every pin: this replica leads no longer.
    pub(super) fn clear(&mut self, out: &mut Effects) -> Vec<ReplicaId> {
        let offers = std::mem::take(&mut self.offers);
        out.extend(offers.values().map(|(id, _)| Effect::UnpinSnapshot { id: *id }));
        offers.into_keys().collect()
    }
}

/// A follower's fetch.
#[derive(Debug, Default)]
pub(super) enum Fetch {
    /// Nothing to fetch.
    #[default]
    Idle,
    /// The driver fetches.
    Fetching(ReplicaId, SnapshotOffer),
    /// Everything is here; waits for a leader to follow.
    Fetched(ReplicaId, SnapshotOffer, Epoch),
    /// Handed to raft-rs; the record is under way to the disk.
    Installing(ReplicaId, SnapshotOffer, Epoch),
}

impl Fetch {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// The snapshot arrived.
    pub(super) fn fetched(&mut self, from: ReplicaId, id: u64, epoch: Epoch) -> bool {
        match std::mem::take(self) {
            Self::Fetching(whose, offer) if whose == from && offer.id == id => {
                *self = Self::Fetched(from, offer, epoch);
                true
            }
            other
            @ (Self::Idle | Self::Fetching(..) | Self::Fetched(..) | Self::Installing(..)) => {
                *self = other;
                false
            }
        }
    }

    /// The snapshot cannot be had.
    pub(super) fn failed(&mut self, from: ReplicaId, id: u64) -> bool {
        let mine = matches!(self, Self::Fetching(whose, offer) if *whose == from && offer.id == id);
        if mine {
            *self = Self::Idle;
        }
        mine
    }
}

/// raft-rs's form of a pinned state: a position without data.
pub(super) fn to_raft(index: LogIndex, term: Term, configuration: &Configuration) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = index.0;
    metadata.term = term.0;
    metadata.set_conf_state(to_conf_state(configuration));
    snapshot
}
