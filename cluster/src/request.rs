//! What clients and nodes ask of a node, and what it answers: the native door.
//!
//! One request form for all: the command line, the library and a node that
//! forwards. Every data request names shard and epoch; a stale one gets the
//! newer descriptor instead of an answer; at most one node forwards it.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    auth::{AuthCommand, AuthError, AuthQuery, AuthView, Principal},
    catalog::command::CatalogCommand,
    formats::{InvalidRecord, from_bytes, to_versioned_bytes},
    ids::{CATALOG_SHARD, Epoch, LeaseId, LogIndex, NodeId, ReplicaId, SessionId, ShardId},
    mvcc::{
        tally::Tally,
        version::{Hlc, Version},
    },
    ports::network::RequestClass,
    shard::{
        command::{Op, Outcome, SessionRequest},
        descriptor::ShardDescriptor,
        leases::{LeaseCommand, LeaseRecord, LeaseView},
        range::{Range, RangeResult},
        restore::RestoreCommand,
        transaction::Transaction,
        watch::{Events, Place, Watch},
    },
};

/// Version of the request and answer encoding, first in every body (`u16`,
/// little-endian).
pub const REQUEST_VERSION: u16 = 1;

/// A body that is no request or answer of a version we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// Too short for its version.
    #[error("the body is empty")]
    Empty,
    /// Written by another release.
    #[error("the body has version {found}, this release speaks {REQUEST_VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// Not what it should be.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
}

impl Request {
    /// The class it travels in; both ends judge it by this one table.
    pub fn class(&self) -> RequestClass {
        match self {
            Self::Shard(request) if request.shard == CATALOG_SHARD => RequestClass::Admin,
            Self::Shard(_) => RequestClass::Data,
            Self::CatalogChanges { .. } | Self::NodeStatus | Self::NewToken { .. } => {
                RequestClass::Admin
            }
            Self::SnapshotPiece(_) => RequestClass::Bulk,
            Self::Join(_) => RequestClass::Join,
        }
    }

    /// The request as bytes of a frame's payload.
    pub fn encode(&self) -> Vec<u8> {
        to_versioned_bytes(REQUEST_VERSION, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are of another version or no request.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBody> {
        Ok(from_bytes(body(bytes)?)?)
    }
}

impl Answer {
    /// The answer as bytes of a frame's payload.
    pub fn encode(&self) -> Vec<u8> {
        to_versioned_bytes(REQUEST_VERSION, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are of another version or no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBody> {
        Ok(from_bytes(body(bytes)?)?)
    }
}

fn body(bytes: &[u8]) -> Result<&[u8], BadBody> {
    let (version, rest) = bytes.split_first_chunk::<2>().ok_or(BadBody::Empty)?;
    match u16::from_le_bytes(*version) {
        REQUEST_VERSION => Ok(rest),
        found => Err(BadBody::Version { found }),
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Request {
    /// To one shard.
    Shard(ShardRequest),
    /// What this node knows: catalog records changed after a version. The
    /// answer waits up to `wait_ms` for something newer.
    CatalogChanges {
        /// Last version the asker has.
        after: Version,
        /// How long to wait, in milliseconds (at most 10,000).
        wait_ms: u32,
    },
    /// This node's own state, as JSON for people and scripts.
    NodeStatus,
    /// A piece of a snapshot (nodes only).
    SnapshotPiece(SnapshotPieceRequest),
    /// Admission of a new node (the only request open to strangers).
    Join(JoinRequest),
    /// A new join token (administrators only).
    NewToken {
        /// How long it lets a node in, in milliseconds, from 1 to
        /// [`crate::limits::TOKEN_LIFETIME_MS_MAX`].
        lifetime_ms: u32,
    },
}

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

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// Of a shard.
    Shard(ShardAnswer),
    /// Catalog records changed, in key order, and the version they reach.
    CatalogChanges {
        /// The new version to ask after.
        version: Version,
        /// Key and record; none if deleted.
        changes: Vec<(String, Option<Vec<u8>>)>,
    },
    /// JSON.
    NodeStatus(String),
    /// A piece of a snapshot.
    SnapshotPiece(SnapshotPiece),
    /// Admission.
    Joined(JoinAnswer),
    /// A join token as the user types it.
    Token(String),
    /// Not served.
    Fault(Fault),
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
}

/// Asks for a piece of a pinned snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotPieceRequest {
    /// The shard.
    pub shard: ShardId,
    /// The replica that asks.
    pub replica: ReplicaId,
    /// The offer.
    pub id: u64,
    /// Last position received; empty at the beginning.
    pub after: Vec<u8>,
    /// At most about so many bytes.
    pub bytes_max: u32,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotPiece {
    /// Root record of the snapshot, in every piece.
    pub root: Vec<u8>,
    /// History below this version is not all among the records; in every piece.
    pub kept_from: Version,
    /// Records in order: key, version, sub, record bytes.
    pub records: Vec<SnapshotRecord>,
    /// Leases in order; they follow the last record.
    pub leases: Vec<LeaseRecord>,
    /// Position to continue after.
    pub position: Vec<u8>,
    /// Whether this was the last piece.
    pub last: bool,
    /// Bytes sent so far and in all (estimate), for progress.
    pub progress: (u64, u64),
}

/// One version of one key inside a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: Version,
    /// Its place within that version.
    pub sub: u32,
    /// The stored record.
    pub record: Vec<u8>,
}

/// A stranger asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret.
    pub secret: [u8; 32],
    /// The id born with its data directory.
    pub node: NodeId,
    /// Certificate signing request (DER).
    pub signing_request: Vec<u8>,
    /// Where its QUIC port is reached.
    pub addresses: Vec<String>,
    /// Where its HTTP port is reached.
    pub http_address: String,
    /// Failure domain.
    pub zone: String,
    /// Bytes it offers.
    pub capacity_bytes: u64,
    /// Its first start.
    pub boot: crate::membership::Boot,
}

/// What a new node needs.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The cluster.
    pub cluster: crate::ids::ClusterId,
    /// Its number, for people.
    pub number: u64,
    /// Its certificate (DER).
    pub certificate: Vec<u8>,
    /// The authority's certificate (DER).
    pub authority: Vec<u8>,
    /// Key that opens the sealed authority key.
    pub cluster_key: [u8; 32],
    /// Members to gossip with: id and addresses.
    pub members: Vec<(NodeId, Vec<String>)>,
}

impl std::fmt::Debug for JoinAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinAnswer")
            .field("cluster", &self.cluster)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_another_version_is_refused() {
        let request = Request::CatalogChanges { after: Version(7), wait_ms: 3 };
        let mut bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Ok(request));
        bytes[0] = 9;
        assert_eq!(Request::decode(&bytes), Err(BadBody::Version { found: 9 }));
        assert_eq!(Request::decode(&[]), Err(BadBody::Empty));
    }
}
