//! A test stand: the volumes of a few nodes over small real parts, with knobs.
//!
//! Log, stores, state machines and Raft are the product's, over memory. Time is
//! tokio's paused clock. What can be made to go wrong: a log that stalls or
//! panics, commits that wait, a node that is gone. `simulation` does more, but
//! takes every panic for a finding; here panics are the point.

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
    auth::Principal,
    catalog::{
        encoding::{IDS_KEY, encode_record, node_key, shard_key, volume_key},
        record::{
            IdsRecord, NodeRecord, NodeState, ShardRecord, VolumeKind, VolumePolicy, VolumeRecord,
            VolumeState,
        },
        view::CatalogView,
    },
    formats,
    ids::{
        BootNonce, ClusterId, Epoch, FIRST_TENANT, Incarnation, LogIndex, NodeId, ReplicaId,
        SessionId, ShardId, StoreId, VolumeId,
    },
    log::{LogOptions, LogStamp, SegmentedLog},
    membership::Boot,
    memory::{MemoryEngine, MemoryFiles},
    mvcc::version::{Hlc, Version},
    ports::{
        clock::Clock,
        engine::{Engine, EngineError, Store, StoreUsage, View, Write},
        entropy::Entropy,
        log::{Done, LogError, LogPins, LogRecord, LogStore, RecoveredReplica},
        network::{BoxFuture, Lane, Network, RequestClass, RequestError, SendError},
        workers::{Job, Workers},
    },
    raft::types::{Entry, RaftBatch},
    request::{
        Answer, Fault, Item, ReadLevel, ReplicaStatus, Request, ShardBody, ShardRequest,
        ShardResult, WriteLevel,
    },
    shard::{
        command::{Op, Outcome, SessionRequest},
        descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    },
    units::{Instant, WallTime},
};
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use crate::{
    budget::{NodeBudget, NodeLimits},
    catalog::Reporter,
    disk::StoreIds,
    outbox::{Outbox, OutboxActor},
    probe::{Probe, Report},
    queue::Queue,
    replica::messages::ReplicaHandle,
    router::{Hosted, Router},
    volumes::{VolumesActor, VolumesArguments, VolumesMessage},
    world::{NodeIdentity, Space, SpaceGauge, World},
};

/// The volume of all shards here.
pub(crate) const VOLUME: VolumeId = VolumeId(2);

#[derive(Debug)]
struct StandClock(tokio::time::Instant);

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
struct Counting(AtomicU64);

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
struct Half;

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
    nodes: Mutex<BTreeMap<NodeId, Router>>,
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
struct Wire {
    from: NodeId,
    wires: Arc<Wires>,
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
    log: Mutex<Option<SegmentedLog>>,
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
struct StandStore {
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

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) log: Arc<StandLog>,
    pub(crate) files: MemoryFiles,
    pub(crate) engine: StandEngine,
    pub(crate) workers: Arc<StandWorkers>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) budget: Arc<NodeBudget>,
    pub(crate) router: Router,
    pub(crate) volumes: ActorRef<VolumesMessage>,
    pub(crate) world: World,
}

/// A few nodes with one volume.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) wires: Arc<Wires>,
    pub(crate) view: Arc<CatalogView>,
    pub(crate) limits: NodeLimits,
    /// Replicas whose log will be found damaged.
    pub(crate) spoiled: BTreeSet<ReplicaId>,
    segment_bytes: usize,
    sessions: BTreeMap<ShardId, (SessionId, u64)>,
    born: tokio::time::Instant,
}

/// The replica of shard number `shard` on node number `node`.
pub(crate) fn replica(shard: u64, node: u64) -> ReplicaId {
    ReplicaId(shard * 10 + node)
}

/// The one start of a node.
fn boot_of(number: u64) -> Boot {
    Boot { incarnation: Incarnation(1), nonce: BootNonce(u128::from(number)) }
}

/// A node as the catalog knows it.
fn member(number: u64) -> NodeRecord {
    NodeRecord {
        node: NodeId(u128::from(number)),
        number,
        addresses: Vec::new(),
        http_address: String::new(),
        zone: String::new(),
        capacity_bytes: 1,
        state: NodeState::Active,
        boot: boot_of(number),
    }
}

/// A view with `shards` shards of `nodes` voters each.
pub(crate) fn view(nodes: u64, shards: u64) -> CatalogView {
    let placed = |node, shard| ReplicaDescriptor {
        replica: replica(shard, node),
        node: NodeId(u128::from(node)),
        role: ReplicaRole::Voter,
    };
    let volume = VolumeRecord {
        volume: VOLUME,
        tenant: FIRST_TENANT,
        name: "v".into(),
        policy: VolumePolicy::new(
            VolumeKind::Hash,
            u32::try_from(nodes).unwrap(),
            u32::try_from(shards).unwrap(),
        ),
        shards: (0..shards).map(|number| ShardId(100 + number)).collect(),
        state: VolumeState::Ready,
    };
    let ids = IdsRecord { node_number: 9, volume: 9, shard: 9_999, replica: 1_000_000, tenant: 9 };
    let mut records = vec![
        (volume_key(FIRST_TENANT, "v"), encode_record(&volume)),
        (IDS_KEY.to_owned(), encode_record(&ids)),
    ];
    records.extend((1..=nodes).map(|number| {
        let record = member(number);
        (node_key(record.node), encode_record(&record))
    }));
    for shard in 100..100 + shards {
        let descriptor = ShardDescriptor {
            shard: ShardId(shard),
            volume: VOLUME,
            epoch: Epoch(1),
            predicate: Predicate::all(),
            replicas: (1..=nodes).map(|node| placed(node, shard)).collect(),
        };
        let record = ShardRecord::new(descriptor);
        records.push((shard_key(ShardId(shard)), encode_record(&record)));
    }
    let changes = records.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice())));
    CatalogView::default().updated(Version(1), changes).unwrap()
}

impl Stand {
    /// Nodes 1 to `nodes`, each with a replica of each of `shards` shards,
    /// which are numbered from 100.
    pub(crate) async fn start(nodes: u64, shards: u64) -> Self {
        Self::with(nodes, shards, NodeLimits::default(), 1 << 20).await
    }

    pub(crate) async fn with(
        nodes: u64,
        shards: u64,
        limits: NodeLimits,
        segment_bytes: usize,
    ) -> Self {
        let mut stand = Self::empty(nodes, shards, limits, segment_bytes);
        for node in 1..=nodes {
            stand.boot(node, MemoryFiles::new(), MemoryEngine::default(), BTreeMap::new()).await;
        }
        stand
    }

    /// The same with nobody started.
    pub(crate) fn empty(nodes: u64, shards: u64, limits: NodeLimits, segment_bytes: usize) -> Self {
        Self {
            nodes: BTreeMap::new(),
            wires: Arc::default(),
            view: Arc::new(view(nodes, shards)),
            limits,
            spoiled: BTreeSet::new(),
            segment_bytes,
            sessions: BTreeMap::new(),
            born: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn stamp(node: u64) -> LogStamp {
        LogStamp { cluster: ClusterId(1), node: NodeId(u128::from(node)), disk: 0 }
    }

    /// Opens a log as a node does.
    pub(crate) fn open_log(
        &self,
        node: u64,
        files: &MemoryFiles,
    ) -> (SegmentedLog, Vec<RecoveredReplica>) {
        let options = LogOptions { segment_bytes: self.segment_bytes, begun: false };
        let files = Arc::new(files.clone());
        let (log, recovery) = SegmentedLog::open(files, Self::stamp(node), options).unwrap();
        (log, recovery.replicas)
    }

    /// Starts a node on what its disk holds.
    pub(crate) async fn boot(
        &mut self,
        number: u64,
        files: MemoryFiles,
        engine: MemoryEngine,
        partial: BTreeMap<ReplicaId, Vec<StoreId>>,
    ) {
        let id = NodeId(u128::from(number));
        let engine = StandEngine { inner: engine, ..StandEngine::default() };
        let (log, mut recovered) = self.open_log(number, &files);
        for found in &mut recovered {
            found.damaged |= self.spoiled.contains(&found.replica);
        }
        let log = Arc::new(StandLog { log: Mutex::new(Some(log)), ..StandLog::default() });
        let (workers, notes) = (Arc::new(StandWorkers::default()), Arc::new(Notes::default()));
        let boot = boot_of(number);
        let entropy = Counting(AtomicU64::new(number << 40));
        let world = World {
            identity: NodeIdentity { cluster: ClusterId(1), node: id, boot },
            clock: Arc::new(StandClock(self.born)),
            hybrid: Arc::default(),
            entropy: Arc::new(entropy),
            network: Arc::new(Wire { from: id, wires: Arc::clone(&self.wires) }),
            log: log.clone(),
            engine: Arc::new(engine.clone()),
            workers: workers.clone(),
            state_files: Arc::new(MemoryFiles::new()),
            space: Arc::new(Half),
            probe: notes.clone(),
        };
        let (hosted_sender, hosted) = watch::channel(Arc::new(Hosted::default()));
        let (_, catalog) = watch::channel(Arc::clone(&self.view));
        let router = Router::new(world.clone(), hosted, catalog);
        self.wires.nodes.lock().unwrap().insert(id, router.clone());
        let queue = Arc::<Queue>::default();
        let arguments = (world.clone(), queue.clone());
        let (outbox, _) = Actor::spawn(None, OutboxActor, arguments).await.unwrap();
        let budget = NodeBudget::new(self.limits);
        let highest = world.engine.list().unwrap().into_iter().max().unwrap_or_default();
        let arguments = VolumesArguments {
            world: world.clone(),
            outbox: Outbox::new(outbox, queue, self.limits.outbox_bytes_max),
            stores: StoreIds::after(highest),
            budget: Arc::clone(&budget),
            space: watch::channel(Space::default()).1,
            partial: Arc::new(partial),
            reporter: Reporter::new(world.clone(), router.clone()),
            recovered,
            founding: None,
            catalog: Arc::clone(&self.view),
            hosted: hosted_sender,
        };
        let (volumes, _) = Actor::spawn(None, VolumesActor, arguments).await.unwrap();
        volumes.cast(VolumesMessage::CatalogChanged(Arc::clone(&self.view))).unwrap();
        let node = Node { id, log, files, engine, workers, notes, budget, router, volumes, world };
        self.nodes.insert(id, node);
    }

    /// Ends a node where it stands, as `kill -9` does; its disk is left.
    pub(crate) async fn kill(&mut self, number: u64) -> (MemoryFiles, MemoryEngine) {
        let node = self.nodes.remove(&NodeId(u128::from(number))).unwrap();
        self.wires.nodes.lock().unwrap().remove(&node.id);
        node.volumes.kill_and_wait(None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        for other in self.nodes.values() {
            for handle in other.router.hosted().by_shard.values() {
                handle.doubt(node.id);
            }
        }
        node.files.kill();
        node.engine.inner.crash();
        (node.files, node.engine.inner)
    }

    pub(crate) fn node(&self, number: u64) -> &Node {
        &self.nodes[&NodeId(u128::from(number))]
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits until something holds; panics after a minute.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..6_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("after a minute still not: {what}");
    }

    /// The number of the node that leads a shard.
    pub(crate) async fn leader(&self, shard: u64) -> u64 {
        let leads = |node: &Node| node.status(shard).is_some_and(|status| status.leading);
        self.until("a leader", |stand| stand.nodes.values().any(leads)).await;
        let leading = self.nodes.values().filter(|node| leads(node));
        let newest = leading.max_by_key(|node| node.status(shard).map(|status| status.term));
        u64::try_from(newest.unwrap().id.0).unwrap()
    }

    /// Writes until it succeeds; with a session, as a client does.
    pub(crate) async fn put(&mut self, shard: u64, key: &str, value: &[u8]) {
        let at = ShardId(shard);
        if !self.sessions.contains_key(&at) {
            let ShardResult::Outcome(Outcome::Session(session)) =
                self.ask(shard, ShardBody::OpenSession).await
            else {
                panic!("no session")
            };
            self.sessions.insert(at, (session, 0));
        }
        let (session, number) = self.sessions.get_mut(&at).unwrap();
        *number += 1;
        let request = SessionRequest { session: *session, number: *number, answered: *number - 1 };
        let op = Op::Put { key: key.as_bytes().to_vec(), value: value.to_vec() };
        let body =
            ShardBody::Write { request: Some(request), level: WriteLevel::Strong, ops: vec![op] };
        let result = self.ask(shard, body).await;
        let written = matches!(result, ShardResult::Outcome(Outcome::Written { .. }));
        assert!(written, "{result:?}");
    }

    /// Asks all nodes in turn until one answers.
    pub(crate) async fn ask(&self, shard: u64, body: ShardBody) -> ShardResult {
        for _ in 0..300 {
            for node in self.nodes.values() {
                if let Ok(result) = node.ask(shard, body.clone()).await {
                    return result;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("shard {shard} did not answer for half a minute")
    }

    pub(crate) async fn get(&self, shard: u64, key: &str) -> Option<Item> {
        let result = self.ask(shard, get(key, ReadLevel::Strong)).await;
        let ShardResult::Value(item) = result else { panic!("{result:?}") };
        item
    }

    /// Nodes that are not `number`.
    pub(crate) fn others(&self, number: u64) -> BTreeSet<u64> {
        let numbers = self.nodes.keys().map(|node| u64::try_from(node.0).unwrap());
        numbers.filter(|other| *other != number).collect()
    }
}

pub(crate) fn get(key: &str, level: ReadLevel) -> ShardBody {
    ShardBody::Get { key: key.as_bytes().to_vec(), level, at: None, head_only: false }
}

impl Node {
    pub(crate) fn handle(&self, shard: u64) -> Option<ReplicaHandle> {
        self.router.hosted().by_shard.get(&ShardId(shard)).cloned()
    }

    pub(crate) fn status(&self, shard: u64) -> Option<ReplicaStatus> {
        self.handle(shard)?.status()
    }

    /// Asks the replica of this node alone.
    pub(crate) async fn ask(&self, shard: u64, body: ShardBody) -> Result<ShardResult, Fault> {
        self.ask_as(Principal::Trusted, shard, body).await
    }

    /// The same as somebody.
    pub(crate) async fn ask_as(
        &self,
        principal: Principal,
        shard: u64,
        body: ShardBody,
    ) -> Result<ShardResult, Fault> {
        self.router.shard(request_as(principal, shard, body)).await.result
    }
}

/// What somebody asks of one replica.
pub(crate) fn request_as(principal: Principal, shard: u64, body: ShardBody) -> ShardRequest {
    ShardRequest {
        shard: ShardId(shard),
        epoch: Epoch(1),
        clock: Hlc(0),
        timeout_ms: 3_000,
        forwarded: true,
        principal,
        body,
    }
}
