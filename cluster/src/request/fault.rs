//! Why a request was not served.

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    auth::AuthError,
    ids::{NodeId, ShardId},
    mvcc::version::Version,
    shard::{descriptor::ShardDescriptor, range::TooLarge},
    units::ByteSize,
};

/// Why a request was not served. Each says whether a retry can help.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    /// Asked of a replica that does not lead; the leader may be elsewhere.
    #[error("this replica does not lead its shard")]
    NotLeader {
        /// Where the leader is thought to be.
        leader: Option<NodeId>,
    },
    /// The node has no replica of that shard.
    #[error("this node has no replica of {0}")]
    NoReplica(ShardId),
    /// The sender's map is older than the shard.
    #[error("the shard has moved on to a newer epoch")]
    StaleEpoch(ShardDescriptor),
    /// Admission refused it; nothing was done.
    #[error("too much is under way here; try again in {retry_after_ms} ms")]
    Busy {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The leader stepped down or lost its quorum while the request was under
    /// way: it may or may not be executed. Retry with the same session number.
    #[error("the leader changed while the request was under way")]
    Interrupted,
    /// No answer in time; as [`Self::Interrupted`].
    #[error("no quorum answered in time")]
    Timeout,
    /// The disk is too full for writes; deletes still work.
    #[error(
        "the disk of node {node} is {percent_used} % full: delete keys, remove a volume or add space"
    )]
    DiskFull {
        /// Which node.
        node: NodeId,
        /// How full.
        percent_used: u8,
    },
    /// A clock is too far ahead.
    #[error("{0}")]
    ClockAhead(String),
    /// The replica was stopped by a broken invariant or damaged bytes.
    #[error("the replica is stopped: {0}")]
    Stopped(String),
    /// The shard is not whole: a restore was begun and has not ended.
    #[error("the volume is being restored and is not whole yet")]
    Restoring,
    /// The version asked for lies in the future.
    #[error("{0}")]
    NoSuchVersion(String),
    /// The version asked for is older than what is kept.
    #[error("version {at} is compacted away; the oldest kept is {compacted}")]
    Compacted {
        /// Asked for.
        at: Version,
        /// Oldest version that can be read.
        compacted: Version,
    },
    /// The asker may not do that.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The accounts of the volume say no.
    #[error(transparent)]
    Denied(AuthError),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for whole does not fit into one answer: page by page it does.
    #[error(transparent)]
    TooLarge(TooLarge),
    /// The store of the shard is near its limit; deletes still work.
    #[error(
        "the store of {shard} on node {node} is at {percent_used} % of its limit of {}: delete keys and compact, or raise limits.store of the nodes",
        ByteSize(*limit_bytes)
    )]
    StoreFull {
        /// Which node.
        node: NodeId,
        /// Which shard.
        shard: ShardId,
        /// How much of the limit is used, in percent.
        percent_used: u8,
        /// The limit.
        limit_bytes: u64,
    },
}
