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
    ids::{Epoch, LogIndex, ReplicaId, Term},
    raft::types::{Configuration, ConfigurationChange, Entry, HardState, Message, SnapshotOffer},
    request::WriteLevel,
};

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
    /// The log dropped entries up to here; see [`GroupStatus::needed_from`](super::GroupStatus).
    Trimmed {
        /// Last position no longer in the log.
        index: LogIndex,
    },
    /// A deadline came, or the link to a peer's node went down: do not sleep on.
    Wake,
    /// A moment went by since [`Group::owes_commit`](super::Group::owes_commit) said so:
    /// tell followers what is committed, unless entries are on their way.
    TellCommitted,
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
