//! The product on a simulated machine: its own actors over the fake ports.
//!
//! Does what the node's assembly does on a real one: founds the cluster on the
//! first machine, admits the others with a token, and starts the root with
//! what log, stores and state files hold.

use std::{sync::Arc, time::Duration};

use actors::{
    budget::NodeLimits,
    catalog,
    disk::sort_stores,
    failpoint::FailPoint,
    probe::{Probe, Report},
    replica::messages::ReplicaMessage,
    root::{Ended, NodeActors, NodeParts, STATE_FILES},
    router::{Hosted, Router},
    switchboard::Gate,
    world::{NodeClock, NodeIdentity, Space, SpaceGauge, World},
};
use bytes::Bytes;
use cluster::{
    auth::Principal,
    catalog::{
        command::{CatalogCommand, CatalogOutcome},
        record::{ClusterRecord, NodeRecord, NodeState},
    },
    ids::{CATALOG_SHARD, Epoch, NodeId, ReplicaId},
    mvcc::{
        compaction::{Retention, Retentions},
        version::Hlc,
    },
    ports::network::{BoxFuture, Inbound, Network},
    request::{Answer, Fault, JoinRequest, Request, ShardBody, ShardRequest, ShardResult},
    shard::command::Outcome,
    units::WallTime,
};
use tokio::sync::{mpsc, watch};

use crate::{
    checkers::{Checkers, Stop, Window},
    disk::{Death, OFFERED_BYTES, Room},
    identity,
    life::{Ending, Life},
    network::Address,
    node::{Diary, Parts, Resident},
    orders::Order,
    poison,
    witness::{WitnessedLog, WitnessedNetwork},
};

/// Memory of a simulated node: its sixteenth parts still take several of the
/// largest entries.
const MEMORY_BYTES: usize = 256 << 20;
/// Pause between two tries to be admitted.
const ADMISSION_PAUSE: Duration = Duration::from_millis(200);
/// Time for one of them.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(3);

/// Machines that run the product.
#[derive(Clone, Debug, Default)]
pub struct Product {
    /// What must hold inside.
    pub checkers: Checkers,
}

impl Resident for Product {
    fn start(&self, parts: Parts) -> BoxFuture<Result<Arc<dyn Inbound>, String>> {
        let checkers = self.checkers.clone();
        Box::pin(async move { start(parts, checkers).await })
    }
}

async fn start(mut parts: Parts, checkers: Checkers) -> Result<Arc<dyn Inbound>, String> {
    let (_, closed) = mpsc::unbounded_channel();
    let orders = std::mem::replace(&mut parts.orders, closed);
    if let Some(poison) = checkers.poisoned() {
        poison::put(poison, &parts.log, &mut parts.recovery.replicas).await;
    }
    checkers.starts(parts.node, parts.boot, &parts.recovery.replicas);
    if parts.life.is_damaged() {
        // What a destroyed disk held counts as it was when it was durable.
        checkers.recovered_beyond(&parts.recovery.replicas);
    } else {
        checkers.recovered(&parts.recovery.replicas);
    }
    let record = node_record(&parts);
    let known = catalog::load(parts.state_files.as_ref())
        .map_err(|error| format!("the catalog's copy cannot be read: {error}"))?;
    let files = parts.state_files.as_ref();
    if !parts.founder && !identity::is_member(files).map_err(|error| error.to_string())? {
        admit(&parts, &record).await;
        identity::note_member(files).map_err(|error| error.to_string())?;
    }
    let founding = parts.founder && known.cluster().is_none();
    let found = sort_stores(parts.engine.as_ref(), &parts.recovery.replicas)
        .map_err(|error| format!("the stores cannot be sorted: {error}"))?;
    let others = parts.nodes.iter().filter(|node| **node != parts.node);
    let seeds = others.map(|node| (*node, vec![Address::Node(*node).socket()]));
    let boot = parts.life.clone();
    let number = parts.number;
    let limits = limits(parts.overlay_bytes);
    let node = NodeParts {
        highest_store: found.highest,
        partial: found.partial,
        forgetful: forgetful(&parts),
        founding: founding.then(|| cluster_record(&parts)),
        seeds: seeds.collect(),
        catalog: Arc::new(known),
        gate: Arc::new(NoGate),
        limits,
        record,
        world: world(&parts, checkers.clone()),
        recovered: parts.recovery.replicas,
    };
    let actors = NodeActors::start(node).await.map_err(|error| error.to_string())?;
    let window = Window {
        life: boot.clone(),
        hosted: actors.hosted.clone(),
        catalog: actors.catalog.clone(),
        live: actors.live.clone(),
        budget: actors.budget.clone(),
        limits,
    };
    checkers.open_window(number, window);
    let mut ended = actors.ended.clone();
    let watched = checkers.clone();
    tokio::spawn(async move {
        let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
        if let Some(how) = how {
            boot.end(ending_of(how, &checkers), Death::Kill);
        }
    });
    tokio::spawn(obey(orders, actors.router.clone(), actors.hosted.clone(), watched));
    let inbound: Arc<dyn Inbound> = Arc::new(actors.switchboard);
    Ok(inbound)
}

/// How the machine ends that a node by itself ended so.
fn ending_of(how: Ended, checkers: &Checkers) -> Ending {
    match how {
        Ended::Refused(cause) => Ending::Refused(cause),
        Ended::OldImage(old) => Ending::OldImage(old),
        // The disk's fault or not, the world knows.
        Ended::Failed { actor: STATE_FILES, cause } => Ending::Fenced(cause),
        Ended::Failed { .. } | Ended::Stopped => {
            let how = format!("the node ended by itself: {how:?}");
            checkers.stopped(Stop::Node, how.clone());
            Ending::Itself(how)
        }
    }
}

/// Whether the log cannot tell who lived on this disk.
fn forgetful(parts: &Parts) -> bool {
    parts.recovery.forgotten_up_to == Some(ReplicaId(u64::MAX))
}

/// A small node: what is bounded reaches its bounds here.
fn limits(overlay_bytes: Option<usize>) -> NodeLimits {
    let usual = NodeLimits::of_memory(MEMORY_BYTES);
    NodeLimits {
        overlay_bytes_max: overlay_bytes.unwrap_or(usual.overlay_bytes_max),
        retentions: retentions(),
        ..usual
    }
}

/// Old versions go soon here, so that also short runs see them go. Longer than
/// any request waits, a list of a few pages included.
fn retentions() -> Retentions {
    let short = |usual| Retention { usual, tight: Some(Duration::from_secs(5)) };
    Retentions { hybrid: short(Some(Duration::from_secs(20))), dense: short(None) }
}

fn world(parts: &Parts, checkers: Checkers) -> World {
    World {
        identity: NodeIdentity { cluster: parts.cluster, node: parts.node, boot: parts.boot },
        clock: parts.clock.clone(),
        hybrid: Arc::new(NodeClock::default()),
        entropy: parts.entropy.clone(),
        network: Arc::new(WitnessedNetwork {
            network: parts.network.clone(),
            checkers: checkers.clone(),
            life: parts.life.clone(),
        }),
        log: Arc::new(WitnessedLog {
            log: parts.log.clone(),
            checkers: checkers.clone(),
            diary: parts.diary.clone(),
        }),
        engine: parts.engine.clone(),
        workers: parts.workers.clone(),
        state_files: parts.state_files.clone(),
        space: Arc::new(Gauge(parts.room.clone())),
        probe: Arc::new(Watcher {
            node: parts.number,
            diary: parts.diary.clone(),
            life: parts.life.clone(),
            checkers,
        }),
    }
}

fn node_record(parts: &Parts) -> NodeRecord {
    NodeRecord {
        node: parts.node,
        number: u64::from(parts.number),
        addresses: vec![Address::Node(parts.node).socket().to_string()],
        http_address: String::new(),
        zone: parts.zone.clone(),
        capacity_bytes: OFFERED_BYTES,
        state: NodeState::Active,
        boot: parts.boot,
    }
}

fn cluster_record(parts: &Parts) -> ClusterRecord {
    ClusterRecord {
        cluster: parts.cluster,
        name: "simulated".to_owned(),
        authority: Vec::new(),
        authority_key_sealed: Vec::new(),
        feature_level: 1,
    }
}

/// Carries out what an operator wants.
async fn obey(
    mut orders: mpsc::UnboundedReceiver<Order>,
    router: Router,
    hosted: watch::Receiver<Arc<Hosted>>,
    checkers: Checkers,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::GiveUpLeadership => {
                for handle in hosted.borrow().by_shard.values() {
                    let _ = handle.actor.cast(ReplicaMessage::TransferLeader(None));
                }
            }
            Order::Remove(node, done) => {
                checkers.order_removal(node);
                let request = catalog_request(CatalogCommand::RemoveNode(node));
                let answer = router.shard(request).await.result;
                if let Ok(ShardResult::Outcome(Outcome::Catalog(CatalogOutcome::Done))) = answer {
                    done.set();
                }
            }
            Order::Miss(node, done) => {
                let catalog = router.catalog();
                if catalog.node(node).is_some_and(|node| node.state == NodeState::Removed) {
                    done.set();
                }
            }
            Order::Readmit(node) => {
                let record = router.catalog().node(node).cloned();
                let record = record.map(|node| NodeRecord { state: NodeState::Active, ..node });
                let Some(node) = record else { continue };
                for command in admission(WallTime(u64::MAX / 2), &node) {
                    // Whether it is let in, the catalog shows.
                    router.shard(catalog_request(command)).await;
                }
            }
        }
    }
}

/// Has this machine admitted through any other, as its first start does.
async fn admit(parts: &Parts, record: &NodeRecord) {
    let others: Vec<NodeId> =
        parts.nodes.iter().copied().filter(|node| *node != parts.node).collect();
    for node in &others {
        parts.network.learn(*node, vec![Address::Node(*node).socket()]);
    }
    // The first machine surely knows the catalog; any other may stand in for it.
    let first = others.first().copied().into_iter().cycle();
    let mut others = first.zip(others.into_iter().cycle()).flat_map(|(a, b)| [a, b]);
    for command in admission(parts.clock.wall(), record) {
        loop {
            let Some(through) = others.next() else { return };
            let answer = ask_catalog(&parts.network, through, command.clone()).await;
            match answer {
                Some(CatalogOutcome::Refused(refusal)) => {
                    parts.diary.note(&format!("is refused: {refusal}"));
                }
                Some(_) => break,
                None => {}
            }
            tokio::time::sleep(ADMISSION_PAUSE).await;
        }
    }
}

/// A token of the node's own, and its use.
fn admission(now: WallTime, node: &NodeRecord) -> [CatalogCommand; 2] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&node.node.0.to_le_bytes());
    let expires = WallTime(now.0 + 1_000_000_000);
    [
        CatalogCommand::AddToken { hash, expires },
        CatalogCommand::AdmitNode { hash, now, node: node.clone() },
    ]
}

/// A change of the catalog, as a node asks for it.
fn catalog_request(command: CatalogCommand) -> ShardRequest {
    ShardRequest {
        shard: CATALOG_SHARD,
        epoch: Epoch(0),
        clock: Hlc(0),
        timeout_ms: u32::try_from(ADMISSION_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
        forwarded: false,
        principal: Principal::Trusted,
        body: ShardBody::Catalog { request: None, command },
    }
}

async fn ask_catalog(
    network: &Arc<dyn Network>,
    node: NodeId,
    command: CatalogCommand,
) -> Option<CatalogOutcome> {
    let request = Request::Shard(catalog_request(command));
    let (class, body) = (request.class(), Bytes::from(request.encode()));
    let answer = network.request(node, class, body, ADMISSION_TIMEOUT).await.ok()?;
    match Answer::decode(&answer).ok()? {
        Answer::Shard(answer) => match answer.result.ok()? {
            ShardResult::Outcome(Outcome::Catalog(outcome)) => Some(outcome),
            ShardResult::Outcome(_)
            | ShardResult::Accepted
            | ShardResult::Value(_)
            | ShardResult::Page { .. }
            | ShardResult::Range { .. }
            | ShardResult::Events(_)
            | ShardResult::Lease(..)
            | ShardResult::Leases { .. }
            | ShardResult::Auth(..)
            | ShardResult::Replica(_) => None,
        },
        Answer::CatalogChanges { .. }
        | Answer::NodeStatus(_)
        | Answer::SnapshotPiece(_)
        | Answer::Joined(_)
        | Answer::Token(_)
        | Answer::Fault(_) => None,
    }
}

/// A disk that is full when it is said to be, or by what its stores hold.
#[derive(Debug)]
struct Gauge(Room);

impl SpaceGauge for Gauge {
    fn measure(&self) -> Space {
        self.0.measured().space()
    }
}

/// Machines of a world need no certificates.
#[derive(Debug)]
struct NoGate;

fn not_here() -> BoxFuture<Answer> {
    let fault = Fault::Invalid("a simulated machine has no certificates".to_owned());
    Box::pin(async move { Answer::Fault(fault) })
}

impl Gate for NoGate {
    fn join(&self, _request: JoinRequest) -> BoxFuture<Answer> {
        not_here()
    }

    fn new_token(&self, _lifetime_ms: u32) -> BoxFuture<Answer> {
        not_here()
    }

    fn status(&self) -> BoxFuture<Answer> {
        not_here()
    }
}

/// Notes what the actors report, and judges it.
#[derive(Debug)]
struct Watcher {
    node: u32,
    diary: Diary,
    life: Life,
    checkers: Checkers,
}

impl Probe for Watcher {
    fn reach(&self, point: FailPoint) {
        self.life.reach(point);
    }

    fn report(&self, report: Report) {
        if self.life.is_over() {
            return;
        }
        // A replica lost on a damaged disk is no finding; whether a fenced one
        // is, the world knows.
        let lost = matches!(report, Report::ReplicaLost { .. });
        let fenced = matches!(report, Report::DiskFenced { .. });
        let excused = lost && self.life.is_damaged();
        if excused {
            self.life.note_loss();
        }
        if !(excused || fenced) {
            self.checkers.report(self.node, &report);
        }
        let counter = match &report {
            // Too many for lines.
            Report::Applied { index, repeated, expired, .. } => {
                self.diary.count_many("repeated request", *repeated);
                self.diary.count_many("session expired", *expired);
                return self.diary.mix(&index.0.to_le_bytes());
            }
            Report::Elected { .. } => "election",
            Report::Configured { configuration, .. } if !configuration.outgoing.is_empty() => {
                "joint step"
            }
            Report::Configured { .. } => "configuration",
            Report::SnapshotPinned { .. } => "snapshot pinned",
            Report::SnapshotOpened { .. } => "snapshot opened",
            Report::SnapshotResumed { .. } => "snapshot resumed",
            Report::LeadershipOffered { .. } => "leadership offered",
            Report::SnapshotInstalled { .. } => "snapshot installed",
            Report::Gathered { .. } => "crowd gathered",
            Report::Hibernating { .. } => "hibernation change",
            Report::PeerRefused { .. } => "peer refused",
            Report::ReplicaLost { .. } => "replica lost",
            Report::ReplicaReplaced { .. } => "replica replaced",
            Report::ReplicaStopped { .. } => "replica stopped",
            Report::Restarted { .. } => "actor restarted",
            Report::DiskFenced { .. } => "disk fenced",
        };
        self.diary.count(counter);
        self.diary.note(&format!("{report:?}"));
        if let Report::DiskFenced { cause } = report {
            // The process ends at once, and recovers.
            self.life.end(Ending::Fenced(cause), Death::Kill);
        }
    }
}
