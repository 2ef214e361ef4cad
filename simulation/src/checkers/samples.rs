//! Reports for the tests of checkers: all of the first shard.

use actors::probe::Report;
use cluster::{
    ids::{Epoch, LogIndex, ReplicaId, ShardId, Term},
    raft::types::Configuration,
};

/// The first replica applied a position.
pub(super) fn applied(index: u64, term: u64) -> Report {
    Report::Applied {
        shard: ShardId(1),
        replica: ReplicaId(1),
        index: LogIndex(index),
        term: Term(term),
        repeated: 0,
        expired: 0,
    }
}

/// The first replica applied a configuration.
pub(super) fn configured(index: u64, voters: &[u64], outgoing: &[u64]) -> Report {
    let replicas = |numbers: &[u64]| numbers.iter().copied().map(ReplicaId).collect();
    let (voters, outgoing) = (replicas(voters), replicas(outgoing));
    Report::Configured {
        shard: ShardId(1),
        replica: ReplicaId(1),
        index: LogIndex(index),
        epoch: Epoch(index),
        configuration: Configuration { voters, outgoing, ..Configuration::default() },
    }
}
