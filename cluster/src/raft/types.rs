//! Our own forms of what Raft stores and sends; raft-rs types never leave this folder.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::ids::{Epoch, LogIndex, ReplicaId, ShardId, Term};

/// What a replica must remember to stay honest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HardState {
    /// Current term.
    pub term: Term,
    /// Who got this replica's vote in that term; `ReplicaId(0)` for nobody.
    pub vote: ReplicaId,
    /// Highest position known committed.
    pub commit: LogIndex,
}

/// One entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Its position.
    pub index: LogIndex,
    /// The term it was proposed in.
    pub term: Term,
    /// What it carries.
    pub payload: Payload,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Payload {
    /// A new leader's first entry.
    Empty,
    /// A versioned command; see `shard::command`.
    Command(Vec<u8>),
    /// A change of voters and learners, in our own form.
    Configuration(ConfigurationChange),
}

/// Voters and learners of a shard; joint while `outgoing` is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Configuration {
    /// Voters of the (incoming) configuration, sorted.
    pub voters: Vec<ReplicaId>,
    /// Voters of the outgoing configuration while joint, sorted.
    pub outgoing: Vec<ReplicaId>,
    /// Learners, sorted.
    pub learners: Vec<ReplicaId>,
    /// Learners that wait for the joint configuration to end, sorted.
    pub learners_next: Vec<ReplicaId>,
}

/// A change of configuration as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ConfigurationChange {
    /// The epoch that begins when it is applied.
    pub epoch: Epoch,
    /// Steps, applied together through joint consensus; empty leaves a joint
    /// configuration.
    pub steps: Vec<ConfigurationStep>,
}

/// One step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ConfigurationStep {
    /// Adds or promotes a voter on a node.
    Voter(ReplicaId, crate::ids::NodeId),
    /// Adds or demotes to a learner on a node.
    Learner(ReplicaId, crate::ids::NodeId),
    /// Removes a replica.
    Remove(ReplicaId),
}

/// A batch of messages from one node to another: one frame per peer and turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RaftBatch {
    /// The sender's boot; a restored old disk image shows another one.
    pub boot: crate::membership::Boot,
    /// The messages, in order per replica.
    pub messages: Vec<Addressed>,
}

/// A message to one replica.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Addressed {
    /// The shard.
    pub shard: ShardId,
    /// Sending replica.
    pub from: ReplicaId,
    /// Receiving replica.
    pub to: ReplicaId,
    /// What it says.
    pub message: Message,
}

/// What replicas of one shard tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Message {
    /// A step of Raft.
    Raft(RaftMessage),
    /// Follower to leader: entries up to here are in memory, not yet durable.
    /// Serves the weaker write levels; never counts for commit.
    Held {
        /// Term of the append.
        term: Term,
        /// Last position held.
        index: LogIndex,
    },
    /// Leader to followers: the shard is idle at this position; sleep if yours
    /// is the same.
    Hibernate {
        /// The leader's term.
        term: Term,
        /// Its last, committed and applied position.
        index: LogIndex,
    },
    /// Follower to leader: asleep at this position.
    Hibernating {
        /// The term.
        term: Term,
        /// The position.
        index: LogIndex,
    },
    /// Follower to leader: awake again; be so too.
    Awake {
        /// The term.
        term: Term,
    },
    /// Leader to a follower that fell behind the log: fetch this snapshot.
    SnapshotOffer(SnapshotOffer),
    /// Follower to leader: entries alone do not help, for this replica knows no
    /// configuration yet.
    SnapshotWanted {
        /// Term of the append that came too early.
        term: Term,
    },
    /// Follower to leader: the snapshot was installed, or could not be.
    SnapshotResult {
        /// Which offer.
        id: u64,
        /// Whether it is installed.
        installed: bool,
    },
}

/// A snapshot waiting to be fetched piece by piece.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SnapshotOffer {
    /// Names the pinned state at its sender.
    pub id: u64,
    /// The leader's term.
    pub term: Term,
    /// Last position the snapshot contains.
    pub index: LogIndex,
    /// Term of that position.
    pub index_term: Term,
    /// Configuration at that position.
    pub configuration: Configuration,
}

/// raft-rs message kinds that travel. Local ones (hup, propose, read index,
/// tick signals) have no number here, so a peer cannot send them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the Raft literature")]
pub enum RaftMessageKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    TransferLeader,
    TimeoutNow,
    RequestPreVote,
    RequestPreVoteResponse,
}

/// A Raft message in our own form.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the Raft literature")]
pub struct RaftMessage {
    pub kind: RaftMessageKind,
    pub term: Term,
    pub log_term: Term,
    pub index: LogIndex,
    pub commit: LogIndex,
    pub commit_term: Term,
    pub reject: bool,
    pub reject_hint: LogIndex,
    pub priority: i64,
    pub context: Vec<u8>,
    pub entries: Vec<Entry>,
}
