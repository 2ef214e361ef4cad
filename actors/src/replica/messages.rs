//! What a replica is told, and the bounded ways in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use cluster::{
    catalog::controller::ObservedShard,
    ids::{Epoch, LogIndex, NodeId, ReplicaId, ShardId, StoreId, Term, VolumeId},
    mvcc::version::{Hlc, Version},
    ports::{
        engine::EngineError,
        log::{LogError, RecoveredReplica},
    },
    raft::types::{Configuration, ConfigurationChange, Entry, Message},
    request::{
        Fault, ReplicaStatus, ShardAnswer, ShardBody, ShardRequest, SnapshotPiece,
        SnapshotPieceRequest,
    },
    shard::{command::Outcome, descriptor::ShardDescriptor},
};
use ractor::ActorRef;
use tokio::sync::{oneshot, watch};

use super::{
    apply::{Held, Published},
    halt::Halt,
    limit::StoreLimit,
    snapshots::FetchError,
    watches::Watcher,
};
use crate::{
    admission::{Admission, Permit},
    budget::NodeBudget,
    queue::Queue,
};

/// Requests one replica holds at a time: sixteen sessions of 64.
pub const REQUESTS_MAX: usize = 1_024;
/// Bytes of requests one replica holds: a few of the largest values.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Watchers that wait at one replica: of [`cluster::shard::watch::WATCHER_BYTES`]
/// and their keys, 8 MiB of the shortest.
pub const WATCHERS_MAX: usize = 16_384;
/// Bytes of watchers at one replica.
pub const WATCHERS_BYTES_MAX: usize = 16 << 20;
/// Raft messages waiting at one replica.
pub const INBOX_MAX: usize = 4_096;
/// Bytes of Raft messages waiting at one replica.
pub const INBOX_BYTES_MAX: usize = 32 << 20;

/// What a replica is told. What is large or rare lies in a box: every message is
/// moved several times as large as the largest.
#[derive(Debug)]
pub enum ReplicaMessage {
    /// The store is open (or, for a joiner, there is none yet).
    Opened(Box<Result<super::apply::Opened, Halt>>),
    /// A request of a client or a forwarding node.
    Call(Box<ReplicaCall>),
    /// A message of another replica of the shard.
    Deliver {
        /// Its sender.
        from: ReplicaId,
        /// The node it lies on, as its certificate proves.
        node: NodeId,
        /// What it says.
        message: Message,
        /// Room in the inbox.
        permit: Permit,
    },
    /// A log record is durable, or could not be made so.
    LogWritten(Result<(), LogError>),
    /// The store of a newborn is durable, or could not be made so.
    BornInStore(Result<(), EngineError>),
    /// What the log holds of this replica.
    Recovered(Box<Result<RecoveredReplica, LogError>>),
    /// Older entries asked from the log.
    EntriesFetched {
        /// Which question.
        id: u64,
        /// The outcome.
        result: Result<Vec<Entry>, LogError>,
    },
    /// Committed entries took effect.
    Applied(Box<AppliedBatch>),
    /// The replica must not go on: apply, a read or the catalog says so.
    Halted(Halt),
    /// The overlay up to here is in the store, synced.
    Flushed(Result<(LogIndex, Term), Halt>),
    /// The connection to a node was lost.
    LinkLost(NodeId),
    /// Change voters or learners.
    Configure {
        /// The change.
        change: ConfigurationChange,
        /// Told when it is applied or refused.
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    /// Shows the shard as this replica's log has it, if it leads.
    Examine(oneshot::Sender<Option<ObservedShard>>),
    /// Give leadership to another replica; to the furthest when none is named.
    TransferLeader(Option<ReplicaId>),
    /// Write the overlay to the store: the disk's pacer says it is time.
    Flush {
        /// The log is over its budget: entries that only a follower still
        /// needs go too, and it takes a snapshot instead.
        pressed: bool,
    },
    /// Rid the store of what nobody can read any more: the disk's pacer says it
    /// is time.
    Sweep,
    /// A receiver asks for a piece of a pinned snapshot.
    SnapshotPiece {
        /// Which.
        request: SnapshotPieceRequest,
        /// The piece, or why there is none.
        reply: oneshot::Sender<Result<SnapshotPiece, Fault>>,
    },
    /// Our own fetch of an offered snapshot ended.
    SnapshotFetched {
        /// Which offer.
        id: u64,
        /// The filled, synced store and the epoch it stands at.
        result: Result<(StoreId, Epoch), FetchError>,
    },
    /// The replica is to be destroyed with its data.
    Destroy,
    /// Machine and store are let go of.
    Closed,
    /// A watcher found nothing so far.
    Looked {
        /// Who.
        watcher: Watcher,
        /// Whether there is more to look at.
        more: bool,
    },
    /// The core's last run brought in something by itself: run it again.
    Run,
    /// A timer fired.
    Timer(ReplicaTimer),
}

impl ReplicaMessage {
    /// Whether who sends it counts it: those that come in crowds.
    pub(super) fn is_counted(&self) -> bool {
        matches!(
            self,
            Self::Call(_) | Self::Deliver { .. } | Self::LogWritten(_) | Self::Applied(_)
        )
    }
}

/// Timers of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaTimer {
    /// One step of Raft time.
    Tick,
    /// Try again to write a log record the disk had no room for.
    RetryLog,
    /// Try again to be born: the disk had no room for the store.
    RetryBirth,
    /// Look after leases.
    Leases,
    /// Look after watchers.
    Watches,
    /// Look whether followers know of the last commit.
    Commit,
    /// Look how late it is, and begin the round that a crowd gathered for.
    Round,
}

/// A request with its way back.
#[derive(Debug)]
pub struct ReplicaCall {
    /// What is asked.
    pub request: ShardRequest,
    /// Room among the requests.
    pub permit: Permit,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ShardAnswer>,
}

/// Entries that took effect.
#[derive(Debug)]
pub struct AppliedBatch {
    /// Last position applied.
    pub index: LogIndex,
    /// Term of that entry.
    pub term: Term,
    /// What each entry with a command came to.
    pub outcomes: Vec<(LogIndex, Term, Outcome)>,
    /// The descriptor, if a configuration took effect.
    pub descriptor: Option<ShardDescriptor>,
    /// The last version that changed a key.
    pub version: Version,
    /// The places of all changes, if somebody waits for them.
    pub changes: Option<Vec<Bytes>>,
    /// Configurations that took effect, where, and at which epoch.
    pub configured: Vec<(LogIndex, Epoch, Configuration)>,
    /// Requests that had been executed before.
    pub repeated: u32,
    /// Sessions that ended by themselves.
    pub expired: u32,
}

/// How a replica begins.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// Born as a founder of a new shard, by the catalog's intent.
    Founder(ShardDescriptor),
    /// Born empty, to be filled by a snapshot of its leader.
    Joiner(ShardDescriptor),
    /// Found in the log at start.
    Recovered(RecoveredReplica),
    /// Its actor failed; its log is asked anew.
    Restarted,
}

/// How many wait at a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Requests, at most [`REQUESTS_MAX`].
    pub requests: usize,
    /// Messages of other replicas, at most [`INBOX_MAX`].
    pub inbox: usize,
}

/// The ways to one replica.
#[derive(Clone, Debug)]
pub struct ReplicaHandle {
    /// Which replica.
    pub replica: ReplicaId,
    /// Its shard.
    pub shard: ShardId,
    /// Its volume.
    pub volume: VolumeId,
    /// Its actor.
    pub actor: ActorRef<ReplicaMessage>,
    /// What it shows.
    pub published: watch::Receiver<Published>,
    pub(super) requests: Arc<Admission>,
    pub(super) inbox: Arc<Admission>,
    pub(super) watchers: Arc<Admission>,
    pub(crate) held: Arc<Held>,
    pub(super) filled: Arc<AtomicUsize>,
    pub(super) queue: Arc<Queue>,
    pub(super) budget: Arc<NodeBudget>,
}

impl ReplicaHandle {
    /// Passes a request on and waits for its answer; refuses at once when the
    /// replica has too much to do.
    pub fn call(&self, request: ShardRequest) -> impl Future<Output = ShardAnswer> + Send + use<> {
        let clock = request.clock;
        // Handed on before anybody waits: whoever waits need not hold the request.
        let handed_on = self.hand_on(request);
        async move {
            let answer = match handed_on {
                // A replica that dies with the request in hand may have proposed it.
                Ok(answer) => answer.await.map_err(|_| Fault::Interrupted),
                Err(fault) => Err(fault),
            };
            answer.unwrap_or_else(|fault| refused(clock, fault))
        }
    }

    fn hand_on(&self, request: ShardRequest) -> Result<oneshot::Receiver<ShardAnswer>, Fault> {
        let watches = matches!(request.body, ShardBody::Watch { .. });
        let admission = if watches { &self.watchers } else { &self.requests };
        let Some(permit) = admission.try_enter(request_bytes(&request)) else {
            metrics::counter!(crate::metrics::REQUESTS_REFUSED).increment(1);
            return Err(Fault::Busy { retry_after_ms: 20 });
        };
        let (reply, answer) = oneshot::channel();
        let call = Box::new(ReplicaCall { request, permit, reply });
        if !self.queue.cast(&self.actor, ReplicaMessage::Call(call)) {
            return Err(Fault::NoReplica(self.shard));
        }
        Ok(answer)
    }

    /// Delivers a message of another replica, or drops it when the inbox is
    /// full, or when it brings entries and there is no memory for them: Raft
    /// repeats.
    pub fn deliver(&self, from: ReplicaId, node: NodeId, message: Message, bytes: usize) {
        let permit = if self.has_room_for(&message) { self.inbox.try_enter(bytes) } else { None };
        match permit {
            Some(permit) => {
                let delivery = ReplicaMessage::Deliver { from, node, message, permit };
                self.queue.cast(&self.actor, delivery);
            }
            None => metrics::counter!(crate::metrics::REPLICA_INBOX_DROPPED).increment(1),
        }
    }

    /// Whether the node has memory for the entries a message brings, if any.
    fn has_room_for(&self, message: &Message) -> bool {
        let Message::Raft(raft) = message else { return true };
        if raft.entries.is_empty() || self.budget.may_follow(self.held.entries.load(Relaxed)) {
            return true;
        }
        // A new leader's word replaces what an old one left here: without it
        // what is held would never be decided.
        let published = self.published.borrow();
        let last = published.status.as_ref().map_or(LogIndex(0), |status| status.last);
        self.budget.may_replace() && raft.index < last
    }

    /// A node did not answer a request: if this shard sleeps and that node
    /// leads it, it is time to look.
    pub fn doubt(&self, node: NodeId) {
        let _ = self.actor.cast(ReplicaMessage::LinkLost(node));
    }

    /// What the replica shows of itself.
    pub fn status(&self) -> Option<ReplicaStatus> {
        self.published.borrow().status.clone()
    }

    /// How much of a snapshot has come, in percent; 100 once it is whole.
    pub fn filled_percent(&self) -> usize {
        self.filled.load(Relaxed)
    }

    /// How many wait here.
    pub fn crowd(&self) -> Crowd {
        Crowd { requests: self.requests.count(), inbox: self.inbox.count() }
    }

    /// What the limit of its store leaves, as it was found last.
    pub fn limit(&self) -> &StoreLimit {
        &self.held.limit
    }

    /// Bytes this replica has in memory above its store.
    pub fn overlay_bytes(&self) -> usize {
        self.held.overlay.load(Relaxed)
    }
}

/// An answer that says why there is none.
pub(crate) fn refused(clock: Hlc, fault: Fault) -> ShardAnswer {
    ShardAnswer { clock, leader: None, result: Err(fault) }
}

/// Roughly the bytes a request holds in memory.
pub(crate) fn request_bytes(request: &ShardRequest) -> usize {
    use cluster::shard::command::Op;
    const HEAD: usize = 256;
    match &request.body {
        ShardBody::Write { ops, .. } => ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value } => HEAD + key.len() + value.len(),
                Op::Delete { key } => HEAD + key.len(),
            })
            .sum(),
        ShardBody::Watch { watch, .. } => watch.bytes(),
        ShardBody::Transact { transaction, .. } | ShardBody::Look { transaction, .. } => {
            HEAD * transaction.ops() + transaction.bytes()
        }
        ShardBody::Restore { command, .. } => HEAD + command.bytes(),
        ShardBody::OpenSession
        | ShardBody::CloseSession(_)
        | ShardBody::Catalog { .. }
        | ShardBody::Compact { .. }
        | ShardBody::Advance { .. }
        | ShardBody::Lease { .. }
        | ShardBody::ShowLease { .. }
        | ShardBody::ListLeases { .. }
        | ShardBody::Auth { .. }
        | ShardBody::ShowAuth(_)
        | ShardBody::Range { .. }
        | ShardBody::Get { .. }
        | ShardBody::List { .. }
        | ShardBody::Inspect => HEAD,
    }
}
