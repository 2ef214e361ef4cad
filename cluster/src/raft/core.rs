//! What goes into a replica's Raft core and what comes out of it.
//!
//! [`Group`](super::Group) owns no clock, no disk and no socket. Its driver
//! turns what happens into [`Input`]s, feeds as many as it has, then feeds
//! [`Input::Ready`] once; the core answers with [`Effect`]s that the driver
//! carries out **in order**. Nothing leaves the core between two `Ready`s
//! except what costs nothing to say at once (refusals, role changes, wake-ups).
//!
//! Promises the driver makes:
//! - [`Effect::Persist`] and [`Effect::InstallSnapshot`] reach the log in the
//!   order given, each as one atomic record, and [`Input::Persisted`] comes only
//!   when the record is durable. A number stands for all lower ones.
//! - [`Effect::Apply`] is applied in order; [`Input::Applied`] follows.
//! - After a panic out of the core the replica is stopped and started again from
//!   its log: raft-rs asserts its invariants, so the driver wraps each call in
//!   `catch_unwind`; one broken group must not take its neighbours along.
//!
//! Source: Raft dissertation §3, §4.3, §6.4, §10.2.1; etcd/raft `doc.go`
//! (asynchronous storage writes).

use crate::{
    ids::{Epoch, LogIndex, ReplicaId, ShardId, Term},
    raft::types::{Configuration, ConfigurationChange, Entry, HardState, Message, SnapshotOffer},
    request::WriteLevel,
    units::Instant,
};

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

/// Names a request of the driver in the answers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A tick of the node's timer went by. Not needed while asleep.
    Tick,
    /// A replica says something. Messages of one sender keep their order while
    /// its connection lives; none may be fed after the link was reported lost.
    Message {
        /// Who, as its connection proves.
        from: ReplicaId,
        /// What.
        message: Message,
    },
    /// A command wants into the log. Never empty: it begins with its version.
    Propose {
        /// Names the request.
        ticket: Ticket,
        /// The entry's bytes.
        command: Vec<u8>,
        /// When [`Effect::Held`] is wanted.
        level: WriteLevel,
    },
    /// The configuration shall change. One at a time; steps that are already
    /// true are harmless. Answered by `Proposed`, `Dropped` or `Refused`.
    Configure {
        /// Names the request.
        ticket: Ticket,
        /// The change; its epoch must be higher than the present one.
        change: ConfigurationChange,
    },
    /// A linearizable read wants a position to wait for.
    Read {
        /// Names the request.
        ticket: Ticket,
    },
    /// This record and all before it are durable.
    Persisted {
        /// As in [`Effect::Persist`] or [`Effect::InstallSnapshot`].
        number: u64,
    },
    /// Entries up to here are applied (in memory is enough).
    Applied {
        /// Last applied position.
        index: LogIndex,
    },
    /// Entries asked for with [`Effect::Fetch`], from its first position on,
    /// possibly fewer than asked for.
    Fetched {
        /// As in the effect.
        id: u64,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// They could not be read; Raft asks again when it needs them.
    FetchFailed {
        /// As in the effect.
        id: u64,
    },
    /// The state is pinned and can be fetched under this id.
    SnapshotPinned {
        /// As in [`Effect::PinSnapshot`].
        id: u64,
        /// Position the pinned state stands at.
        index: LogIndex,
        /// Term of that position.
        term: Term,
        /// Configuration at that position.
        configuration: Configuration,
    },
    /// It could not be pinned; Raft asks again.
    SnapshotPinFailed {
        /// As in the effect.
        id: u64,
    },
    /// All data of an offered snapshot is here, complete and synced.
    SnapshotFetched {
        /// Who offered it.
        from: ReplicaId,
        /// The offer.
        id: u64,
        /// Epoch the snapshot's root record names.
        epoch: Epoch,
    },
    /// An offered snapshot could not be fetched.
    SnapshotFailed {
        /// Who offered it.
        from: ReplicaId,
        /// The offer.
        id: u64,
    },
    /// Stand for election now instead of after a timeout: a lone voter, or the
    /// first founder of a new shard. Still asks whether others would vote.
    Campaign,
    /// Leadership shall go elsewhere (drain, full disk).
    TransferLeader {
        /// To whom; none for the voter that is furthest.
        to: Option<ReplicaId>,
    },
    /// The log dropped entries up to here; see [`GroupStatus::needed_from`].
    Trimmed {
        /// Last position no longer in the log.
        index: LogIndex,
    },
    /// A deadline came, or the link to a peer's node went down: do not sleep on.
    Wake,
    /// Every input at hand has been fed: think, and say what is to be done.
    Ready,
}

/// Something is to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send to a replica; may be lost.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// Make durable as one record, then say [`Input::Persisted`].
    Persist {
        /// Names the record; rising.
        number: u64,
        /// Term, vote and commit, when they moved. A commit that moved alone
        /// waits for the next record: nothing rests on it.
        hard_state: Option<HardState>,
        /// Entries; they replace everything at or after the first.
        entries: Vec<Entry>,
    },
    /// Apply these committed entries in order.
    Apply {
        /// Without gaps after those handed out before.
        entries: Vec<Entry>,
    },
    /// A command or change stands in the leader's log. It is done when the
    /// entry applied at `index` has this `term`, and lost when it has another.
    Proposed {
        /// The request.
        ticket: Ticket,
        /// Term of its entry.
        term: Term,
        /// Position of its entry.
        index: LogIndex,
    },
    /// A command or change did not get into the log and never will. When
    /// `leader` is this very replica it is busy (handing over, or too much is
    /// not yet applied): try again.
    Dropped {
        /// The request.
        ticket: Ticket,
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// A change of configuration is not allowed now.
    Refused {
        /// The request.
        ticket: Ticket,
        /// Why.
        why: ChangeRefusal,
    },
    /// The weaker write level asked for is reached.
    Held {
        /// The request.
        ticket: Ticket,
    },
    /// Read once this position is applied.
    ReadReady {
        /// The request.
        ticket: Ticket,
        /// The position.
        index: LogIndex,
    },
    /// Not answered here: no longer (or never) the leader.
    ReadFailed {
        /// The request.
        ticket: Ticket,
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// Read entries back from the log, then say [`Input::Fetched`].
    Fetch {
        /// Names the question.
        id: u64,
        /// First position.
        from: LogIndex,
        /// First position not wanted.
        to: LogIndex,
        /// About so many bytes, at least one entry.
        bytes_max: usize,
    },
    /// Pin the applied state for a replica that fell behind the log, then say
    /// [`Input::SnapshotPinned`]. Log entries after the pinned position stay.
    PinSnapshot {
        /// Names it.
        id: u64,
        /// For whom.
        to: ReplicaId,
    },
    /// A pinned state is no longer needed.
    UnpinSnapshot {
        /// Which.
        id: u64,
    },
    /// Fetch an offered snapshot into a new store, then say
    /// [`Input::SnapshotFetched`] or [`Input::SnapshotFailed`].
    FetchSnapshot {
        /// Who has it pinned.
        from: ReplicaId,
        /// What it is.
        offer: SnapshotOffer,
    },
    /// A fetched snapshot is not needed after all: discard its store.
    DiscardSnapshot {
        /// Who offered it.
        from: ReplicaId,
        /// The offer.
        id: u64,
    },
    /// Make the fetched store this replica's, by one `LogRecord::Installed`,
    /// then say [`Input::Persisted`]: everything up to `index` is then applied.
    InstallSnapshot {
        /// Names the record, in one row with [`Effect::Persist`].
        number: u64,
        /// Who offered it.
        from: ReplicaId,
        /// The offer.
        id: u64,
        /// Hard state that goes with it.
        hard_state: HardState,
        /// Last position it contains.
        index: LogIndex,
        /// Term of that position.
        term: Term,
        /// Configuration at that position.
        configuration: Configuration,
    },
    /// Term, leadership or the known leader changed. Requests under way whose
    /// entry is not applied are of unknown outcome once `leading` ends.
    RoleChanged {
        /// Whether this replica leads.
        leading: bool,
        /// The term.
        term: Term,
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// Another configuration holds, by the entry applied at `index` or by a
    /// snapshot. [`Configuration::after`] tells the state machine the same.
    Configured {
        /// The position that brought it.
        index: LogIndex,
        /// The configuration.
        configuration: Configuration,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Asleep: ticks are not needed until [`Effect::Woke`].
    Hibernated,
    /// Awake: ticks are needed.
    Woke,
    /// A peer said what no honest replica says; the message was dropped.
    PeerFault {
        /// Who.
        from: ReplicaId,
        /// What rule it broke.
        fault: super::PeerFault,
    },
    /// An invariant is broken. The replica must stop and be rebuilt or started
    /// again; nothing after this may be trusted.
    Broken {
        /// What.
        what: String,
    },
}

/// Effects in order, appended to by each step.
pub type Effects = Vec<Effect>;

/// Why a change of configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// The leader has committed nothing in its term yet. Changing before that
    /// can form two quorums (erratum of the Raft dissertation).
    #[error("the leader has not committed an entry of its term yet: try again")]
    NotReady,
    /// Another change is under way.
    #[error("another change of the configuration is under way: try again when it is done")]
    Pending,
    /// The epoch does not rise.
    #[error("the change names epoch {named} but {present} already holds")]
    StaleEpoch {
        /// In the change.
        named: Epoch,
        /// Holding.
        present: Epoch,
    },
    /// A replica would vote without having been a learner.
    #[error("{0} must be added as a learner first")]
    NotLearner(ReplicaId),
    /// A learner is too far behind to vote: the shard could stop.
    #[error("{replica} is {lag} entries behind: try again when it has caught up")]
    Lagging {
        /// Which.
        replica: ReplicaId,
        /// By how much.
        lag: u64,
    },
    /// The change does not fit the present configuration.
    #[error("{0}")]
    Invalid(super::ConfigurationFault),
}

/// A look at a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Whether this replica leads.
    pub leading: bool,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The term.
    pub term: Term,
    /// Committed position.
    pub committed: LogIndex,
    /// Applied position, as the driver said.
    pub applied: LogIndex,
    /// Durable position.
    pub persisted: LogIndex,
    /// Last position.
    pub last: LogIndex,
    /// Log entries up to here are trimmed.
    pub base: LogIndex,
    /// First log position that live followers and offered snapshots may still
    /// ask for; trimming below it costs nobody a snapshot.
    pub needed_from: LogIndex,
    /// The configuration.
    pub configuration: Configuration,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it sleeps.
    pub hibernating: bool,
    /// Heartbeat rounds issued for reads.
    pub read_rounds: u64,
    /// Reads those rounds answered.
    pub reads_answered: u64,
    /// Bytes of entries in memory.
    pub memory_bytes: usize,
    /// Since when the oldest record waits for the disk.
    pub persist_waits_since: Option<Instant>,
    /// The others, as the leader sees them; empty elsewhere. In order of id.
    pub peers: Vec<PeerStatus>,
}

/// A peer, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which.
    pub replica: ReplicaId,
    /// Up to where its durable log is known to agree.
    pub matched: LogIndex,
    /// Whether it was heard lately.
    pub live: bool,
    /// Whether it waits for a snapshot.
    pub snapshot: bool,
}
