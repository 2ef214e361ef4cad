//! Sessions of one client by shard, shared by everything it does at once.
//!
//! A lease gives its number back when it is dropped, also when the caller's
//! future is: an abandoned request is never asked again, so its number counts
//! as answered. A mutex guards the books because a client is no actor and any
//! of its clones may write; it is never held across an await.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cluster::{
    ids::{SessionId, ShardId},
    routing::{Lease, SessionBook, Taken},
    shard::command::SessionRequest,
};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Pool {
    book: Mutex<SessionBook>,
    changed: Notify,
}

impl Pool {
    fn book(&self) -> MutexGuard<'_, SessionBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sessions of one client.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pools: Mutex<BTreeMap<ShardId, Arc<Pool>>>,
}

/// A number in use.
#[derive(Debug)]
pub(super) struct Leased {
    pool: Arc<Pool>,
    lease: Lease,
}

/// The duty to open a session and say what came of it.
#[derive(Debug)]
pub(super) struct Opening {
    pool: Arc<Pool>,
    settled: bool,
}

/// What the pool says.
#[derive(Debug)]
pub(super) enum Pick {
    /// Write under this number.
    Leased(Leased),
    /// Open a session first.
    Open(Opening),
}

impl Pools {
    /// Waits for a number, or for the duty to open a session.
    pub(super) async fn pick(&self, shard: ShardId) -> Pick {
        let pool = self.pool(shard);
        loop {
            let changed = pool.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no release in between is missed.
            changed.as_mut().enable();
            let taken = pool.book().take();
            match taken {
                Taken::Lease(lease) => {
                    return Pick::Leased(Leased { pool: pool.clone(), lease });
                }
                Taken::Open => {
                    return Pick::Open(Opening { pool: pool.clone(), settled: false });
                }
                Taken::Wait => changed.await,
            }
        }
    }

    /// Takes all sessions out, to close them.
    pub(super) fn drain(&self) -> Vec<(ShardId, SessionId)> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions_of = |(shard, pool): (&ShardId, &Arc<Pool>)| {
            let shard = *shard;
            pool.book().drain().into_iter().map(move |session| (shard, session))
        };
        pools.iter().flat_map(sessions_of).collect()
    }

    fn pool(&self, shard: ShardId) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(shard).or_default().clone()
    }
}

impl Leased {
    /// What goes on the wire with this try.
    pub(super) fn request(&self) -> SessionRequest {
        self.pool.book().request(self.lease)
    }

    /// The shard does not know the session any more.
    pub(super) fn forget_session(&self) -> SessionId {
        self.pool.book().forget(self.lease.session);
        self.lease.session
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.pool.book().release(self.lease);
        // All, because one released number can open a window of many.
        self.pool.changed.notify_waiters();
    }
}

impl Opening {
    /// The session is open.
    pub(super) fn done(mut self, session: SessionId) {
        self.settled = true;
        self.pool.book().opened(session);
        self.pool.changed.notify_waiters();
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.settled {
            self.pool.book().not_opened();
            self.pool.changed.notify_waiters();
        }
    }
}
