//! A node inside another program: one machine, one copy of everything, no
//! network and no door. Disk, log, stores and actors are those of any node, so
//! what is acknowledged is durable in the same way.

use std::{path::Path, sync::Arc, time::Duration};

use actors::{
    client::Client,
    probe::TracingProbe,
    root::{NodeActors, NodeParts},
    switchboard::Gate,
    world::{NodeIdentity, World},
};
use anyhow::Context;
use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::{
        files::Files,
        network::{BoxFuture, Lane, Network, RequestClass, RequestError, SendError},
        workers::Workers,
    },
    request::{Answer, Fault, JoinRequest},
    units::ByteSize,
};
use tokio::sync::oneshot;

use super::{limits_of, node_record, storage::Storage};
use crate::{
    cli::init::{create_cluster, waiting_cluster},
    config::NodeConfig,
    data_dir::{DataDir, StateFile, is_born},
    devices::{
        clock::SystemClock, entropy::SystemEntropy, files::DirectoryFiles, workers::EngineThreads,
    },
    doors::local::LocalDoor,
};

/// Time for the farewells of actors.
const FAREWELL: Duration = Duration::from_secs(3);
/// Time until the catalog of one node stands.
const FOUNDING_MAX: Duration = Duration::from_secs(20);
/// Threads of an embedded node's engine, and for its reads.
const THREADS: usize = 1;

/// A node that runs inside this process.
pub(crate) struct Embedded {
    /// Asks it anything.
    pub(crate) client: Client,
    #[cfg(feature = "etcd")]
    node: NodeId,
    actors: NodeActors,
    storage: Storage,
    /// Locks the directory for as long as the node lives.
    _dir: DataDir,
    _fenced: oneshot::Receiver<String>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What an embedded node is told: its directory, and the memory it may take.
///
/// # Errors
/// If the directory has no name.
pub(crate) fn embedded_config(data_dir: &Path, memory: ByteSize) -> anyhow::Result<NodeConfig> {
    let text = "data_dir: embedded\nhttp: off\nlimits:\n  log_segment: 16 MiB\n";
    let mut config = NodeConfig::parse(text).map_err(|error| anyhow::anyhow!(error))?;
    data_dir.clone_into(&mut config.data_dir);
    config.limits.memory = memory.max(config.limits.memory);
    Ok(config)
}

impl Embedded {
    /// Opens the node in the directory; an empty one becomes a cluster of one.
    ///
    /// # Errors
    /// If the directory is in use or damaged, or the node does not start.
    pub(crate) async fn open(config: &NodeConfig) -> anyhow::Result<Self> {
        if !is_born(&config.data_dir) {
            create_cluster(config, "embedded", None)?;
        }
        let dir = DataDir::open(&config.data_dir)?;
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
        let (identity, founding) = (dir.existing()?, waiting_cluster(&dir)?);
        let state_files: Arc<dyn Files> = Arc::new(DirectoryFiles::open(dir.root())?);
        let (fence, fenced) = oneshot::channel();
        let storage = Storage::open(config, &dir, identity, None, fence)?;
        let catalog = actors::catalog::load(state_files.as_ref())?;
        let told = catalog.node(identity.node).map(|record| record.boot);
        let boot = dir.next_boot(config.engine, told, None, entropy.as_ref())?;
        let panicked = |replica, cause: &str| tracing::error!(?replica, cause, "a job panicked");
        let workers: Arc<dyn Workers> =
            Arc::new(EngineThreads::start(THREADS, THREADS, Arc::new(panicked))?);
        let network: Arc<dyn Network> = Arc::new(Alone);
        let world = World {
            identity: NodeIdentity { cluster: identity.cluster, node: identity.node, boot },
            clock: clock.clone(),
            hybrid: Arc::default(),
            entropy: entropy.clone(),
            network: network.clone(),
            log: storage.log.clone(),
            engine: storage.engine.clone(),
            workers,
            state_files,
            space: storage.gauge.clone(),
            probe: Arc::new(TracingProbe),
        };
        let founds = founding.is_some();
        let actors = NodeActors::start(NodeParts {
            recovered: storage.recovered.clone(),
            forgetful: storage.forgetful,
            highest_store: storage.highest_store,
            partial: storage.partial.clone(),
            record: node_record(config, None, identity.node, boot, &storage)?,
            founding,
            seeds: Vec::new(),
            catalog: Arc::new(catalog),
            gate: Arc::new(Alone),
            limits: limits_of(config)?,
            world,
        })
        .await
        .map_err(|error| anyhow::anyhow!("the node's actors do not start: {error}"))?;
        if founds {
            let mut shown = actors.catalog.clone();
            let stands = shown.wait_for(|view| view.cluster().is_some());
            let stands = tokio::time::timeout(FOUNDING_MAX, stands).await;
            stands.context("the catalog does not stand in time")??;
            dir.forget(StateFile::Bootstrap)?;
        }
        let door =
            LocalDoor::new(actors.switchboard.clone(), network, identity.node, "embedded program");
        let client = Client::new(Arc::new(door), clock, entropy);
        Ok(Self {
            client,
            #[cfg(feature = "etcd")]
            node: identity.node,
            actors,
            storage,
            _dir: dir,
            _fenced: fenced,
        })
    }

    /// Bytes its data takes on the disk.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.storage.gauge.measure().used_bytes
    }

    /// What etcd's services over one of its volumes share.
    #[cfg(feature = "etcd")]
    pub(crate) fn etcd_gateway(
        &self,
        config: crate::config::EtcdConfig,
    ) -> crate::doors::etcd::Gateway {
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
        super::doors::etcd_gateway(&self.client, &self.actors, self.node, config, clock, entropy)
    }

    /// Ends it; everything acknowledged is durable already.
    pub(crate) async fn stop(self) {
        self.client.close().await;
        let _ = tokio::time::timeout(FAREWELL, self.actors.stop()).await;
        self.storage.stop();
    }
}

/// Nobody else is there: no network, and nobody to let in.
#[derive(Debug)]
struct Alone;

impl Network for Alone {
    fn send(&self, to: NodeId, _lane: Lane, _message: Bytes) -> Result<(), SendError> {
        Err(SendError::UnknownNode(to))
    }

    fn request(
        &self,
        to: NodeId,
        _class: RequestClass,
        _body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>> {
        let cause = "an embedded node has no network".to_owned();
        Box::pin(std::future::ready(Err(RequestError::Unreachable { node: to, cause })))
    }

    fn learn(&self, _node: NodeId, _addresses: Vec<std::net::SocketAddr>) {}

    fn forget(&self, _node: NodeId) {}
}

fn not_here() -> BoxFuture<Answer> {
    let fault = Fault::NotAllowed("an embedded node is alone".to_owned());
    Box::pin(std::future::ready(Answer::Fault(fault)))
}

impl Gate for Alone {
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
