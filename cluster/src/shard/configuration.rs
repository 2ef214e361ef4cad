//! The replicas of a shard as its configuration entries name them.
//!
//! `raft::configuration` says who votes after a change; here the descriptor
//! learns on which node each of them lies. The steps of the log are the only
//! source: an entry that adds a replica names its node.

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
