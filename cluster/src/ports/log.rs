//! The disk's log as a replica sees it: ask, and be told when it is durable.
//!
//! One log serves all replicas of a disk; the writer joins what is waiting
//! into one append and one sync (group commit). Completions may come in any
//! order between replicas, and in order within one.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use std::fmt;

use crate::{
    ids::{LogIndex, ReplicaId, ShardId, StoreId, Term, VolumeId},
    log::LogUsage,
    raft::types::{Entry, HardState},
};

/// Called once with the outcome, on any thread; it must not block.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// One atomic record of one replica.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum LogRecord {
    /// A replica is born on this disk. Its log starts empty after `index`.
    Created {
        /// The shard it copies.
        shard: ShardId,
        /// The volume of that shard.
        volume: VolumeId,
        /// Where its data lies.
        store: StoreId,
        /// Position its store stands at (0 for a new shard).
        index: LogIndex,
        /// Term of that position.
        term: Term,
    },
    /// What one Raft step must make durable. Entries at or after the first
    /// index given replace what was there. Never split: a joint configuration
    /// survives a restart only if hard state and entries come together.
    Ready {
        /// Term, vote and commit, when they moved.
        hard_state: Option<HardState>,
        /// Entries in index order, possibly none.
        entries: Vec<Entry>,
    },
    /// A received snapshot becomes the replica's store; the log restarts after it.
    Installed {
        /// The store that was filled and synced.
        store: StoreId,
        /// Last position the snapshot contains.
        index: LogIndex,
        /// Term of that position.
        term: Term,
        /// Hard state that goes with it.
        hard_state: HardState,
    },
    /// The store has proven everything up to here; older entries may go.
    Trimmed {
        /// Last position that is no longer needed.
        index: LogIndex,
        /// Term of that position.
        term: Term,
    },
    /// The replica is gone for good; its records are dead.
    Destroyed,
}

/// A replica found in the log at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// Which.
    pub replica: ReplicaId,
    /// The shard it copies.
    pub shard: ShardId,
    /// The volume of that shard.
    pub volume: VolumeId,
    /// Where its data lies.
    pub store: StoreId,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// Last position before the first entry kept.
    pub base_index: LogIndex,
    /// Term of that position.
    pub base_term: Term,
    /// Entries kept after the base, without gaps.
    pub entries: Vec<Entry>,
    /// Set when records of this replica lie in a damaged extent: it may have
    /// forgotten a vote or an acknowledged entry, so it must neither vote nor
    /// acknowledge again; the quorum replaces it under a new id.
    pub damaged: bool,
}

/// Why the log could not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A write or sync failed; the disk is fenced for good and the node must
    /// restart through recovery.
    #[error("log is fenced after a failed write: {0}")]
    Fenced(String),
    /// No room for another segment. Nothing was written; deleting helps.
    #[error("no space for the log: {0}")]
    Full(String),
    /// Too much is waiting for the disk; nothing was written. Whoever appends
    /// keeps fewer records in flight and gives this one again before any later
    /// one of the same replica.
    #[error("queue of the log is full, try again when earlier appends are done")]
    Busy,
    /// The record breaks a rule of the log (unknown replica, gap in the
    /// entries, second vote in a term, too large); nothing was written.
    #[error("log refuses a record of {replica}: {cause}")]
    Refused {
        /// Whose.
        replica: ReplicaId,
        /// The rule.
        cause: String,
    },
    /// The entries asked for are trimmed or were never there.
    #[error("{replica} has no entries {from}..{to} in the log")]
    Missing {
        /// Whose.
        replica: ReplicaId,
        /// First position asked for.
        from: LogIndex,
        /// First position not asked for.
        to: LogIndex,
    },
    /// Bytes read back do not match their checksum.
    #[error("log record of {replica} is damaged: {cause}")]
    Damaged {
        /// Whose.
        replica: ReplicaId,
        /// What was wrong.
        cause: String,
    },
}

/// What keeps a log from shrinking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPins {
    /// What the log takes and holds.
    pub usage: LogUsage,
    /// Replicas whose entries keep the oldest segment; flush these first.
    pub oldest_segment_replicas: Vec<ReplicaId>,
}

/// The log of one disk.
pub trait LogStore: Send + Sync + fmt::Debug {
    /// Appends one record; `done` is called when it is durable or refused.
    fn append(&self, replica: ReplicaId, record: LogRecord, done: Done<Result<(), LogError>>);
    /// Fetches entries `from..to`, at least one and about `bytes_max` bytes.
    fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        done: Done<Result<Vec<Entry>, LogError>>,
    );
    /// Reads back all that the log holds of one replica, behind the appends
    /// given before: its actor failed and begins again.
    fn recover(&self, replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>>);
    /// Asks what keeps the log from shrinking. A log that has ended drops the
    /// question.
    fn pins(&self, done: Done<LogPins>);
}
