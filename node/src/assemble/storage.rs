//! A node's disk: log, stores and the measure of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use actors::world::{Space, SpaceGauge};
use anyhow::Context;
use cluster::{
    ids::{ReplicaId, StoreId},
    log::{LogOptions, LogStamp, SegmentedLog},
    memory::{MemoryEngine, MemoryFiles},
    mvcc::layout::progress_key,
    ports::{
        engine::{Engine, Tree},
        files::Files,
        log::RecoveredReplica,
    },
    units::ByteSize,
};
use tokio::sync::oneshot;

use crate::{
    config::{EngineKind, NodeConfig},
    data_dir::{DataDir, NodeIdentity},
    devices::{
        files::DirectoryFiles,
        lmdb::{LmdbConfig, LmdbEngine},
        log::{LogWriter, LogWriterOptions},
    },
};

/// Address space of one store: four times the bound of a shard (16 GiB), which
/// leaves 1,024 stores in the 64 TiB a process may map.
const STORE_MAP: ByteSize = ByteSize::gib(64);
/// Capacity of a node that keeps its data in memory, unless told otherwise.
const MEMORY_CAPACITY: ByteSize = ByteSize::gib(4);

/// A node's open disk.
pub(super) struct Storage {
    pub(super) log: Arc<LogWriter>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) gauge: Arc<dyn SpaceGauge>,
    pub(super) recovered: Vec<RecoveredReplica>,
    pub(super) highest_store: StoreId,
    pub(super) partial: BTreeMap<ReplicaId, Vec<StoreId>>,
}

impl Storage {
    /// Opens log and stores. `fence` is told when the log fails for good.
    pub(super) fn open(
        config: &NodeConfig,
        dir: &DataDir,
        identity: NodeIdentity,
        fence: oneshot::Sender<String>,
    ) -> anyhow::Result<Self> {
        let (files, engine): (Arc<dyn Files>, Arc<dyn Engine>) = match config.engine {
            EngineKind::Disk => (disk_files(dir)?, disk_engine(dir, identity)?),
            EngineKind::Memory => {
                (Arc::new(MemoryFiles::default()), Arc::new(MemoryEngine::default()))
            }
        };
        let stamp = LogStamp { cluster: identity.cluster, node: identity.node, disk: 0 };
        let (log, recovery) = SegmentedLog::open(files, stamp, LogOptions::default())
            .with_context(|| format!("cannot open the log in {}", dir.log().display()))?;
        if let Some(torn) = &recovery.torn {
            tracing::info!(?torn, "the log's torn tail was cut: nothing in it was acknowledged");
        }
        for damage in &recovery.damage {
            tracing::error!(
                ?damage,
                "the log is damaged: the replicas it may concern take no part"
            );
        }
        let options = LogWriterOptions::default();
        let log = LogWriter::start(log, options, move |cause| drop(fence.send(cause)))
            .context("cannot start the log's thread")?;
        let recovered = recovery.replicas;
        let (highest_store, partial) = sort_stores(engine.as_ref(), &recovered)?;
        Ok(Self {
            log: Arc::new(log),
            engine,
            gauge: gauge(config, dir.root()),
            recovered,
            highest_store,
            partial,
        })
    }

    /// Bytes the node offers.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.gauge.measure().capacity_bytes
    }

    /// Ends the log's thread; everything acknowledged is durable already.
    pub(super) fn stop(&self) {
        self.log.stop();
    }
}

fn disk_files(dir: &DataDir) -> anyhow::Result<Arc<dyn Files>> {
    let path = dir.log();
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let files =
        DirectoryFiles::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Arc::new(files))
}

fn disk_engine(dir: &DataDir, identity: NodeIdentity) -> anyhow::Result<Arc<dyn Engine>> {
    let config = LmdbConfig {
        cluster: identity.cluster,
        node: identity.node,
        map_bytes: usize::try_from(STORE_MAP.bytes())
            .context("this machine has no 64-bit addresses")?,
    };
    let engine = LmdbEngine::new(dir.stores(), dir.quarantine(), config)
        .with_context(|| format!("cannot open the stores in {}", dir.stores().display()))?;
    Ok(Arc::new(engine))
}

/// Stores by their number and by who may go on in them. What no record of the
/// log names is set aside, unless a snapshot was being received into it.
fn sort_stores(
    engine: &dyn Engine,
    recovered: &[RecoveredReplica],
) -> anyhow::Result<(StoreId, BTreeMap<ReplicaId, Vec<StoreId>>)> {
    let named: BTreeSet<StoreId> = recovered.iter().map(|replica| replica.store).collect();
    let listed = engine.list()?;
    let highest = listed.iter().chain(&named).max().copied().unwrap_or_default();
    let mut partial: BTreeMap<ReplicaId, Vec<StoreId>> = BTreeMap::new();
    for store in listed.into_iter().filter(|store| !named.contains(store)) {
        match receiver_of(engine, store, recovered) {
            Some(replica) => partial.entry(replica).or_default().push(store),
            None => {
                tracing::warn!(%store, "a store no record names is set aside in the quarantine");
                engine.quarantine(store)?;
            }
        }
    }
    Ok((highest, partial))
}

/// The replica into which a snapshot was being received in this store.
fn receiver_of(
    engine: &dyn Engine,
    store: StoreId,
    recovered: &[RecoveredReplica],
) -> Option<ReplicaId> {
    let open = engine.open(store).ok()?;
    let view = open.view().ok()?;
    recovered.iter().map(|replica| replica.replica).find(|replica| {
        view.get(Tree::Root, &progress_key(*replica)).is_ok_and(|found| found.is_some())
    })
}

fn gauge(config: &NodeConfig, root: &Path) -> Arc<dyn SpaceGauge> {
    match config.engine {
        EngineKind::Disk => {
            Arc::new(FileSystemGauge { root: root.to_owned(), capacity: config.capacity })
        }
        EngineKind::Memory => {
            Arc::new(FixedGauge(config.capacity.unwrap_or(MEMORY_CAPACITY).bytes()))
        }
    }
}

/// Measures the file system of the data directory.
#[derive(Debug)]
struct FileSystemGauge {
    root: PathBuf,
    capacity: Option<ByteSize>,
}

impl SpaceGauge for FileSystemGauge {
    fn measure(&self) -> Space {
        let Ok(stat) = rustix::fs::statvfs(&self.root) else { return Space::default() };
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let used = total.saturating_sub(free);
        let Some(offered) = self.capacity else {
            return Space { used_bytes: used, capacity_bytes: total };
        };
        // What others use of the file system counts once it eats into our share.
        let offered = offered.bytes().min(total);
        let own = own_bytes(&self.root);
        Space { used_bytes: own.max(offered.saturating_sub(free)), capacity_bytes: offered }
    }
}

/// Bytes the files below `root` take.
fn own_bytes(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(root) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => own_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// A node in memory: its use is not measured, only its offer is told.
#[derive(Debug)]
struct FixedGauge(u64);

impl SpaceGauge for FixedGauge {
    fn measure(&self) -> Space {
        Space { used_bytes: 0, capacity_bytes: self.0 }
    }
}
