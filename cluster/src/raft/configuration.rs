//! Who votes: the pure rules by which a change turns one configuration into
//! the next, and the translation to raft-rs's form of both.
//!
//! Every change goes through joint consensus: it enters a configuration where
//! the old and the new voters must both agree, and an empty change leaves it
//! again. Leaving is proposed by the leader's core, never by raft-rs's
//! automatism, which forgets it when the leader changes in between.
//!
//! The state machine keeps the configuration in its root record and computes
//! it with [`Configuration::after`]; the core checks that raft-rs came to the
//! same result. A change that cannot be applied changes nothing, on every
//! replica alike.
//!
//! Source: Raft dissertation §4.3; raft-rs `confchange/changer.rs`.

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

use crate::{
    ids::ReplicaId,
    raft::types::{Configuration, ConfigurationChange, ConfigurationStep},
};

/// Why a change does not fit a configuration, or a configuration itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationFault {
    /// A joint configuration must be left first.
    #[error("the configuration is joint: it must be left before it can change again")]
    Joint,
    /// There is nothing to leave.
    #[error("the configuration is not joint: there is nothing to leave")]
    NotJoint,
    /// Nobody would vote.
    #[error("the change would leave no voter")]
    NoVoter,
    /// Zero names nobody.
    #[error("replica 0 stands for nobody")]
    Nobody,
    /// A list is not sorted or names a replica twice.
    #[error("the list of {0} is not in rising order")]
    Unsorted(&'static str),
    /// A replica plays two parts that exclude each other.
    #[error("{0} plays two parts at once")]
    TwoParts(ReplicaId),
    /// A waiting learner must still be an outgoing voter.
    #[error("{0} waits to become a learner without being an outgoing voter")]
    NotOutgoing(ReplicaId),
}

fn insert(list: &mut Vec<ReplicaId>, id: ReplicaId) {
    if let Err(at) = list.binary_search(&id) {
        list.insert(at, id);
    }
}

fn remove(list: &mut Vec<ReplicaId>, id: ReplicaId) {
    if let Ok(at) = list.binary_search(&id) {
        list.remove(at);
    }
}

impl Configuration {
    /// A configuration of voters only.
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        let mut configuration = Self::default();
        for voter in voters {
            insert(&mut configuration.voters, voter);
        }
        configuration
    }

    /// Whether old and new voters must both agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether nobody is named: the replica joins a shard that exists.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.outgoing.is_empty() && self.learners.is_empty()
    }

    /// Whether `id` votes, now or once the joint configuration is left.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.binary_search(&id).is_ok() || self.outgoing.binary_search(&id).is_ok()
    }

    /// Whether `id` has a part.
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.is_voter(id)
            || self.learners.binary_search(&id).is_ok()
            || self.learners_next.binary_search(&id).is_ok()
    }

    /// Everyone, in order of id.
    pub fn members(&self) -> Vec<ReplicaId> {
        let mut members: Vec<_> =
            [&self.voters, &self.outgoing, &self.learners].into_iter().flatten().copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whether `agrees` holds for a majority: of both sets while joint.
    pub fn has_majority(&self, agrees: impl Fn(ReplicaId) -> bool) -> bool {
        [&self.voters, &self.outgoing].into_iter().all(|set| {
            let yes = set.iter().filter(|id| agrees(**id)).count();
            set.is_empty() || yes * 2 > set.len()
        })
    }

    /// The configuration that follows when `change` is applied.
    ///
    /// # Errors
    /// If it does not fit; then nothing changes.
    pub fn after(&self, change: &ConfigurationChange) -> Result<Self, ConfigurationFault> {
        let mut next = self.clone();
        if change.steps.is_empty() {
            if !self.is_joint() {
                return Err(ConfigurationFault::NotJoint);
            }
            for learner in std::mem::take(&mut next.learners_next) {
                insert(&mut next.learners, learner);
            }
            next.outgoing.clear();
        } else {
            if self.is_joint() {
                return Err(ConfigurationFault::Joint);
            }
            next.outgoing.clone_from(&self.voters);
            for step in &change.steps {
                next.take_step(*step)?;
            }
        }
        next.check()?;
        Ok(next)
    }

    fn take_step(&mut self, step: ConfigurationStep) -> Result<(), ConfigurationFault> {
        let id = step.replica();
        if id == ReplicaId(0) {
            return Err(ConfigurationFault::Nobody);
        }
        match step {
            ConfigurationStep::Voter(..) => {
                insert(&mut self.voters, id);
                remove(&mut self.learners, id);
                remove(&mut self.learners_next, id);
            }
            ConfigurationStep::Learner(..) if self.learners.binary_search(&id).is_ok() => {}
            ConfigurationStep::Learner(..) => {
                remove(&mut self.voters, id);
                let voting = self.outgoing.binary_search(&id).is_ok();
                insert(if voting { &mut self.learners_next } else { &mut self.learners }, id);
            }
            ConfigurationStep::Remove(_) => {
                remove(&mut self.voters, id);
                remove(&mut self.learners, id);
                remove(&mut self.learners_next, id);
            }
        }
        Ok(())
    }

    /// Checks what raft-rs takes for granted.
    ///
    /// # Errors
    /// Names the rule broken.
    pub fn check(&self) -> Result<(), ConfigurationFault> {
        let lists = [
            ("voters", &self.voters),
            ("outgoing voters", &self.outgoing),
            ("learners", &self.learners),
            ("waiting learners", &self.learners_next),
        ];
        for (name, list) in lists {
            if !list.is_sorted_by(|a, b| a < b) {
                return Err(ConfigurationFault::Unsorted(name));
            }
            if list.first() == Some(&ReplicaId(0)) {
                return Err(ConfigurationFault::Nobody);
            }
        }
        if self.voters.is_empty() {
            return Err(ConfigurationFault::NoVoter);
        }
        if let Some(id) = self.learners.iter().find(|id| self.is_voter(**id)) {
            return Err(ConfigurationFault::TwoParts(*id));
        }
        for id in &self.learners_next {
            if self.outgoing.binary_search(id).is_err() {
                return Err(ConfigurationFault::NotOutgoing(*id));
            }
            if self.voters.binary_search(id).is_ok() {
                return Err(ConfigurationFault::TwoParts(*id));
            }
        }
        Ok(())
    }
}

impl ConfigurationStep {
    /// Whom it is about.
    pub fn replica(&self) -> ReplicaId {
        match self {
            Self::Voter(id, _) | Self::Learner(id, _) | Self::Remove(id) => *id,
        }
    }
}

fn ids(list: &[ReplicaId]) -> Vec<u64> {
    list.iter().map(|id| id.0).collect()
}

fn sorted(list: &[u64]) -> Vec<ReplicaId> {
    let mut list: Vec<_> = list.iter().map(|id| ReplicaId(*id)).collect();
    list.sort_unstable();
    list
}

pub(super) fn to_conf_state(configuration: &Configuration) -> ConfState {
    ConfState {
        voters: ids(&configuration.voters),
        voters_outgoing: ids(&configuration.outgoing),
        learners: ids(&configuration.learners),
        learners_next: ids(&configuration.learners_next),
        ..ConfState::default()
    }
}

pub(super) fn from_conf_state(state: &ConfState) -> Configuration {
    Configuration {
        voters: sorted(&state.voters),
        outgoing: sorted(&state.voters_outgoing),
        learners: sorted(&state.learners),
        learners_next: sorted(&state.learners_next),
    }
}

/// raft-rs's form of a change; nothing of it is stored or sent.
pub(super) fn to_conf_change(change: &ConfigurationChange) -> ConfChangeV2 {
    let mut raw = ConfChangeV2::default();
    if change.steps.is_empty() {
        return raw; // raft-rs reads the default as "leave".
    }
    raw.set_transition(ConfChangeTransition::Explicit);
    let changes: Vec<_> = change
        .steps
        .iter()
        .map(|step| {
            let node_id = step.replica().0;
            let mut single = ConfChangeSingle { node_id, ..ConfChangeSingle::default() };
            single.set_change_type(match step {
                ConfigurationStep::Voter(..) => ConfChangeType::AddNode,
                ConfigurationStep::Learner(..) => ConfChangeType::AddLearnerNode,
                ConfigurationStep::Remove(_) => ConfChangeType::RemoveNode,
            });
            single
        })
        .collect();
    raw.set_changes(changes.into());
    raw
}

/// The bytes raft-rs keeps in an entry's data, rebuilt from our own form.
pub(super) fn to_conf_change_bytes(change: &ConfigurationChange) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "writing a message without required fields to memory")]
    to_conf_change(change).write_to_bytes().expect("a change without required fields encodes")
}
