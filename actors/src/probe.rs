//! What actors report to whoever watches: checkers, metrics, logs.
//!
//! A report is a fact worth more than a debug line: simulation checks
//! invariants on it, a node counts it.

use std::fmt;

use cluster::{
    catalog::record::Loss,
    ids::{Epoch, LogIndex, NodeId, ReplicaId, ShardId, Term},
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
    },
    /// A new configuration took effect.
    Configured {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        epoch: Epoch,
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
            | Report::SnapshotInstalled { .. } => tracing::info!(?report, "report"),
            Report::Applied { .. } | Report::Hibernating { .. } => {
                tracing::trace!(?report, "report");
            }
        }
    }
}
