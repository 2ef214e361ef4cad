//! A shard replica: the Raft half of one shard's copy on this node.
//!
//! Owns: the Raft core of one replica, the requests and watchers waiting for it,
//! and the order in which records of it reach the log. Talks to it: the router
//! (requests), the switchboard (messages of its peers), the log and its own
//! apply half (completions), the disk's pacer (flush, sweep). Supervised by: its
//! volume. May lose when it dies: requests under way, which are answered
//! `Interrupted`; never anything acknowledged, for that lies in the log.
//! Invariants: nothing of a Raft step leaves before what must be durable is;
//! replies follow apply; reads never run in this mailbox. Limits: the
//! constants of `messages.rs`, taken as permits before the mailbox.

mod accounts;
pub mod apply;
mod beginning;
mod calls;
mod commits;
mod effects;
mod full;
mod gate;
pub(crate) mod halt;
mod journal;
mod leases;
pub mod limit;
pub mod messages;
mod reads;
mod rounds;
mod snapshots;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod ticker;
mod watches;

use std::sync::{Arc, atomic::AtomicUsize};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use self::{
    apply::{Held, MemoryGauge, Published},
    messages::{
        Beginning, INBOX_BYTES_MAX, INBOX_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX, ReplicaHandle,
        ReplicaMessage, ReplicaTimer, WATCHERS_BYTES_MAX, WATCHERS_MAX,
    },
};
pub use self::{
    gate::StoreGate, halt::Halt, snapshots::FetchError, state::ReplicaState, watches::Watcher,
};
use crate::{
    budget::NodeBudget,
    disk::StoreIds,
    outbox::Outbox,
    queue::Queue,
    volumes::VolumesMessage,
    world::{Space, World},
};
use cluster::{
    ids::{ReplicaId, ShardId, StoreId, VolumeId},
    mvcc::version::VersionKind,
    shard::root::ShardRole,
};

/// Length of one step of Raft time.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(100);
/// Ticks without a leader, up to twice as many, that start an election: three
/// heartbeats missed. A dead leader costs 0.6 to 1.2 s; a live one that stalls
/// as long is voted out, which the pre-vote keeps from happening by mistake of
/// one follower alone.
pub const ELECTION_TICKS: u32 = 6;

/// The actor.
#[derive(Debug)]
pub struct ReplicaActor;

/// What a replica is born with.
#[derive(Debug)]
pub struct ReplicaArguments {
    /// The node's world.
    pub world: World,
    /// The shard.
    pub shard: ShardId,
    /// Its volume.
    pub volume: VolumeId,
    /// Which replica.
    pub replica: ReplicaId,
    /// How the versions of a founder count. All others read that in their root
    /// record: a node that starts again knows no volume's kind before it has a view.
    pub founder_versions: VersionKind,
    /// What its shard stores.
    pub role: ShardRole,
    /// How it begins.
    pub beginning: Beginning,
    /// Where its messages leave.
    pub outbox: Outbox,
    /// Hands out new stores.
    pub stores: Arc<StoreIds>,
    /// Its share of the node's memory.
    pub memory: MemoryGauge,
    /// Who may write to its store; outlives its actors.
    pub gate: Arc<StoreGate>,
    /// Room on the disk.
    pub space: watch::Receiver<Space>,
    /// Stores that hold part of a snapshot for it.
    pub partial: Vec<StoreId>,
    /// Told when this replica is lost.
    pub volumes: ActorRef<VolumesMessage>,
    /// How much of a snapshot has come, in percent.
    pub filled: Arc<AtomicUsize>,
    /// Where its state is shown.
    pub published: watch::Sender<Published>,
    /// Counts what waits in its mailbox.
    pub queue: Arc<Queue>,
}

impl ReplicaActor {
    /// A handle to `actor`, with fresh admission within the node's.
    pub fn handle(
        arguments: (ReplicaId, ShardId, VolumeId),
        actor: ActorRef<ReplicaMessage>,
        published: watch::Receiver<Published>,
        (held, filled, queue): (Arc<Held>, Arc<AtomicUsize>, Arc<Queue>),
        budget: Arc<NodeBudget>,
    ) -> ReplicaHandle {
        let (replica, shard, volume) = arguments;
        let requests = budget.requests.within(REQUESTS_MAX, REQUEST_BYTES_MAX);
        let inbox = budget.inbox.within(INBOX_MAX, INBOX_BYTES_MAX);
        let watchers = budget.watchers.within(WATCHERS_MAX, WATCHERS_BYTES_MAX);
        ReplicaHandle {
            replica,
            shard,
            volume,
            actor,
            published,
            requests,
            inbox,
            watchers,
            held,
            filled,
            queue,
            budget,
        }
    }
}

impl Actor for ReplicaActor {
    type Msg = ReplicaMessage;
    type State = ReplicaState;
    type Arguments = ReplicaArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ReplicaMessage>,
        arguments: ReplicaArguments,
    ) -> Result<ReplicaState, ActorProcessingErr> {
        Ok(ReplicaState::begin(myself, arguments))
    }

    async fn handle(
        &self,
        _myself: ActorRef<ReplicaMessage>,
        message: ReplicaMessage,
        state: &mut ReplicaState,
    ) -> Result<(), ActorProcessingErr> {
        // What is logged below says which node and shard it is about.
        let span = state.span.clone();
        let _entered = span.enter();
        if message.is_counted() {
            state.round.handled();
        }
        match message {
            ReplicaMessage::Opened(result) => state.opened(*result),
            ReplicaMessage::Recovered(result) => state.recovered(*result),
            ReplicaMessage::Call(call) => state.call(*call),
            ReplicaMessage::Deliver { from, node, message, permit } => {
                state.deliver(from, node, message, &permit);
            }
            ReplicaMessage::BornInStore(result) => state.born_in_store(result),
            ReplicaMessage::LogWritten(result) => state.log_written(result),
            ReplicaMessage::EntriesFetched { id, result } => state.entries_fetched(id, result),
            ReplicaMessage::Applied(batch) => state.applied(*batch),
            ReplicaMessage::Halted(halt) => state.halt(halt),
            ReplicaMessage::Flushed(result) => state.flushed(result),
            ReplicaMessage::LinkLost(node) => state.link_lost(node),
            ReplicaMessage::Configure { change, reply } => state.configure(change, reply),
            ReplicaMessage::TransferLeader(to) => state.transfer_leader(to),
            ReplicaMessage::Flush { pressed } => state.flush(pressed),
            ReplicaMessage::Sweep => state.sweep(),
            ReplicaMessage::SnapshotPiece { request, reply } => {
                state.snapshot_piece(request, reply);
            }
            ReplicaMessage::SnapshotFetched { id, result } => state.snapshot_fetched(id, result),
            ReplicaMessage::Examine(reply) => state.examine(reply),
            ReplicaMessage::Destroy => state.destroy(),
            ReplicaMessage::Closed => state.closed(),
            // What it is for is done below.
            ReplicaMessage::Run => {}
            ReplicaMessage::Timer(ReplicaTimer::Tick) => state.tick(),
            ReplicaMessage::Timer(ReplicaTimer::RetryLog) => state.retry_log(),
            ReplicaMessage::Timer(ReplicaTimer::RetryBirth) => state.retry_birth(),
            ReplicaMessage::Timer(ReplicaTimer::Leases) => state.look_after_leases(),
            ReplicaMessage::Timer(ReplicaTimer::Watches) => state.watch_round(),
            ReplicaMessage::Timer(ReplicaTimer::Commit) => state.tell_committed(),
            ReplicaMessage::Timer(ReplicaTimer::Round) => state.end_gathering(),
            ReplicaMessage::Looked { watcher, more } => state.looked(watcher, more),
        }
        state.end_round();
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ReplicaMessage>,
        state: &mut ReplicaState,
    ) -> Result<(), ActorProcessingErr> {
        state.interrupt_all();
        Ok(())
    }
}
