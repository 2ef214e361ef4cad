//! What a shard is asked, and what it answers.

use rkyv::{Archive, Deserialize, Serialize};

use super::Fault;
use crate::{
    auth::{AuthCommand, AuthQuery, AuthView, Principal},
    catalog::command::CatalogCommand,
    ids::{Epoch, LeaseId, LogIndex, NodeId, ReplicaId, SessionId, ShardId},
    mvcc::{
        tally::Tally,
        version::{Hlc, Version},
    },
    shard::{
        command::{Op, Outcome, SessionRequest},
        descriptor::ShardDescriptor,
        leases::{LeaseCommand, LeaseView},
        range::{Range, RangeResult},
        restore::RestoreCommand,
        transaction::Transaction,
        watch::{Events, Place, Watch},
    },
};

/// A request to one shard.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ShardRequest {
    /// Which.
    pub shard: ShardId,
    /// As of which epoch the sender routed.
    pub epoch: Epoch,
    /// Highest clock the sender has seen.
    pub clock: Hlc,
    /// Milliseconds left until the sender gives up.
    pub timeout_ms: u32,
    /// Whether a node has forwarded it already.
    pub forwarded: bool,
    /// As whom: who forwards asks as the same.
    pub principal: Principal,
    /// What to do.
    pub body: ShardBody,
}

/// What a shard is asked.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ShardBody {
    /// Opens a session for exactly-once writes.
    OpenSession,
    /// Ends one.
    CloseSession(SessionId),
    /// Changes keys, all or none.
    Write {
        /// Required for [`WriteLevel::Strong`]; none for the weaker levels.
        request: Option<SessionRequest>,
        /// When to answer.
        level: WriteLevel,
        /// The changes.
        ops: Vec<Op>,
    },
    /// Compares, then does one thing or another, all or none; always strong.
    Transact {
        /// Exactly-once bookkeeping.
        request: SessionRequest,
        /// What to compare and to do.
        transaction: Transaction,
    },
    /// Changes the catalog.
    Catalog {
        /// Exactly-once bookkeeping.
        request: Option<SessionRequest>,
        /// The change.
        command: CatalogCommand,
    },
    /// Reads one key.
    Get {
        /// The key.
        key: Vec<u8>,
        /// How fresh.
        level: ReadLevel,
        /// As of which version; none reads the newest.
        at: Option<Version>,
        /// Whether to leave the value out (stat).
        head_only: bool,
    },
    /// Lists keys in order.
    List {
        /// Keys begin with this.
        prefix: Vec<u8>,
        /// Keys lie strictly after this (resumption).
        after: Option<Vec<u8>>,
        /// At most so many; capped by [`crate::limits::LIST_PAGE_MAX`].
        limit: u32,
        /// How fresh.
        level: ReadLevel,
        /// As of which version; none reads the newest.
        at: Option<Version>,
        /// Whether values come too.
        values: bool,
    },
    /// Reads a range of keys.
    Range {
        /// Which, and what of them.
        range: Range,
        /// How fresh.
        level: ReadLevel,
    },
    /// Tells what happens to keys after a place; waits for it if nothing did.
    Watch {
        /// Which keys, and what of them.
        watch: Watch,
        /// After which place.
        after: Place,
        /// How long to wait, in milliseconds, at most
        /// [`crate::limits::WATCH_WAIT_MS_MAX`]; then the answer has no events.
        wait_ms: u32,
    },
    /// Grants, keeps or ends a lease.
    Lease {
        /// Exactly-once bookkeeping.
        request: SessionRequest,
        /// What to do.
        command: LeaseCommand,
    },
    /// Shows a lease, by its leader's clock.
    ShowLease {
        /// Which.
        lease: LeaseId,
        /// Whether its keys are wanted too.
        keys: bool,
    },
    /// Shows leases in order, at most [`crate::limits::LEASES_PAGE_MAX`], without their keys.
    ListLeases {
        /// Those behind this one; zero begins.
        after: LeaseId,
    },
    /// Changes accounts.
    Auth {
        /// Exactly-once bookkeeping.
        request: SessionRequest,
        /// The change.
        command: AuthCommand,
    },
    /// Asks about accounts.
    ShowAuth(AuthQuery),
    /// Does a step of a restore.
    Restore {
        /// Exactly-once bookkeeping.
        request: SessionRequest,
        /// The step.
        command: RestoreCommand,
    },
    /// Lets versions begin above this one.
    Advance {
        /// No later change gets this version or a lower one.
        version: Version,
    },
    /// Lets go of the history below a version.
    Compact {
        /// The oldest version that shall stay readable.
        version: Version,
    },
    /// State of the replica that gets it.
    Inspect,
    /// Does a transaction that changes nothing: by a read, without an entry of the log.
    Look {
        /// What to compare and to read.
        transaction: Transaction,
        /// How fresh.
        level: ReadLevel,
    },
}

impl ShardBody {
    /// Whether it changes anything, if only a session: then it goes by the log, where apply
    /// judges who may, and how often it is done matters.
    pub fn changes(&self) -> bool {
        match self {
            Self::OpenSession
            | Self::CloseSession(_)
            | Self::Write { .. }
            | Self::Transact { .. }
            | Self::Catalog { .. }
            | Self::Restore { .. }
            | Self::Advance { .. }
            | Self::Lease { .. }
            | Self::Compact { .. }
            | Self::Auth { .. } => true,
            Self::Get { .. }
            | Self::List { .. }
            | Self::Range { .. }
            | Self::Watch { .. }
            | Self::ShowLease { .. }
            | Self::ListLeases { .. }
            | Self::ShowAuth(_)
            | Self::Look { .. }
            | Self::Inspect => false,
        }
    }
}

/// When a write is answered. The order is from strongest to weakest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum WriteLevel {
    /// Durable on a majority and applied: survives everything a quorum survives.
    #[default]
    Strong,
    /// In the memory of a majority (`sync: false`): power loss may lose it.
    Memory,
    /// In the memory of the leader (`eventual`): its death may lose it.
    Eventual,
}

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Linearizable.
    #[default]
    Strong,
    /// At most so old, by closed time.
    Bounded {
        /// Greatest age in milliseconds.
        staleness_ms: u32,
    },
    /// Whatever the asked replica has.
    Eventual,
}

/// What a shard answered.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ShardAnswer {
    /// The shard's clock, to be brought along.
    pub clock: Hlc,
    /// Who answered; a hint where the leader is.
    pub leader: Option<NodeId>,
    /// The result.
    pub result: Result<ShardResult, Fault>,
}

/// A result of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ShardResult {
    /// Of a command.
    Outcome(Outcome),
    /// Accepted at a weaker level; there is no version yet.
    Accepted,
    /// Of a get; none if there is no such key.
    Value(Option<Item>),
    /// Of a list.
    Page {
        /// Keys in order.
        items: Vec<Item>,
        /// Whether more follow.
        more: bool,
        /// The version the list was read at.
        at: Version,
    },
    /// Of a range, and the newest version when it was read.
    Range {
        /// What was found.
        result: RangeResult,
        /// The version it was read at.
        at: Version,
        /// The newest version.
        now: Version,
    },
    /// Of a watch.
    Events(Events),
    /// Of a lease; none if there is none, and the newest version.
    Lease(Option<LeaseView>, Version),
    /// Leases in order, without their keys.
    Leases {
        /// What was found.
        leases: Vec<LeaseView>,
        /// Whether more follow.
        more: bool,
        /// The newest version.
        now: Version,
    },
    /// About accounts, and the newest version.
    Auth(AuthView, Version),
    /// Of inspect.
    Replica(ReplicaStatus),
}

/// One key as read.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty when only the head was asked for.
    pub value: Vec<u8>,
    /// Bytes of the value.
    pub value_bytes: u64,
    /// When it was created.
    pub created: Version,
    /// When it was last changed.
    pub modified: Version,
    /// Changes since it was created, from 1.
    pub changes: u64,
    /// Wall milliseconds of the last change.
    pub modified_ms: u64,
    /// The lease it hangs on; zero for none.
    pub lease: LeaseId,
}

/// One replica's state.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Which.
    pub replica: ReplicaId,
    /// Its shard, as its log says.
    pub descriptor: ShardDescriptor,
    /// Whether it leads.
    pub leading: bool,
    /// Where it sees the leader.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Committed position.
    pub committed: LogIndex,
    /// Applied position.
    pub applied: LogIndex,
    /// Last position.
    pub last: LogIndex,
    /// Whether it sleeps.
    pub hibernating: bool,
    /// Last applied version.
    pub version: Version,
    /// Versions below this one can no longer be read.
    pub compacted: Version,
    /// How many keys it holds.
    pub tally: Tally,
    /// Whether a restore was begun and has not ended.
    pub restoring: bool,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
}
