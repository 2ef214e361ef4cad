//! What the node says of itself: its status and whether it is ready.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actors::{budget::NodeBudget, root::NodeActors, router::Hosted, world::Space};
use cluster::{
    catalog::{
        record::{NodeRecord, VolumeKind},
        view::CatalogView,
    },
    membership::swim::LiveView,
    mvcc::tally::Tally,
    request::ReplicaStatus,
    shard::descriptor::ReplicaRole,
    units::{ByteSize, Instant},
};
use tokio::sync::watch;

use super::storage::Storage;
use crate::{
    config::NodeConfig,
    devices::{clock::SystemClock, log::LogWriter},
    observe::{
        health::{Check, Lines, Readiness},
        volumes::{self, VolumeFigures},
    },
    status::{DiskStatus, MemoryStatus, NodeStatus, ReplicaSummary},
};
use cluster::ports::clock::Clock;

/// A look at a running node; cheap to clone.
#[derive(Clone)]
pub(super) struct NodeView(Arc<Inner>);

struct Inner {
    record: NodeRecord,
    directory: String,
    doors: BTreeMap<String, String>,
    started: Instant,
    clock: Arc<SystemClock>,
    hosted: watch::Receiver<Arc<Hosted>>,
    catalog: watch::Receiver<Arc<CatalogView>>,
    live: watch::Receiver<LiveView>,
    space: watch::Receiver<Space>,
    budget: Arc<NodeBudget>,
    memory_bytes_max: u64,
    log: Arc<LogWriter>,
    stopping: AtomicBool,
}

impl NodeView {
    pub(super) fn new(
        config: &NodeConfig,
        record: &NodeRecord,
        actors: &NodeActors,
        storage: &Storage,
        clock: Arc<SystemClock>,
    ) -> Self {
        Self(Arc::new(Inner {
            record: record.clone(),
            directory: config.data_dir.display().to_string(),
            doors: config.doors.addresses(),
            started: clock.now(),
            clock,
            hosted: actors.hosted.clone(),
            catalog: actors.catalog.clone(),
            live: actors.live.clone(),
            space: actors.space.clone(),
            budget: Arc::clone(&actors.budget),
            memory_bytes_max: config.limits.memory.bytes(),
            log: Arc::clone(&storage.log),
            stopping: AtomicBool::new(false),
        }))
    }

    /// From now on the node says that it stops.
    pub(super) fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// The status as JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(&self.status())
            .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// What keeps the node from serving, asked per request.
    pub(super) fn readiness(&self) -> Readiness {
        let view = self.clone();
        Arc::new(move || view.checks())
    }

    /// The lines of volumes on the page of metrics.
    pub(super) fn volumes(&self) -> Lines {
        let view = self.clone();
        Arc::new(move || volumes::page(&view.figures()))
    }

    /// The volumes of which this node has replicas, by id.
    fn figures(&self) -> Vec<VolumeFigures> {
        let catalog = self.0.catalog.borrow().clone();
        let mut figures: BTreeMap<_, VolumeFigures> = BTreeMap::new();
        for (id, status, _) in self.statuses() {
            let Some(volume) = catalog.volume_by_id(id) else { continue };
            let single = volume.policy.kind == VolumeKind::Single;
            let shown = figures.entry(id).or_insert_with(|| VolumeFigures {
                name: volume.name.clone(),
                tally: Tally::default(),
                versions: None,
                restoring: false,
            });
            if status.leading {
                shown.tally = [shown.tally, status.tally].into_iter().sum();
            }
            shown.versions = single.then_some((status.version.0, status.compacted.0));
            shown.restoring |= status.restoring;
        }
        figures.into_values().collect()
    }

    fn status(&self) -> NodeStatus {
        let inner = &self.0;
        let catalog = inner.catalog.borrow().clone();
        let known = catalog.node(inner.record.node);
        let found = self.checks().into_iter().filter_map(|check| check.problem);
        let problems: Vec<String> = found.chain(self.full_stores()).collect();
        let own = inner.record.node;
        let peers_up = inner.live.borrow().nodes().into_iter().filter(|node| *node != own);
        NodeStatus {
            node: own.to_hex(),
            number: known.map_or(0, |record| record.number),
            cluster: catalog.cluster().map(|cluster| cluster.cluster.to_hex()).unwrap_or_default(),
            cluster_name: catalog.cluster().map(|cluster| cluster.name.clone()).unwrap_or_default(),
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            zone: inner.record.zone.clone(),
            addresses: inner.record.addresses.clone(),
            http_address: inner.record.http_address.clone(),
            doors: inner.doors.clone(),
            incarnation: inner.record.boot.incarnation.0,
            uptime_ms: u64::try_from(inner.clock.now().since(inner.started).as_millis())
                .unwrap_or(u64::MAX),
            state: self.state(&problems).to_owned(),
            problems,
            peers_up: peers_up.map(cluster::ids::NodeId::to_hex).collect(),
            memory: self.memory(),
            disks: vec![self.disk()],
            replicas: self.replicas(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn state(&self, problems: &[String]) -> &'static str {
        if self.0.stopping.load(Ordering::Acquire) {
            "stopping"
        } else if !self.registered() {
            "starting"
        } else if problems.is_empty() {
            "ready"
        } else {
            "degraded"
        }
    }

    fn memory(&self) -> MemoryStatus {
        let held = self.0.budget.memory();
        MemoryStatus {
            limit_bytes: self.0.memory_bytes_max,
            overlay_bytes: held.overlay as u64,
            entries_bytes: held.entries as u64,
            requests_bytes: held.requests as u64,
            inbox_bytes: held.inbox as u64,
        }
    }

    fn disk(&self) -> DiskStatus {
        let space = *self.0.space.borrow();
        let stats = self.0.log.stats();
        DiskStatus {
            directory: self.0.directory.clone(),
            used_bytes: space.used_bytes,
            free_bytes: space.room_bytes,
            capacity_bytes: space.capacity_bytes,
            log_syncs: stats.batches,
            log_records: stats.records,
            log_bytes: stats.bytes,
            fullest_store_percent: self.fullest_store_percent().into(),
            fenced: None,
        }
    }

    fn fullest_store_percent(&self) -> u8 {
        let hosted = self.0.hosted.borrow();
        hosted.by_shard.values().map(|handle| handle.limit().percent_used()).max().unwrap_or(0)
    }

    /// What there is to say of stores that take no puts. It makes no node unready: all
    /// its other shards serve, and this one serves reads.
    fn full_stores(&self) -> Vec<String> {
        let hosted = self.0.hosted.borrow();
        let full = hosted.by_shard.values().filter(|handle| handle.limit().is_full());
        full.map(|handle| {
            let (limit, shard) = (handle.limit(), handle.shard);
            format!(
                "the store of {shard} is at {} % of its limit of {}: delete keys and compact, or raise limits.store",
                limit.percent_used(),
                ByteSize(limit.limit_bytes())
            )
        })
        .collect()
    }

    fn statuses(&self) -> Vec<(cluster::ids::VolumeId, ReplicaStatus, usize)> {
        let hosted = self.0.hosted.borrow();
        hosted
            .by_shard
            .values()
            .filter_map(|handle| Some((handle.volume, handle.status()?, handle.filled_percent())))
            .collect()
    }

    fn replicas(&self) -> Vec<ReplicaSummary> {
        let stopped: BTreeMap<_, _> = self.0.hosted.borrow().stopped.clone();
        let lost: BTreeMap<_, _> = self.0.hosted.borrow().lost.clone();
        let running = self.statuses().into_iter().map(|(volume, status, percent)| {
            let filled_percent = u64::try_from(percent).unwrap_or(0);
            ReplicaSummary { filled_percent, ..summary(volume.0, &status) }
        });
        let ended = stopped.into_iter().map(|(replica, (shard, cause))| ReplicaSummary {
            replica: replica.0,
            shard: shard.0,
            stopped: Some(cause),
            ..ReplicaSummary::default()
        });
        let lost = lost.into_iter().map(|(replica, (shard, cause))| ReplicaSummary {
            replica: replica.0,
            shard: shard.0,
            lost: Some(cause),
            ..ReplicaSummary::default()
        });
        running.chain(ended).chain(lost).collect()
    }

    /// Whether the catalog knows this very start.
    fn registered(&self) -> bool {
        let catalog = self.0.catalog.borrow();
        catalog.node(self.0.record.node).is_some_and(|known| known.boot == self.0.record.boot)
    }

    fn checks(&self) -> Vec<Check> {
        let registered = (!self.registered()).then(|| {
            "the catalog has not taken this start yet: a majority of its nodes must run".to_owned()
        });
        let statuses = self.statuses();
        let leaderless = statuses.iter().filter(|(_, status, _)| status.leader.is_none()).count();
        let leaders = (leaderless > 0).then(|| {
            format!("{leaderless} shards of this node know no leader: start the nodes that hold their other replicas")
        });
        let stopped = statuses.iter().filter(|(_, status, _)| status.stopped.is_some()).count()
            + self.0.hosted.borrow().stopped.len();
        let replicas = (stopped > 0).then(|| {
            format!(
                "{stopped} replicas are stopped for good: cdb node show names them with the cause"
            )
        });
        let space = *self.0.space.borrow();
        let space = space.is_full().then(|| {
            format!(
                "the disk is {} % full: delete keys, remove a volume or add space",
                space.percent_used()
            )
        });
        vec![
            Check { name: "registered", problem: registered },
            Check { name: "leaders", problem: leaders },
            Check { name: "replicas", problem: replicas },
            Check { name: "space", problem: space },
        ]
    }
}

fn summary(volume: u64, status: &ReplicaStatus) -> ReplicaSummary {
    let own = status.descriptor.replicas.iter().find(|replica| replica.replica == status.replica);
    ReplicaSummary {
        replica: status.replica.0,
        shard: status.descriptor.shard.0,
        volume,
        leading: status.leading,
        voter: own.is_some_and(|replica| replica.role == ReplicaRole::Voter),
        leader: status.leader.map(cluster::ids::NodeId::to_hex),
        term: status.term,
        applied: status.applied.0,
        committed: status.committed.0,
        last: status.last.0,
        hibernating: status.hibernating,
        stopped: status.stopped.clone(),
        lost: None,
        filled_percent: 0,
    }
}
