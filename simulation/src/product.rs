//! The product on a simulated machine: its own actors over the fake ports.
//!
//! Does what the node's assembly does on a real one: founds the cluster on the
//! first machine, admits the others with a token, and starts the root with
//! what log, stores and state files hold.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actors::{
    budget::NodeLimits,
    catalog,
    disk::sort_stores,
    probe::{Probe, Report},
    root::{Ended, NodeActors, NodeParts},
    switchboard::Gate,
    world::{NodeClock, NodeIdentity, Space, SpaceGauge, World},
};
use bytes::Bytes;
use cluster::{
    catalog::{
        command::{CatalogCommand, CatalogOutcome},
        record::{ClusterRecord, NodeRecord, NodeState},
    },
    ids::{CATALOG_SHARD, Epoch, Incarnation, NodeId, ReplicaId},
    mvcc::{
        compaction::{Retention, Retentions},
        version::Hlc,
    },
    ports::network::{BoxFuture, Inbound, Network},
    request::{Answer, Fault, JoinRequest, Request, ShardBody, ShardRequest, ShardResult},
    shard::command::Outcome,
    units::WallTime,
};

use crate::{
    checkers::{Checkers, Stop},
    disk::{OFFERED_BYTES, Room},
    network::Address,
    node::{Diary, Parts, Resident},
    witness::WitnessedLog,
};

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

async fn start(parts: Parts, checkers: Checkers) -> Result<Arc<dyn Inbound>, String> {
    checkers.recovered(&parts.recovery.replicas);
    let record = node_record(&parts);
    let known = catalog::load(parts.state_files.as_ref())
        .map_err(|error| format!("the catalog's copy cannot be read: {error}"))?;
    let first = parts.nodes.first().copied().filter(|first| *first != parts.node);
    if known.node(parts.node).is_none()
        && let Some(first) = first
    {
        admit(&parts, first, &record).await;
    }
    let founding = first.is_none() && known.cluster().is_none();
    let found = sort_stores(parts.engine.as_ref(), &parts.recovery.replicas)
        .map_err(|error| format!("the stores cannot be sorted: {error}"))?;
    let others = parts.nodes.iter().filter(|node| **node != parts.node);
    let seeds = others.map(|node| (*node, vec![Address::Node(*node).socket()]));
    let (diary, again) = (parts.diary.clone(), parts.again.clone());
    let node = NodeParts {
        highest_store: found.highest,
        partial: found.partial,
        forgetful: forgetful(&parts),
        founding: founding.then(|| cluster_record(&parts)),
        seeds: seeds.collect(),
        catalog: Arc::new(known),
        gate: Arc::new(NoGate),
        limits: NodeLimits { retentions: retentions(), ..NodeLimits::default() },
        record,
        world: world(&parts, checkers.clone()),
        recovered: parts.recovery.replicas,
    };
    let actors = NodeActors::start(node).await.map_err(|error| error.to_string())?;
    let mut ended = actors.ended.clone();
    tokio::spawn(async move {
        if let Ok(how) = ended.wait_for(Option::is_some).await {
            if let Some(Ended::OldImage(old)) = &*how {
                diary.count("old image found");
                diary.note(&format!("runs on an old image: {old:?}"));
                return again.store(true, Ordering::Relaxed);
            }
            let how = format!("the node ended by itself: {:?}", *how);
            diary.note(&how);
            checkers.stopped(Stop::Node, how);
        }
    });
    let inbound: Arc<dyn Inbound> = Arc::new(actors.switchboard);
    Ok(inbound)
}

/// Whether the log cannot tell who lived on this disk: it says so, or it is
/// gone and this is not the first start.
fn forgetful(parts: &Parts) -> bool {
    let unsure = parts.recovery.forgotten_up_to == Some(ReplicaId(u64::MAX));
    unsure || (parts.recovery.fresh && parts.boot.incarnation > Incarnation(1))
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
        network: parts.network.clone(),
        log: Arc::new(WitnessedLog {
            log: parts.log.clone(),
            checkers: checkers.clone(),
            diary: parts.diary.clone(),
        }),
        engine: parts.engine.clone(),
        workers: parts.workers.clone(),
        state_files: parts.state_files.clone(),
        space: Arc::new(Gauge(parts.room.clone())),
        probe: Arc::new(Watcher { node: parts.number, diary: parts.diary.clone(), checkers }),
    }
}

fn node_record(parts: &Parts) -> NodeRecord {
    NodeRecord {
        node: parts.node,
        number: u64::from(parts.number),
        addresses: vec![Address::Node(parts.node).socket().to_string()],
        http_address: String::new(),
        zone: format!("zone-{}", parts.number),
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

/// Has this machine admitted through another, as its first start does.
async fn admit(parts: &Parts, through: NodeId, record: &NodeRecord) {
    parts.network.learn(through, vec![Address::Node(through).socket()]);
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&parts.node.0.to_le_bytes());
    let now = parts.clock.wall();
    let expires = WallTime(now.0 + 1_000_000_000);
    let commands = [
        CatalogCommand::AddToken { hash, expires },
        CatalogCommand::AdmitNode { hash, now, node: record.clone() },
    ];
    for command in commands {
        loop {
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

async fn ask_catalog(
    network: &Arc<dyn Network>,
    node: NodeId,
    command: CatalogCommand,
) -> Option<CatalogOutcome> {
    let request = ShardRequest {
        shard: CATALOG_SHARD,
        epoch: Epoch(0),
        clock: Hlc(0),
        timeout_ms: u32::try_from(ADMISSION_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
        forwarded: false,
        body: ShardBody::Catalog { request: None, command },
    };
    let request = Request::Shard(request);
    let (class, body) = (request.class(), Bytes::from(request.encode()));
    let answer = network.request(node, class, body, ADMISSION_TIMEOUT).await.ok()?;
    match Answer::decode(&answer).ok()? {
        Answer::Shard(answer) => match answer.result.ok()? {
            ShardResult::Outcome(Outcome::Catalog(outcome)) => Some(outcome),
            ShardResult::Outcome(_)
            | ShardResult::Accepted
            | ShardResult::Value(_)
            | ShardResult::Page { .. }
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
        let (used_bytes, offered_bytes) = self.0.bytes();
        Space::of(if self.0.is_full() { offered_bytes } else { used_bytes }, offered_bytes)
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
    checkers: Checkers,
}

impl Probe for Watcher {
    fn report(&self, report: Report) {
        self.checkers.report(self.node, &report);
        let counter = match &report {
            // Too many for lines.
            Report::Applied { index, .. } => return self.diary.mix(&index.0.to_le_bytes()),
            Report::Elected { .. } => "election",
            Report::Configured { .. } => "configuration",
            Report::SnapshotInstalled { .. } => "snapshot installed",
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
    }
}
