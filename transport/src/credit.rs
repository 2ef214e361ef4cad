//! Credit: what may wait, in count and bytes, before somebody is refused.
//!
//! Three kinds. The *raft queue* of a peer takes messages without waiting and
//! hands all that is there to the writer at once. *Class permits* bound the
//! requests under way per peer. A *byte budget* bounds the memory that bodies
//! of incoming requests may take; who asks beyond it waits, and QUIC's flow
//! control makes the sender wait too.
//!
//! The queue's lock is this crate's own: the network port is called from any
//! thread and must not wait. It is held for a push or a swap.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use cluster::ports::network::RequestClass;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The raft messages waiting for one peer.
#[derive(Debug)]
pub(crate) struct RaftQueue {
    waiting: Mutex<Vec<Bytes>>,
    /// Messages and bytes waiting or being written.
    messages: AtomicUsize,
    bytes: AtomicUsize,
    messages_max: usize,
    bytes_max: usize,
    filled: Notify,
}

/// The queue has no room; the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl RaftQueue {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            messages_max,
            bytes_max,
            filled: Notify::new(),
        }
    }

    pub(crate) fn push(&self, message: Bytes) -> Result<(), QueueFull> {
        let mut waiting = self.lock();
        let messages = self.messages.load(Ordering::Acquire) + 1;
        let bytes = self.bytes.load(Ordering::Acquire) + message.len();
        if messages > self.messages_max || bytes > self.bytes_max {
            return Err(QueueFull);
        }
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(message.len(), Ordering::AcqRel);
        waiting.push(message);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for messages and takes all of them. They count as waiting until
    /// the batch is dropped: a stalled peer cannot make the queue bigger.
    pub(crate) async fn take(self: &Arc<Self>) -> RaftBatch {
        loop {
            let messages = mem::take(&mut *self.lock());
            if !messages.is_empty() {
                return RaftBatch { queue: Arc::clone(self), messages };
            }
            self.filled.notified().await;
        }
    }

    /// Drops what waits and says how much it was.
    pub(crate) fn clear(self: &Arc<Self>) -> usize {
        let messages = mem::take(&mut *self.lock());
        let batch = RaftBatch { queue: Arc::clone(self), messages };
        batch.messages.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages taken from a queue, still counted there.
#[derive(Debug)]
pub(crate) struct RaftBatch {
    queue: Arc<RaftQueue>,
    messages: Vec<Bytes>,
}

impl RaftBatch {
    pub(crate) fn messages(&self) -> &[Bytes] {
        &self.messages
    }
}

impl Drop for RaftBatch {
    fn drop(&mut self) {
        let bytes: usize = self.messages.iter().map(Bytes::len).sum();
        self.queue.messages.fetch_sub(self.messages.len(), Ordering::AcqRel);
        self.queue.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Requests of one class that may be under way with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassLimits {
    pub(crate) data: usize,
    pub(crate) admin: usize,
    pub(crate) bulk: usize,
    pub(crate) join: usize,
}

impl ClassLimits {
    /// Between nodes. Data: forwarded requests of a busy door. Bulk: a piece
    /// is about 1 MiB, so eight fill a window without filling the disk queue.
    pub(crate) const NODE: Self = Self { data: 1_024, admin: 64, bulk: 8, join: 0 };
    /// Of a client. No bulk: snapshots are the nodes' own business.
    pub(crate) const CLIENT: Self = Self { data: 256, admin: 16, bulk: 0, join: 0 };
    /// Of somebody without a certificate.
    pub(crate) const STRANGER: Self = Self { data: 0, admin: 0, bulk: 0, join: 1 };

    pub(crate) fn of(self, class: RequestClass) -> usize {
        match class {
            RequestClass::Data => self.data,
            RequestClass::Admin => self.admin,
            RequestClass::Bulk => self.bulk,
            RequestClass::Join => self.join,
        }
    }

    /// Streams that serve all classes at their limits, and one in passing.
    pub(crate) fn streams(self) -> u32 {
        u32::try_from(self.data + self.admin + self.bulk + self.join).unwrap_or(u32::MAX) + 1
    }
}

/// Permits for requests under way, one pool per class.
#[derive(Clone, Debug)]
pub(crate) struct ClassPermits {
    limits: ClassLimits,
    data: Arc<Semaphore>,
    admin: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    join: Arc<Semaphore>,
}

impl ClassPermits {
    pub(crate) fn new(limits: ClassLimits) -> Self {
        let pool = |permits| Arc::new(Semaphore::new(permits));
        Self {
            limits,
            data: pool(limits.data),
            admin: pool(limits.admin),
            bulk: pool(limits.bulk),
            join: pool(limits.join),
        }
    }

    /// Whether the class is open at all.
    pub(crate) fn allows(&self, class: RequestClass) -> bool {
        self.limits.of(class) > 0
    }

    /// A permit, if one is free.
    pub(crate) fn take(&self, class: RequestClass) -> Option<OwnedSemaphorePermit> {
        let pool = match class {
            RequestClass::Data => &self.data,
            RequestClass::Admin => &self.admin,
            RequestClass::Bulk => &self.bulk,
            RequestClass::Join => &self.join,
        };
        Arc::clone(pool).try_acquire_owned().ok()
    }
}

/// Memory that bodies may take, counted in KiB.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget {
    pools: Vec<Arc<Semaphore>>,
    kib_max: u32,
}

/// Memory granted; given back when dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its Drop")]
pub(crate) struct ByteCredit(Vec<OwnedSemaphorePermit>);

impl ByteBudget {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let kib_max = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).max(1);
        Self { pools: vec![Arc::new(Semaphore::new(kib_max as usize))], kib_max }
    }

    /// A budget of `bytes` that also draws on `shared`.
    pub(crate) fn within(bytes: usize, shared: &Self) -> Self {
        let own = Self::new(bytes);
        let pools = own.pools.iter().chain(&shared.pools).cloned().collect();
        Self { pools, kib_max: own.kib_max.min(shared.kib_max) }
    }

    /// Waits until `bytes` are free. A single taker never waits for itself:
    /// more than the whole budget counts as the whole budget.
    pub(crate) async fn take(&self, bytes: usize) -> ByteCredit {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.kib_max);
        let mut permits = Vec::with_capacity(self.pools.len());
        for pool in &self.pools {
            // The pools are never closed.
            if let Ok(permit) = Arc::clone(pool).acquire_many_owned(kib).await {
                permits.push(permit);
            }
        }
        ByteCredit(permits)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_full_raft_queue_refuses_until_the_batch_is_written() {
        let queue = Arc::new(RaftQueue::new(2, 100));
        queue.push(Bytes::from_static(b"one")).unwrap();
        queue.push(Bytes::from_static(b"two")).unwrap();
        assert_eq!(queue.push(Bytes::new()), Err(QueueFull));
        let batch = queue.take().await;
        assert_eq!(batch.messages().len(), 2);
        assert_eq!(queue.push(Bytes::new()), Err(QueueFull), "written means acknowledged");
        drop(batch);
        assert_eq!(queue.push(Bytes::from(vec![0; 101])), Err(QueueFull));
        assert_eq!(queue.push(Bytes::from(vec![0; 100])), Ok(()));
        assert_eq!(queue.clear(), 1);
        assert_eq!(queue.push(Bytes::from(vec![0; 100])), Ok(()));
    }

    #[tokio::test]
    async fn a_byte_budget_makes_the_second_taker_wait() {
        let shared = ByteBudget::new(4 << 10);
        let budget = ByteBudget::within(8 << 10, &shared);
        let first = budget.take(100 << 10).await;
        let mut second = Box::pin(budget.take(1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
    }
}
