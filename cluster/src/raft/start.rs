//! How a replica begins: its configuration, what its disk holds, and whether
//! the two fit.
//!
//! A disk that contradicts itself is refused by name, never mended: the replica
//! may have forgotten what it promised, and its peers rebuild it.

use raft::{
    Config,
    eraftpb::{self, ConfState},
};

use super::{ConfigurationFault, configuration::to_conf_state, storage::Log, wire};
use crate::{
    ids::{Epoch, LogIndex, ReplicaId, ShardId, Term},
    raft::types::{Configuration, Entry, HardState},
};

/// Soft limit of one append message; one entry may exceed it.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Append messages under way to one follower: 64 MiB at worst.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes a leader takes that are not committed yet. Beyond, proposals are
/// dropped: memory of a leader without a quorum stays bounded.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Bytes handed out for apply in one effect; more follows in the next.
const APPLY_BYTES_MAX: u64 = 8 << 20;
/// How a group behaves. The same on all replicas of a shard but for ids and seed.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The shard.
    pub shard: ShardId,
    /// This replica.
    pub replica: ReplicaId,
    /// Seed of election timeouts; different on each replica, or they tie.
    pub seed: u64,
    /// Ticks without a leader before an election, at least; drawn from here to
    /// just below the double. Default 10. Shorter finds a dead leader sooner
    /// and mistakes slow ones for dead.
    pub election_ticks: u32,
    /// Ticks between heartbeats. Default 2.
    pub heartbeat_ticks: u32,
    /// Bytes of applied entries kept in memory for followers that lag. Beyond
    /// them entries are fetched from the log.
    pub memory_bytes_max: usize,
    /// Idle ticks before a leader proposes to sleep; none never sleeps.
    pub hibernate_after_ticks: Option<u32>,
}

impl GroupConfig {
    /// The usual timing: heartbeats every 2 ticks, elections after 10 to 19,
    /// sleep after 100, 1 MiB of applied entries.
    pub fn new(shard: ShardId, replica: ReplicaId, seed: u64) -> Self {
        Self {
            shard,
            replica,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 2,
            memory_bytes_max: 1 << 20,
            hibernate_after_ticks: Some(100),
        }
    }
}

/// What a replica knows when it starts: its log as recovered and the position
/// its store stands at.
#[derive(Clone, Debug, Default)]
pub struct GroupStart {
    /// Term, vote and commit; the default for a new replica.
    pub hard_state: HardState,
    /// Last position before the first entry.
    pub base_index: LogIndex,
    /// Term of that position.
    pub base_term: Term,
    /// Entries after the base, without gaps.
    pub entries: Vec<Entry>,
    /// Configuration at `applied`. Empty for a replica created to join a shard
    /// that exists: it takes a snapshot before anything else, because the log
    /// does not tell with which voters the shard was born.
    pub configuration: Configuration,
    /// Epoch at `applied`.
    pub epoch: Epoch,
    /// Last position the store contains, durably.
    pub applied: LogIndex,
}

/// Why a group cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The log has a hole.
    #[error("log of {replica} jumps from {after} to {found}: rebuild this replica from its peers")]
    Gap {
        /// Whose log.
        replica: ReplicaId,
        /// The position before the hole.
        after: LogIndex,
        /// The position after it.
        found: LogIndex,
    },
    /// The store is older than the log's beginning.
    #[error(
        "store of {replica} stands at {applied}, before its log's base {base}: rebuild this replica from its peers"
    )]
    StoreBehind {
        /// Whose.
        replica: ReplicaId,
        /// Where the store stands.
        applied: LogIndex,
        /// Where the log begins.
        base: LogIndex,
    },
    /// The store, or the commit position, is ahead of the log's end: the log
    /// lost entries it had acknowledged.
    #[error(
        "log of {replica} ends at {last} but {known} was already committed: rebuild this replica from its peers"
    )]
    LogShort {
        /// Whose.
        replica: ReplicaId,
        /// Where the log ends.
        last: LogIndex,
        /// What was known committed or applied.
        known: LogIndex,
    },
    /// An entry cannot be read.
    #[error("entry {index} of {replica} is not valid: {cause}")]
    Entry {
        /// Whose.
        replica: ReplicaId,
        /// Which.
        index: LogIndex,
        /// What is wrong.
        cause: String,
    },
    /// The configuration contradicts itself.
    #[error("configuration of {replica} is not valid: {cause}")]
    Configuration {
        /// Whose.
        replica: ReplicaId,
        /// What is wrong.
        cause: String,
    },
    /// raft-rs refused to start.
    #[error("raft of {replica} does not start: {cause}")]
    Raft {
        /// Whose.
        replica: ReplicaId,
        /// What it said.
        cause: String,
    },
}

pub(super) fn ticks(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

pub(super) fn raft_config(config: &GroupConfig, applied: LogIndex) -> Config {
    Config {
        id: config.replica.0,
        election_tick: ticks(config.election_ticks),
        heartbeat_tick: ticks(config.heartbeat_ticks),
        applied: applied.0,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        // Followers learn of a commit with the next append, or a moment later
        // (`commits.rs`): one message per write less.
        skip_bcast_commit: true,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: APPLY_BYTES_MAX,
        ..Config::default()
    }
}

/// Checks that log, store and configuration fit, and gives the hard state
/// raft-rs starts from: a trimmed or applied position is committed even when
/// the stored commit lags behind it.
pub(super) fn check(replica: ReplicaId, start: &GroupStart) -> Result<HardState, GroupError> {
    let GroupStart { base_index: base, applied, .. } = *start;
    if !start.configuration.is_empty() {
        let invalid = |fault: ConfigurationFault| GroupError::Configuration {
            replica,
            cause: fault.to_string(),
        };
        start.configuration.check().map_err(invalid)?;
    }
    if applied < base {
        return Err(GroupError::StoreBehind { replica, applied, base });
    }
    let mut last = (base, start.base_term);
    for entry in &start.entries {
        if entry.index.0 != last.0.0 + 1 {
            return Err(GroupError::Gap { replica, after: last.0, found: entry.index });
        }
        if entry.term < last.1 {
            let cause = format!("its {} is older than the one before", entry.term);
            return Err(GroupError::Entry { replica, index: entry.index, cause });
        }
        last = (entry.index, entry.term);
    }
    let known = applied.max(start.hard_state.commit);
    if known > last.0 {
        return Err(GroupError::LogShort { replica, last: last.0, known });
    }
    let mut hard_state = start.hard_state;
    hard_state.commit = known;
    if last.1 > hard_state.term {
        // A replica born at a later position has entries of a term it never saw.
        hard_state.term = last.1;
        hard_state.vote = ReplicaId(0);
    }
    Ok(hard_state)
}

pub(super) fn open_log(
    replica: ReplicaId,
    start: &GroupStart,
    hard_state: HardState,
) -> Result<Log, GroupError> {
    let raw_state = eraftpb::HardState {
        term: hard_state.term.0,
        vote: hard_state.vote.0,
        commit: hard_state.commit.0,
        ..eraftpb::HardState::default()
    };
    let conf: ConfState = to_conf_state(&start.configuration);
    let mut log = Log::new(start.base_index.0, start.base_term.0, raw_state, conf);
    let convert = |entry: &Entry| {
        let index = entry.index;
        wire::entry_to_raft(entry.clone()).map_err(|fault| GroupError::Entry {
            replica,
            index,
            cause: fault.to_string(),
        })
    };
    log.append(start.entries.iter().map(convert).collect::<Result<_, _>>()?);
    Ok(log)
}
