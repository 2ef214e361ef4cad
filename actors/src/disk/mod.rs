//! The disk: when replicas write their overlays to their stores, and how full
//! the device is.
//!
//! Owns: the pace of flushes and sweeps over all replicas of the node, the
//! measure of space, the numbers of new stores, and when history is old enough.
//! (The log writer and the engine threads behind the ports belong to the same
//! disk; they are devices.) Talks to it:
//! nobody; it watches what others publish. Supervised by: the root. May lose
//! when it dies: nothing. Invariants: flushes are paced by overlay bytes and
//! by the age of unflushed data over the whole node, never by timers per
//! shard; replicas that keep the log's oldest segment are flushed before the
//! log grows beyond [`SEGMENTS_MAX`], and beyond [`SEGMENTS_PRESSED`] they keep
//! no entry that only a follower needs; shards at rest are not woken for their
//! history but once. Limits: those of [`crate::budget`].

mod compaction;
mod room;
mod stores;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{
    ids::{ShardId, StoreId},
    ports::log::LogPins,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use self::compaction::Compactions;
pub use self::room::Look;
pub use self::stores::{FoundStores, sort_stores};
use crate::{
    budget::NodeBudget,
    replica::messages::{ReplicaHandle, ReplicaMessage},
    router::{Hosted, Router},
    world::{Space, World},
};

/// Flushes begun in one round: more would only queue behind each other.
const FLUSHES_PER_ROUND: usize = 4;
/// How often the pacer looks.
const ROUND: Duration = Duration::from_millis(250);
/// Rounds between two measures of the space: once a second. A measure asks
/// every store, which a node of a thousand idle shards would feel.
const MEASURE_ROUNDS: u64 = 4;
/// Rounds after which even a small overlay is flushed, so that the log of a
/// quiet node can be trimmed and a restart has little to replay: ten seconds.
const SMALL_FLUSH_ROUNDS: u64 = 40;
/// Segments of the log from which on its oldest is emptied: 512 MiB, what a
/// restart reads in a few seconds.
pub const SEGMENTS_MAX: usize = 8;
/// Segments from which on a follower that lags gets a snapshot instead of the
/// entries it lacks: the byte budget of all of them, 1 GiB.
pub const SEGMENTS_PRESSED: usize = 16;

/// Hands out numbers of new stores; they rise for the life of a data directory.
#[derive(Debug)]
pub struct StoreIds(AtomicU64);

impl StoreIds {
    /// Continues after the highest number in use.
    pub fn after(highest: StoreId) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(highest.0)))
    }

    /// A number never used before in this data directory.
    pub fn next(&self) -> StoreId {
        StoreId(self.0.fetch_add(1, Ordering::AcqRel) + 1)
    }
}

/// What a disk actor is born with.
#[derive(Debug)]
pub struct DiskArguments {
    /// The node's world.
    pub world: World,
    /// The node's replicas.
    pub hosted: watch::Receiver<Arc<Hosted>>,
    /// What all replicas of the node may hold together.
    pub budget: Arc<NodeBudget>,
    /// The way to the leaders of its shards.
    pub router: Router,
    /// Where the measured space is shown.
    pub space: watch::Sender<Space>,
}

/// What the disk is told.
#[derive(Clone, Debug)]
pub enum DiskMessage {
    /// Time to look.
    Round,
    /// The space as measured on a worker.
    Measured(Look),
    /// What the log is kept by.
    Pinned(LogPins),
    /// A shard let go of history, or refused to.
    Compacted(ShardId),
}

/// State of the pacer.
#[derive(Debug)]
pub struct DiskState {
    arguments: DiskArguments,
    rounds: u64,
    /// Whether a look at the device is under way: a slow one is not doubled.
    measuring: bool,
    compactions: Compactions,
}

/// The actor.
#[derive(Debug)]
pub struct DiskActor;

impl Actor for DiskActor {
    type Msg = DiskMessage;
    type State = DiskState;
    type Arguments = DiskArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<DiskMessage>,
        arguments: DiskArguments,
    ) -> Result<DiskState, ActorProcessingErr> {
        myself.cast(DiskMessage::Round)?;
        Ok(DiskState {
            arguments,
            rounds: 0,
            measuring: false,
            compactions: Compactions::default(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<DiskMessage>,
        message: DiskMessage,
        state: &mut DiskState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DiskMessage::Round => {
                state.round(&myself);
                myself.send_after(ROUND, || DiskMessage::Round);
            }
            DiskMessage::Pinned(pins) => state.relieve(&pins),
            DiskMessage::Compacted(shard) => state.compacted(shard),
            DiskMessage::Measured(look) => {
                state.measuring = false;
                state.show_space(look);
            }
        }
        Ok(())
    }
}

/// Shows a number, exact below 4 GiB.
fn show(gauge: &'static str, number: usize) {
    metrics::gauge!(gauge).set(f64::from(u32::try_from(number).unwrap_or(u32::MAX)));
}

impl DiskState {
    fn round(&mut self, myself: &ActorRef<DiskMessage>) {
        self.rounds += 1;
        if self.rounds % MEASURE_ROUNDS == 1 {
            self.measure(myself);
            self.compact(myself);
        }
        self.sweep();
        self.ask_log(myself);
        let memory = self.arguments.budget.memory();
        show(crate::metrics::OVERLAY_BYTES, memory.overlay);
        show(crate::metrics::ENTRIES_BYTES, memory.entries);
        show(crate::metrics::REQUESTS_BYTES, memory.requests);
        show(crate::metrics::INBOX_BYTES, memory.inbox);
        let bytes = memory.overlay;
        let small_too = self.rounds.is_multiple_of(SMALL_FLUSH_ROUNDS);
        if bytes == 0 || !(self.arguments.budget.overlay_grows() || small_too) {
            return;
        }
        let hosted = self.arguments.hosted.borrow();
        let mut overlays: Vec<_> = hosted
            .by_shard
            .values()
            .map(|handle| (handle.overlay_bytes(), handle))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        overlays.sort_by_key(|(bytes, handle)| (std::cmp::Reverse(*bytes), handle.replica));
        let count = if small_too { overlays.len() } else { FLUSHES_PER_ROUND };
        for (_, handle) in overlays.into_iter().take(count) {
            flush(handle, false);
        }
    }

    /// Empties the log's oldest segment when there are too many. Also replicas
    /// without an overlay are asked: their last entries may lie there.
    fn relieve(&self, pins: &LogPins) {
        show(crate::metrics::LOG_SEGMENTS, pins.usage.segments);
        if pins.usage.segments <= SEGMENTS_MAX {
            return;
        }
        let pressed = pins.usage.segments > SEGMENTS_PRESSED;
        let hosted = self.arguments.hosted.borrow();
        let keeps = |handle: &&ReplicaHandle| {
            pins.oldest_segment_replicas.binary_search(&handle.replica).is_ok()
        };
        let keepers: Vec<_> = hosted.by_shard.values().filter(keeps).collect();
        // Others each round: the first ones may wait for their followers.
        let turn = usize::try_from(self.rounds).unwrap_or(0) * FLUSHES_PER_ROUND;
        let first = turn % keepers.len().max(1);
        for handle in keepers.iter().cycle().skip(first).take(FLUSHES_PER_ROUND.min(keepers.len()))
        {
            flush(handle, pressed);
        }
    }

    fn ask_log(&self, myself: &ActorRef<DiskMessage>) {
        let myself = myself.clone();
        self.arguments.world.log.pins(Box::new(move |pins| {
            let _ = myself.cast(DiskMessage::Pinned(pins));
        }));
    }

    /// Measures space on a worker: it touches the file system.
    fn measure(&mut self, myself: &ActorRef<DiskMessage>) {
        if std::mem::replace(&mut self.measuring, true) {
            return;
        }
        let (gauge, myself) = (Arc::clone(&self.arguments.world.space), myself.clone());
        let rooms = self.rooms();
        self.arguments.world.workers.beside(Box::new(move || {
            let _ = myself.cast(DiskMessage::Measured(rooms.look(gauge.as_ref())));
        }));
    }
}

fn flush(handle: &ReplicaHandle, pressed: bool) {
    metrics::counter!(crate::metrics::FLUSHES).increment(1);
    let _ = handle.actor.cast(ReplicaMessage::Flush { pressed });
}

#[cfg(test)]
mod tests;
