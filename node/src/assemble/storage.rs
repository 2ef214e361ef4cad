//! A node's disk: log, stores and the measure of both.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use actors::{
    disk::{FoundStores, sort_stores},
    root::OldImage,
    world::{Space, SpaceGauge},
};
use anyhow::Context;
use cluster::{
    ids::{ReplicaId, StoreId},
    log::{LogOptions, LogStamp, SegmentedLog},
    memory::{MemoryEngine, MemoryFiles},
    ports::{engine::Engine, files::Files, log::RecoveredReplica},
    units::ByteSize,
};
use tokio::sync::oneshot;

use super::space::DiskGauge;
use crate::{
    config::{EngineKind, NodeConfig},
    data_dir::{DataDir, NodeIdentity},
    devices::{
        files::DirectoryFiles,
        lmdb::{LmdbConfig, LmdbEngine},
        log::{LogWriter, LogWriterOptions},
    },
};

/// Limits of stores are read in steps of this: a multiple of the pages of all systems.
const STORE_STEP_BYTES: usize = 64 << 10;
/// Capacity of a node that keeps its data in memory, unless told otherwise.
const MEMORY_CAPACITY: ByteSize = ByteSize::gib(4);

/// A node's open disk.
pub(super) struct Storage {
    pub(super) log: Arc<LogWriter>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) gauge: Arc<dyn SpaceGauge>,
    pub(super) recovered: Vec<RecoveredReplica>,
    /// Whether the log cannot tell which replicas lived here.
    pub(super) forgetful: bool,
    pub(super) highest_store: StoreId,
    pub(super) partial: BTreeMap<ReplicaId, Vec<StoreId>>,
}

impl Storage {
    /// Opens log and stores; what is `old` of them is condemned first. `fence`
    /// is told when the log fails for good.
    pub(super) fn open(
        config: &NodeConfig,
        dir: &DataDir,
        identity: NodeIdentity,
        old: Option<OldImage>,
        fence: oneshot::Sender<String>,
    ) -> anyhow::Result<Self> {
        let Device { files, engine, gauge } = match config.engine {
            EngineKind::Disk => disk(config, dir, identity)?,
            EngineKind::Memory => Device {
                files: Arc::new(MemoryFiles::default()),
                engine: Arc::new(MemoryEngine::default()),
                gauge: Arc::new(FixedGauge(config.capacity.unwrap_or(MEMORY_CAPACITY).bytes())),
            },
        };
        let stamp = LogStamp { cluster: identity.cluster, node: identity.node, disk: 0 };
        let (mut log, mut recovery) =
            SegmentedLog::open(files, stamp, log_options(config, dir)?)
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
        if let Some(old) = old {
            tracing::warn!(?old, "this disk is an old image: its replicas return under new ids");
            log.condemn(old.born_up_to, &mut recovery)?;
        }
        let options = LogWriterOptions::default();
        let log = LogWriter::start(log, options, move |cause| drop(fence.send(cause)))
            .context("cannot start the log's thread")?;
        let forgetful = recovery.forgotten_up_to == Some(ReplicaId(u64::MAX));
        let recovered = recovery.replicas;
        let FoundStores { highest: highest_store, partial } =
            sort_stores(engine.as_ref(), &recovered)?;
        Ok(Self { log: Arc::new(log), engine, gauge, recovered, forgetful, highest_store, partial })
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

/// What a node keeps its state on.
struct Device {
    files: Arc<dyn Files>,
    engine: Arc<dyn Engine>,
    gauge: Arc<dyn SpaceGauge>,
}

fn disk(config: &NodeConfig, dir: &DataDir, identity: NodeIdentity) -> anyhow::Result<Device> {
    let files = disk_files(dir)?;
    let engine = disk_engine(config, dir, identity)?;
    let gauge = DiskGauge {
        root: dir.root().to_owned(),
        log: dir.log(),
        engine: Arc::clone(&engine),
        capacity: config.capacity,
        segment_bytes: config.limits.log_segment.bytes(),
        rest: Mutex::default(),
    };
    Ok(Device { files, engine, gauge: Arc::new(gauge) })
}

fn log_options(config: &NodeConfig, dir: &DataDir) -> anyhow::Result<LogOptions> {
    let bytes = usize::try_from(config.limits.log_segment.bytes())?;
    // Segments are read in steps of 64 bytes.
    Ok(LogOptions { segment_bytes: bytes / 64 * 64, begun: dir.has_started()? })
}

fn disk_files(dir: &DataDir) -> anyhow::Result<Arc<dyn Files>> {
    let path = dir.log();
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let files =
        DirectoryFiles::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Arc::new(files))
}

fn disk_engine(
    config: &NodeConfig,
    dir: &DataDir,
    identity: NodeIdentity,
) -> anyhow::Result<Arc<LmdbEngine>> {
    let limit = usize::try_from(config.limits.store.bytes())
        .context("this machine has no 64-bit addresses")?;
    let config = LmdbConfig {
        cluster: identity.cluster,
        node: identity.node,
        map_bytes: limit / STORE_STEP_BYTES * STORE_STEP_BYTES,
    };
    let engine = LmdbEngine::new(dir.stores(), dir.quarantine(), config)
        .with_context(|| format!("cannot open the stores in {}", dir.stores().display()))?;
    Ok(Arc::new(engine))
}

/// A node in memory: its use is not measured, only its offer is told.
#[derive(Debug)]
struct FixedGauge(u64);

impl SpaceGauge for FixedGauge {
    fn measure(&self) -> Space {
        Space::of(0, self.0)
    }
}
