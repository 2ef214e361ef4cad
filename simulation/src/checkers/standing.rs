//! How far each replica has come: no property, but what a report on missing
//! progress says of those that are behind or silent.

use std::{collections::BTreeMap, fmt};

use actors::probe::Report;
use cluster::ids::{LogIndex, ReplicaId, ShardId};

/// A replica as its reports show it.
#[derive(Clone, Debug)]
struct Standing {
    node: u32,
    applied: LogIndex,
    /// Why it takes no part any more.
    out: Option<&'static str>,
}

/// All replicas that ever reported, but those that left.
#[derive(Debug, Default)]
pub(super) struct Standings(BTreeMap<(ShardId, ReplicaId), Standing>);

/// A replica that takes no part, or stands behind the first of its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    shard: ShardId,
    replica: ReplicaId,
    node: u32,
    applied: LogIndex,
    first: LogIndex,
    out: Option<&'static str>,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, replica, node, applied, first, out } = self;
        match out {
            Some(how) => write!(f, "{replica} of {shard} on n{node} {how}"),
            None => write!(
                f,
                "{replica} of {shard} on n{node} was last heard of at {applied}, the first stands at {first}"
            ),
        }
    }
}

impl Standings {
    /// Takes note.
    pub(super) fn report(&mut self, node: u32, report: &Report) {
        match report {
            Report::Applied { shard, replica, index, .. }
            | Report::SnapshotInstalled { shard, replica, index } => {
                self.0.insert((*shard, *replica), Standing { node, applied: *index, out: None });
            }
            Report::ReplicaLost { shard, replica, .. } => self.out((*shard, *replica), "is lost"),
            Report::ReplicaStopped { shard, replica, .. } => {
                self.out((*shard, *replica), "has stopped");
            }
            Report::ReplicaReplaced { shard, replica } => {
                self.0.remove(&(*shard, *replica));
            }
            Report::Elected { .. }
            | Report::Configured { .. }
            | Report::SnapshotPinned { .. }
            | Report::SnapshotOpened { .. }
            | Report::SnapshotResumed { .. }
            | Report::LeadershipOffered { .. }
            | Report::Gathered { .. }
            | Report::Hibernating { .. }
            | Report::Restarted { .. }
            | Report::PeerRefused { .. }
            | Report::DiskFenced { .. } => {}
        }
    }

    fn out(&mut self, who: (ShardId, ReplicaId), how: &'static str) {
        if let Some(standing) = self.0.get_mut(&who) {
            standing.out = Some(how);
        }
    }

    /// Those who are out, or behind the first of their shard.
    pub(super) fn silent(&self) -> Vec<Silence> {
        let mut first: BTreeMap<ShardId, LogIndex> = BTreeMap::new();
        for ((shard, _), standing) in &self.0 {
            let most = first.entry(*shard).or_default();
            *most = (*most).max(standing.applied);
        }
        let silence = |((shard, replica), standing): (&(ShardId, ReplicaId), &Standing)| {
            let first = first.get(shard).copied().unwrap_or_default();
            let Standing { node, applied, out } = *standing;
            let silent = out.is_some() || applied < first;
            silent.then_some(Silence {
                shard: *shard,
                replica: *replica,
                node,
                applied,
                first,
                out,
            })
        };
        self.0.iter().filter_map(silence).collect()
    }
}

#[cfg(test)]
mod tests {
    use cluster::{catalog::record::Loss, ids::Term};

    use super::*;

    #[test]
    fn who_is_behind_or_lost_is_named_and_who_left_is_not() {
        let shard = ShardId(3);
        let applied = |replica, index| Report::Applied {
            shard,
            replica: ReplicaId(replica),
            index: LogIndex(index),
            term: Term(1),
            repeated: 0,
            expired: 0,
        };
        let mut standings = Standings::default();
        for (node, replica, index) in [(1, 1, 9), (2, 2, 5), (3, 3, 9), (4, 4, 2)] {
            standings.report(node, &applied(replica, index));
        }
        let lost = Report::ReplicaLost { shard, replica: ReplicaId(3), loss: Loss::Log };
        standings.report(3, &lost);
        standings.report(4, &Report::ReplicaReplaced { shard, replica: ReplicaId(4) });
        let told: Vec<String> = standings.silent().iter().map(Silence::to_string).collect();
        assert_eq!(
            told,
            [
                "r2 of s3 on n2 was last heard of at #5, the first stands at #9",
                "r3 of s3 on n3 is lost"
            ]
        );
    }
}
