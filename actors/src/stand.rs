//! A test stand: the volumes of a few nodes over small real parts, with knobs.
//!
//! Log, stores, state machines and Raft are the product's, over memory. Time is
//! tokio's paused clock. What can be made to go wrong: a log that stalls or
//! panics, commits that wait, a node that is gone. `simulation` does more, but
//! takes every panic for a finding; here panics are the point.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    sync::atomic::AtomicU64,
    time::Duration,
};

use cluster::{
    auth::Principal,
    catalog::{record::VolumeKind, view::CatalogView},
    ids::{ClusterId, Epoch, NodeId, ReplicaId, SessionId, ShardId, StoreId, VolumeId},
    log::{LogOptions, LogStamp, SegmentedLog},
    memory::{MemoryEngine, MemoryFiles},
    mvcc::version::Hlc,
    ports::log::RecoveredReplica,
    request::{
        Fault, Item, ReadLevel, ReplicaStatus, ShardBody, ShardRequest, ShardResult, WriteLevel,
    },
    shard::command::{Op, Outcome, SessionRequest},
};
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use crate::{
    budget::{NodeBudget, NodeLimits},
    catalog::Reporter,
    disk::StoreIds,
    outbox::{Outbox, OutboxActor},
    queue::Queue,
    replica::messages::ReplicaHandle,
    router::{Hosted, Router},
    volumes::{VolumesActor, VolumesArguments, VolumesMessage},
    world::{NodeIdentity, Space, World},
};

mod devices;
mod view;

use devices::{Counting, Half, StandClock, Wire};
pub(crate) use devices::{Notes, StandEngine, StandLog, StandWorkers, Wires};
use view::{boot_of, view_of};
pub(crate) use view::{replica, view};

/// The volume of all shards here.
pub(crate) const VOLUME: VolumeId = VolumeId(2);

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
        stand.boot_all(nodes).await;
        stand
    }

    /// The same with a volume whose versions are counted.
    pub(crate) async fn counting(nodes: u64, shards: u64) -> Self {
        let mut stand = Self::empty(nodes, shards, NodeLimits::default(), 1 << 20);
        stand.view = Arc::new(view_of(VolumeKind::Single, nodes, shards));
        stand.boot_all(nodes).await;
        stand
    }

    async fn boot_all(&mut self, nodes: u64) {
        for node in 1..=nodes {
            self.boot(node, MemoryFiles::new(), MemoryEngine::default(), BTreeMap::new()).await;
        }
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
        let log = Arc::new(StandLog::over(log));
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
