//! How a configuration entry changes voters and learners.
//!
//! Every change goes through joint consensus: its steps make the incoming half
//! while the old voters stay as outgoing, and an entry without steps leaves.
//! The rules are those of raft-rs (`confchange::Changer`), so that the
//! configuration in the root record is the one Raft itself runs with.
//!
//! Source: Raft dissertation §4.3.

use crate::{
    ids::{NodeId, ReplicaId},
    raft::types::{Configuration, ConfigurationChange, ConfigurationStep},
    shard::descriptor::{ReplicaDescriptor, ReplicaRole},
};

/// The configuration a shard is born with.
pub(super) fn of_replicas(replicas: &[ReplicaDescriptor]) -> Configuration {
    let with = |role| {
        let mut ids: Vec<_> =
            replicas.iter().filter(|r| r.role == role).map(|r| r.replica).collect();
        ids.sort_unstable();
        ids
    };
    Configuration {
        voters: with(ReplicaRole::Voter),
        learners: with(ReplicaRole::Learner),
        ..Configuration::default()
    }
}

/// The configuration after a change.
pub(super) fn changed(before: &Configuration, change: &ConfigurationChange) -> Configuration {
    let mut after = before.clone();
    if change.steps.is_empty() {
        let waiting = std::mem::take(&mut after.learners_next);
        after.outgoing.clear();
        for id in waiting {
            insert(&mut after.learners, id);
        }
        return after;
    }
    after.outgoing.clone_from(&before.voters);
    for step in &change.steps {
        match *step {
            ConfigurationStep::Voter(id, _) => {
                forget(&mut after, id);
                insert(&mut after.voters, id);
            }
            ConfigurationStep::Learner(id, _) => {
                forget(&mut after, id);
                // Who still votes in the outgoing half waits until it is left.
                let still_votes = after.outgoing.contains(&id);
                let place =
                    if still_votes { &mut after.learners_next } else { &mut after.learners };
                insert(place, id);
            }
            ConfigurationStep::Remove(id) => forget(&mut after, id),
        }
    }
    after
}

/// The replicas of a configuration, with the nodes known before and those the
/// change names, sorted by id.
pub(super) fn replicas(
    before: &[ReplicaDescriptor],
    change: &ConfigurationChange,
    after: &Configuration,
) -> Vec<ReplicaDescriptor> {
    let votes = |id: &ReplicaId| after.voters.contains(id) || after.outgoing.contains(id);
    let follows = |id: &ReplicaId| after.learners.contains(id) || after.learners_next.contains(id);
    let named = change.steps.iter().filter_map(|step| match *step {
        ConfigurationStep::Voter(id, node) | ConfigurationStep::Learner(id, node) => {
            Some((id, node))
        }
        ConfigurationStep::Remove(_) => None,
    });
    let known = before.iter().map(|replica| (replica.replica, replica.node));
    let mut all: Vec<(ReplicaId, NodeId)> = named.chain(known).collect();
    // Stable: where both name a node, the change's comes first and is kept.
    all.sort_by_key(|(id, _)| *id);
    all.dedup_by_key(|(id, _)| *id);
    all.into_iter()
        .filter(|(id, _)| votes(id) || follows(id))
        .map(|(replica, node)| {
            let role = if votes(&replica) { ReplicaRole::Voter } else { ReplicaRole::Learner };
            ReplicaDescriptor { replica, node, role }
        })
        .collect()
}

fn insert(ids: &mut Vec<ReplicaId>, id: ReplicaId) {
    if let Err(place) = ids.binary_search(&id) {
        ids.insert(place, id);
    }
}

fn forget(configuration: &mut Configuration, id: ReplicaId) {
    configuration.voters.retain(|other| *other != id);
    configuration.learners.retain(|other| *other != id);
    configuration.learners_next.retain(|other| *other != id);
}
