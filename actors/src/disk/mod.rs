//! The disk: when replicas write their overlays to their stores, and how full
//! the device is.
//!
//! Owns: the pace of flushes over all replicas of the node, the measure of
//! space, the numbers of new stores. (The log writer and the engine threads
//! behind the ports belong to the same disk; they are devices.) Talks to it:
//! nobody; it watches what others publish. Supervised by: the root. May lose
//! when it dies: nothing. Invariants: flushes are paced by overlay bytes and
//! by the age of unflushed data over the whole node, never by timers per
//! shard. Limits: [`OVERLAY_BYTES_MAX`], above which writes are refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::ids::StoreId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::{
    replica::messages::ReplicaMessage,
    router::Hosted,
    world::{Space, World},
};

/// Bytes of overlays over all replicas of a node. At the limit writes are
/// refused until flushes catch up; half of it starts flushing the largest.
pub const OVERLAY_BYTES_MAX: usize = 256 << 20;
/// Overlays above this share of the limit are flushed, largest first.
const OVERLAY_BYTES_START: usize = OVERLAY_BYTES_MAX / 4;
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
    /// Bytes in all overlays.
    pub overlay: Arc<AtomicUsize>,
    /// Where the measured space is shown.
    pub space: watch::Sender<Space>,
}

/// What the disk is told.
#[derive(Clone, Copy, Debug)]
pub enum DiskMessage {
    /// Time to look.
    Round,
    /// The space as measured on a worker.
    Measured(Space),
}

/// State of the pacer.
#[derive(Debug)]
pub struct DiskState {
    arguments: DiskArguments,
    rounds: u64,
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
        Ok(DiskState { arguments, rounds: 0 })
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
            DiskMessage::Measured(space) => {
                // What waits in overlays needs room in the stores as well.
                let promised = state.arguments.overlay.load(Ordering::Relaxed);
                let space = space.with_promised(promised as u64);
                state
                    .arguments
                    .space
                    .send_if_modified(|shown| std::mem::replace(shown, space) != space);
            }
        }
        Ok(())
    }
}

impl DiskState {
    fn round(&mut self, myself: &ActorRef<DiskMessage>) {
        self.rounds += 1;
        if self.rounds % MEASURE_ROUNDS == 1 {
            self.measure(myself);
        }
        let bytes = self.arguments.overlay.load(Ordering::Relaxed);
        metrics::gauge!(crate::metrics::OVERLAY_BYTES)
            .set(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)));
        let small_too = self.rounds.is_multiple_of(SMALL_FLUSH_ROUNDS);
        if bytes == 0 || (bytes < OVERLAY_BYTES_START && !small_too) {
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
            metrics::counter!(crate::metrics::FLUSHES).increment(1);
            let _ = handle.actor.cast(ReplicaMessage::Flush);
        }
    }

    /// Measures space on a worker: it may touch the file system.
    fn measure(&self, myself: &ActorRef<DiskMessage>) {
        let (gauge, myself) = (Arc::clone(&self.arguments.world.space), myself.clone());
        self.arguments.world.workers.beside(Box::new(move || {
            let _ = myself.cast(DiskMessage::Measured(gauge.measure()));
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_numbers_rise_from_the_highest_in_use() {
        let ids = StoreIds::after(StoreId(7));
        assert_eq!((ids.next(), ids.next()), (StoreId(8), StoreId(9)));
    }
}
