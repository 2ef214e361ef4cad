//! Raft time of one replica: a tick at each point of the node's grid while its
//! shard is awake.
//!
//! All replicas of a node tick in one turn, so that their heartbeats share
//! frames. One task ticks until the shard sleeps: a timer per tick would be a
//! task per tick. Invariant: at most one tick waits in the mailbox, so a replica
//! that was held up does not age by what it missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cluster::ports::clock::Clock;
use ractor::ActorRef;
use tokio::task::JoinHandle;

use super::{
    TICK,
    messages::{ReplicaMessage, ReplicaTimer},
};

/// Ticks as long as it is there.
#[derive(Debug)]
pub(super) struct Ticker {
    task: JoinHandle<()>,
    /// Whether a tick is on its way.
    waits: Arc<AtomicBool>,
}

impl Ticker {
    pub(super) fn start(replica: ActorRef<ReplicaMessage>, clock: Arc<dyn Clock>) -> Self {
        let waits = Arc::<AtomicBool>::default();
        let task = tokio::spawn(tick(replica, clock, Arc::clone(&waits)));
        Self { task, waits }
    }

    /// The tick is in the replica's hands: the next may come.
    pub(super) fn ticked(&self) {
        self.waits.store(false, Ordering::Release);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tick(replica: ActorRef<ReplicaMessage>, clock: Arc<dyn Clock>, waits: Arc<AtomicBool>) {
    let grid = TICK.as_nanos();
    loop {
        let past = u128::from(clock.now().as_nanos()) % grid;
        let wait = u64::try_from(grid - past).unwrap_or(0);
        tokio::time::sleep(Duration::from_nanos(wait)).await;
        let still = waits.swap(true, Ordering::AcqRel);
        if !still && replica.cast(ReplicaMessage::Timer(ReplicaTimer::Tick)).is_err() {
            return;
        }
    }
}
