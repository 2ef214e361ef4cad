//! The devices of a stand: the product's own over memory, or small ones, with knobs. Their
//! locks are there because tests turn the knobs from outside of the actors.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    formats,
    ids::{LogIndex, NodeId, ReplicaId, StoreId},
    log::SegmentedLog,
    memory::MemoryEngine,
    ports::{
        clock::Clock,
        engine::{Engine, EngineError, Store, StoreUsage, View, Write},
        entropy::Entropy,
        log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
        network::{BoxFuture, Lane, Network, RequestClass, RequestError, SendError},
        workers::{Job, Workers},
    },
    raft::types::{Entry, RaftBatch},
    request::{Answer, Request},
    units::{Instant, WallTime},
};

use crate::{
    probe::{Probe, Report},
    router::Router,
    world::{Space, SpaceGauge},
};

#[derive(Debug)]
pub(super) struct StandClock(pub(super) tokio::time::Instant);

impl Clock for StandClock {
    fn now(&self) -> Instant {
        let nanos = self.0.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap())
    }

    fn wall(&self) -> WallTime {
        WallTime(1_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

#[derive(Debug, Default)]
pub(super) struct Counting(pub(super) AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            // SplitMix64.
            let mut next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
            next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = next.to_le_bytes()[7];
        }
    }
}

#[derive(Debug)]
pub(super) struct Half;

impl SpaceGauge for Half {
    fn measure(&self) -> Space {
        Space::default()
    }
}

/// What was reported.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<Report>>);

impl Probe for Notes {
    fn report(&self, report: Report) {
        self.0.lock().unwrap().push(report);
    }
}

impl Notes {
    pub(crate) fn count(&self, wanted: impl Fn(&Report) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|report| wanted(report)).count()
    }
}

/// The wires between the nodes of a stand.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    pub(super) nodes: Mutex<BTreeMap<NodeId, Router>>,
    /// One-way frames sent.
    pub(crate) frames: AtomicUsize,
    /// Pieces of snapshots that were asked for.
    pub(crate) pieces: AtomicUsize,
}

impl Wires {
    /// Nothing reaches a node any more, and nothing of it anybody.
    pub(crate) fn cut(&self, node: NodeId) {
        self.nodes.lock().unwrap().remove(&node);
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) from: NodeId,
    pub(super) wires: Arc<Wires>,
}

impl Network for Wire {
    fn send(&self, to: NodeId, _lane: Lane, message: Bytes) -> Result<(), SendError> {
        self.wires.frames.fetch_add(1, Relaxed);
        let nodes = self.wires.nodes.lock().unwrap();
        let Some(router) = nodes.get(&to).filter(|_| nodes.contains_key(&self.from)) else {
            return Ok(());
        };
        let batch: RaftBatch = formats::from_bytes(&message).unwrap();
        for addressed in batch.messages {
            if let Some(handle) = router.hosted().by_shard.get(&addressed.shard)
                && handle.replica == addressed.to
            {
                handle.deliver(addressed.from, self.from, addressed.message, 100);
            }
        }
        Ok(())
    }

    fn request(
        &self,
        to: NodeId,
        _class: RequestClass,
        body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>> {
        let wires = Arc::clone(&self.wires);
        let router = wires.nodes.lock().unwrap().get(&to).cloned();
        Box::pin(async move {
            let gone = || RequestError::Unreachable { node: to, cause: "gone".into() };
            let router = router.ok_or_else(gone)?;
            let request = Request::decode(&body).unwrap();
            let answer = if let Request::SnapshotPiece(request) = request {
                wires.pieces.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                router.snapshot_piece(request).await
            } else {
                let Request::Shard(request) = request else { panic!("nobody asks that here") };
                Answer::Shard(router.shard(request).await)
            };
            Ok(answer.encode().into())
        })
    }

    fn learn(&self, _node: NodeId, _addresses: Vec<SocketAddr>) {}

    fn forget(&self, _node: NodeId) {}
}

type Append = (ReplicaId, LogRecord, Done<Result<(), LogError>>);

/// A log over files in memory: durable at once, unless it is told to stall.
#[derive(Default)]
pub(crate) struct StandLog {
    pub(super) log: Mutex<Option<SegmentedLog>>,
    waiting: Mutex<Vec<Append>>,
    /// Nothing becomes durable.
    pub(crate) stalled: AtomicBool,
    /// An append of this replica panics in its actor, so many times.
    pub(crate) panics: Mutex<BTreeMap<ReplicaId, u32>>,
}

impl std::fmt::Debug for StandLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandLog").finish_non_exhaustive()
    }
}

impl StandLog {
    pub(super) fn over(log: SegmentedLog) -> Self {
        Self { log: Mutex::new(Some(log)), ..Self::default() }
    }

    fn write(&self, replica: ReplicaId, record: &LogRecord) -> Result<(), LogError> {
        let mut log = self.log.lock().unwrap();
        let log = log.as_mut().unwrap();
        log.append(&[(replica, record.clone())])?;
        log.sync()?;
        log.reclaim().map(drop)
    }

    /// The disk moves again.
    pub(crate) fn resume(&self) {
        self.stalled.store(false, Relaxed);
        for (replica, record, done) in std::mem::take(&mut *self.waiting.lock().unwrap()) {
            done(self.write(replica, &record));
        }
    }

    /// Segments in use.
    pub(crate) fn segments(&self) -> usize {
        self.log.lock().unwrap().as_ref().unwrap().usage().segments
    }
}

impl LogStore for StandLog {
    fn append(&self, replica: ReplicaId, record: LogRecord, done: Done<Result<(), LogError>>) {
        let left = self.panics.lock().unwrap().get(&replica).copied().unwrap_or(0);
        if left > 0 {
            self.panics.lock().unwrap().insert(replica, left - 1);
            panic!("planned panic in the Raft half of {replica}");
        }
        if self.stalled.load(Relaxed) {
            self.waiting.lock().unwrap().push((replica, record, done));
        } else {
            done(self.write(replica, &record));
        }
    }

    fn read(
        &self,
        replica: ReplicaId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        done: Done<Result<Vec<Entry>, LogError>>,
    ) {
        done(self.log.lock().unwrap().as_mut().unwrap().read(replica, from, to, bytes_max));
    }

    fn recover(&self, replica: ReplicaId, done: Done<Result<RecoveredReplica, LogError>>) {
        let recovered = self.log.lock().unwrap().as_mut().unwrap().recover(replica);
        done(recovered);
    }

    fn pins(&self, done: Done<LogPins>) {
        let log = self.log.lock().unwrap();
        let log = log.as_ref().unwrap();
        done(LogPins {
            usage: log.usage(),
            oldest_segment_replicas: log.oldest_segment_replicas(),
        });
    }
}

/// Stores in memory whose views panic when told to.
#[derive(Clone, Debug, Default)]
pub(crate) struct StandEngine {
    pub(crate) inner: MemoryEngine,
    pub(crate) panics: Arc<Mutex<BTreeSet<StoreId>>>,
}

#[derive(Debug)]
pub(super) struct StandStore {
    inner: Arc<dyn Store>,
    panics: Arc<Mutex<BTreeSet<StoreId>>>,
}

impl StandEngine {
    fn lend(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(StandStore { inner, panics: Arc::clone(&self.panics) })
    }
}

impl Engine for StandEngine {
    fn create(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        Ok(self.lend(self.inner.create(store)?))
    }

    fn open(&self, store: StoreId) -> Result<Arc<dyn Store>, EngineError> {
        Ok(self.lend(self.inner.open(store)?))
    }

    fn list(&self) -> Result<Vec<StoreId>, EngineError> {
        self.inner.list()
    }

    fn quarantine(&self, store: StoreId) -> Result<(), EngineError> {
        self.inner.quarantine(store)
    }

    fn destroy(&self, store: StoreId) -> Result<(), EngineError> {
        self.inner.destroy(store)
    }
}

impl Store for StandStore {
    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        let view = self.inner.view()?;
        let planned = self.panics.lock().unwrap().contains(&view.store());
        assert!(!planned, "planned panic in a view");
        Ok(view)
    }

    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        self.inner.commit(writes)
    }

    fn usage(&self) -> Result<StoreUsage, EngineError> {
        self.inner.usage()
    }
}

/// Runs lanes at once, and holds back what runs beside them if told to.
#[derive(Default)]
pub(crate) struct StandWorkers {
    /// Jobs beside the lanes wait.
    pub(crate) holding: AtomicBool,
    held: Mutex<Vec<Job>>,
}

impl std::fmt::Debug for StandWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandWorkers").finish_non_exhaustive()
    }
}

impl StandWorkers {
    /// Runs what was held back.
    pub(crate) fn release(&self) -> usize {
        self.holding.store(false, Relaxed);
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        let count = held.len();
        for job in held {
            job();
        }
        count
    }
}

impl Workers for StandWorkers {
    fn in_order(&self, _replica: ReplicaId, job: Job) {
        job();
    }

    fn beside(&self, job: Job) {
        if self.holding.load(Relaxed) {
            self.held.lock().unwrap().push(job);
        } else {
            job();
        }
    }
}
