//! What actors report to whoever watches: checkers, metrics, logs.
//!
//! A report is a fact worth more than a debug line: simulation checks
//! invariants on it, a node counts it.

use std::fmt;

use cluster::{
    catalog::record::Loss,
    ids::{Epoch, LogIndex, NodeId, ReplicaId, ShardId, Term},
    raft::types::Configuration,
};

use crate::failpoint::FailPoint;

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A replica leads its shard in a term.
    Elected {
        /// The shard.
        shard: ShardId,
        /// Who leads.
        replica: ReplicaId,
        /// In which term.
        term: Term,
    },
    /// A replica applied entries up to a position.
    Applied {
        /// The shard.
        shard: ShardId,
        /// Whose.
        replica: ReplicaId,
        /// Last position applied.
        index: LogIndex,
        /// Term of that entry.
        term: Term,
        /// Requests among them that had been executed before.
        repeated: u32,
        /// Sessions that ended by themselves at them: idle for too long, or
        /// one too many.
        expired: u32,
    },
    /// A replica applied a new configuration.
    Configured {
        /// The shard.
        shard: ShardId,
        /// Whose log says so.
        replica: ReplicaId,
        /// Where in the log it stands.
        index: LogIndex,
        /// The shard's epoch from then on.
        epoch: Epoch,
        /// Voters, those that leave while it is joint, and learners.
        configuration: Configuration,
    },
    /// A leader's state was pinned, to be copied.
    SnapshotPinned {
        /// The shard.
        shard: ShardId,
        /// Whose state it is.
        replica: ReplicaId,
        /// Last position it contains.
        index: LogIndex,
    },
    /// A copy is open: it shows what was pinned.
    SnapshotOpened {
        /// The shard.
        shard: ShardId,
        /// Where.
        replica: ReplicaId,
        /// Last position it contains.
        index: LogIndex,
    },
    /// A snapshot was installed.
    SnapshotInstalled {
        /// The shard.
        shard: ShardId,
        /// Where.
        replica: ReplicaId,
        /// Last position it contains.
        index: LogIndex,
    },
    /// A snapshot goes on where an earlier fetch of it ended.
    SnapshotResumed {
        /// The shard.
        shard: ShardId,
        /// Where.
        replica: ReplicaId,
    },
    /// A leader was told to give its shard to another replica.
    LeadershipOffered {
        /// The shard.
        shard: ShardId,
        /// Who leads.
        replica: ReplicaId,
    },
    /// A leader's crowd gathered for a round, for its processor is short.
    Gathered {
        /// Whose.
        replica: ReplicaId,
        /// How many proposals it has.
        proposals: usize,
    },
    /// A replica fell asleep or woke.
    Hibernating {
        /// Whose.
        replica: ReplicaId,
        /// Whether it sleeps now.
        asleep: bool,
    },
    /// What this node holds of a replica is damaged, old or gone: it takes no
    /// part any more, and the cluster replaces it.
    ReplicaLost {
        /// The shard.
        shard: ShardId,
        /// Which replica.
        replica: ReplicaId,
        /// What happened.
        loss: Loss,
    },
    /// A lost replica left its shard, and what was left of it this disk.
    ReplicaReplaced {
        /// The shard.
        shard: ShardId,
        /// The one that was lost.
        replica: ReplicaId,
    },
    /// A replica stopped for good on this node: a poison entry, a bug. A new
    /// copy would come to the same end; a human must look.
    ReplicaStopped {
        /// The shard.
        shard: ShardId,
        /// Which replica.
        replica: ReplicaId,
        /// Why.
        cause: String,
    },
    /// A supervised actor failed and is started again.
    Restarted {
        /// What it is.
        actor: &'static str,
        /// Why it failed.
        cause: String,
    },
    /// A message of a node was refused: its disk is an old image, or it lies.
    PeerRefused {
        /// Who.
        peer: NodeId,
        /// Why.
        cause: String,
    },
    /// The log's device failed; the node must stop.
    DiskFenced {
        /// Why.
        cause: String,
    },
}

/// Receives reports. Must be quick and must not block.
pub trait Probe: Send + Sync + fmt::Debug {
    /// Takes note.
    fn report(&self, report: Report);

    /// A named place was reached. Only a simulator cares.
    fn reach(&self, _point: FailPoint) {}
}

/// A probe that only writes to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingProbe;

impl Probe for TracingProbe {
    fn report(&self, report: Report) {
        match &report {
            Report::ReplicaStopped { .. } | Report::DiskFenced { .. } => {
                tracing::error!(?report, "needs attention");
            }
            Report::Restarted { .. } | Report::PeerRefused { .. } | Report::ReplicaLost { .. } => {
                tracing::warn!(?report, "report");
            }
            Report::Elected { .. }
            | Report::Configured { .. }
            | Report::ReplicaReplaced { .. }
            | Report::LeadershipOffered { .. }
            | Report::SnapshotPinned { .. }
            | Report::SnapshotOpened { .. }
            | Report::SnapshotResumed { .. }
            | Report::SnapshotInstalled { .. } => tracing::info!(?report, "report"),
            Report::Applied { .. } | Report::Gathered { .. } | Report::Hibernating { .. } => {
                tracing::trace!(?report, "report");
            }
        }
    }
}
