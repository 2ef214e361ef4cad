//! The typed façade over the native requests, for the command line, the
//! library and the doors.
//!
//! A [`Client`] finds the shard of a key, follows its leader, keeps sessions
//! so that a retried write is executed once, and carries the highest clock it
//! has seen, so that what it was told is never older than what it asks next.
//! Within its deadline (10 s unless changed) a change of leader, a dead node
//! or a stale map costs a pause and never an error.
//!
//! It is no actor: it owns nothing of the cluster, its clones share one state,
//! and it may be dropped at any time. Its few mutexes are never held across an
//! await.

mod accounts;
mod admin;
mod ask;
mod deletes;
mod door;
mod error;
mod feeds;
mod inspect;
mod leases;
mod list;
mod locks;
mod map;
mod pool;
mod range;
mod read;
mod restore;
mod room;
mod standing;
mod transact;
mod trial;
mod volumes;
mod watching;
mod write;

#[cfg(test)]
mod tests;

pub use deletes::Deleted;
pub use door::{Door, DoorError, turns_away};
pub use error::ClientError;
pub use leases::{LeaseGranted, LeasePage};
pub use list::{ListOptions, Listing, Page};
pub use locks::{Lock, Queued};
pub use range::Ranged;
pub use room::Room;
pub use standing::{Standing, progress};
pub use volumes::VolumeView;
pub use watching::{Happened, Places, Watching};
pub use write::{BatchWritten, Written};

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{
    auth::Principal,
    ids::{FIRST_TENANT, NodeId, ShardId, TenantId},
    mvcc::version::Hlc,
    ports::{clock::Clock, entropy::Entropy},
};
use feeds::Feeds;
use map::Map;
use pool::Pools;
use tokio::sync::watch;

/// Time an operation may take unless the caller says otherwise. An election
/// after a dead leader takes about a second.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A handle to one cluster, acting for one tenant.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
    principal: Principal,
    room: Option<Arc<Room>>,
}

struct Shared {
    door: Arc<dyn Door>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tenant: TenantId,
    map: watch::Sender<Map>,
    refreshing: tokio::sync::Mutex<()>,
    refreshes: AtomicU64,
    clock_seen: AtomicU64,
    hints: Mutex<BTreeMap<ShardId, NodeId>>,
    pools: Pools,
    feeds: Feeds,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("door", &self.shared.door)
            .field("tenant", &self.shared.tenant)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the first tenant behind `door`. Nothing is sent before the
    /// first operation.
    pub fn new(door: Arc<dyn Door>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let shared = Shared {
            door,
            clock,
            entropy,
            tenant: FIRST_TENANT,
            map: watch::Sender::new(Map::default()),
            refreshing: tokio::sync::Mutex::new(()),
            refreshes: AtomicU64::new(0),
            clock_seen: AtomicU64::new(0),
            hints: Mutex::new(BTreeMap::new()),
            pools: Pools::default(),
            feeds: Feeds::default(),
        };
        let (deadline, principal) = (DEADLINE, Principal::Trusted);
        Self { shared: Arc::new(shared), deadline, principal, room: None }
    }

    /// The same client with another deadline for what it does from now on.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same client taking room for all that its ranges gather.
    #[must_use]
    pub fn within(&self, room: Arc<Room>) -> Self {
        Self { room: Some(room), ..self.clone() }
    }

    /// As whom it asks.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The same client asking as somebody whom the accounts of a volume bind.
    #[must_use]
    pub fn acting_as(&self, principal: Principal) -> Self {
        Self { principal, ..self.clone() }
    }

    /// The deadline of its operations.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The highest clock it was shown.
    fn clock(&self) -> Hlc {
        Hlc(self.shared.clock_seen.load(Ordering::Relaxed))
    }

    fn hint(&self, shard: ShardId) -> Option<NodeId> {
        let hints = self.shared.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.get(&shard).copied()
    }

    fn set_hint(&self, shard: ShardId, leader: NodeId) {
        let mut hints = self.shared.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.insert(shard, leader);
    }

    /// Drops the hint if it names the node that did not serve.
    fn forget_hint(&self, shard: ShardId, asked: Option<NodeId>) {
        let mut hints = self.shared.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if hints.get(&shard).copied() == asked {
            hints.remove(&shard);
        }
    }
}
