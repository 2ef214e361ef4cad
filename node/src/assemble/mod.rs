//! The real world plus the actors: a node.
//!
//! [`run`] opens the data directory, gives the ports real devices, starts the
//! actors over them and the doors before them, and waits for the end: a
//! signal, a fenced disk, or actors that cannot go on.

mod gate;
mod join;
mod late;
mod space;
mod status;
mod storage;
mod teach;

use std::{sync::Arc, time::Duration};

use actors::{
    probe::TracingProbe,
    root::{Ended, NodeActors, NodeParts},
    world::{NodeIdentity, World},
};
use anyhow::Context;
use cluster::{
    catalog::record::{NodeRecord, NodeState},
    membership::Boot,
    ports::{clock::Clock, entropy::Entropy, network::Network, workers::Workers},
};
use tokio::{net::TcpListener, sync::oneshot};
use transport::{
    Limits, Socket, Transport, TransportConfig,
    identity::{ClusterKey, Credentials},
};

use self::{gate::NodeGate, late::LateInbound, status::NodeView, storage::Storage};
use crate::{
    cli::{
        init::waiting_cluster,
        start::{StartMode, stop_signal},
    },
    config::NodeConfig,
    data_dir::{DataDir, StateFile},
    devices::{
        clock::SystemClock, entropy::SystemEntropy, files::DirectoryFiles, workers::EngineThreads,
    },
    observe::{health::Health, metrics},
};

/// What the configuration of a cluster hashes to: nodes that disagree on what
/// all must agree on refuse each other. Nothing can be chosen yet.
const CONFIG_HASH: u64 = 1;
/// Time for the answer to a last request and the farewells.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs a node until it is told to stop.
///
/// # Errors
/// If it cannot start, or ends by itself; the message says why and what to do.
pub async fn run(config: NodeConfig, start: StartMode) -> anyhow::Result<()> {
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    let mut dir = DataDir::open(&config.data_dir)?;
    let seeds = match start {
        StartMode::Existing => Vec::new(),
        StartMode::Join { addr, token } => {
            join::join(&config, &mut dir, &addr, &token, &clock, &entropy).await?
        }
    };
    Node::start(config, dir, seeds, clock, entropy).await?.serve().await
}

/// A started node.
struct Node {
    config: NodeConfig,
    actors: NodeActors,
    transport: Arc<Transport>,
    storage: Storage,
    view: NodeView,
    http: Option<tokio::task::JoinHandle<()>>,
    teacher: tokio::task::JoinHandle<()>,
    fenced: oneshot::Receiver<String>,
}

impl Node {
    async fn start(
        config: NodeConfig,
        dir: DataDir,
        seeds: Vec<join::Seed>,
        clock: Arc<SystemClock>,
        entropy: Arc<SystemEntropy>,
    ) -> anyhow::Result<Self> {
        let page = metrics::install()?;
        metrics::gauge_process(clock.wall(), config.limits.open_files);
        let http = bind_http(&config).await?;
        let identity = dir.existing()?;
        let boot = dir.next_boot(config.engine, entropy.as_ref())?;
        let secrets = dir.secrets()?;
        let credentials = Credentials::from_pem(&secrets.certificates_pem, &secrets.key_pem)?;
        let founding = waiting_cluster(&dir)?;
        let (fence, fenced) = oneshot::channel();
        let storage = Storage::open(&config, &dir, identity, fence)?;
        let threads = EngineThreads::start(
            config.limits.engine_threads,
            config.limits.read_threads,
            Arc::new(|replica, cause| tracing::error!(?replica, cause, "a job panicked")),
        )
        .context("cannot start the engine threads")?;
        let workers: Arc<dyn Workers> = Arc::new(threads);
        let late = Arc::new(LateInbound::default());
        let transport = start_transport(&config, credentials, boot, &clock, &entropy, &late)?;
        let world = World {
            identity: NodeIdentity { cluster: identity.cluster, node: identity.node, boot },
            clock: clock.clone(),
            hybrid: Arc::default(),
            entropy: entropy.clone(),
            network: transport.clone(),
            log: storage.log.clone(),
            engine: storage.engine.clone(),
            workers,
            state_files: Arc::new(DirectoryFiles::open(dir.root())?),
            space: storage.gauge.clone(),
            probe: Arc::new(TracingProbe),
        };
        let view = actors::catalog::load(world.state_files.as_ref())?;
        let record = node_record(&config, http.as_ref(), identity.node, boot, &storage)?;
        let key = ClusterKey(secrets.cluster_key);
        let gate = Arc::new(NodeGate::new(world.clone(), key));
        let parts = NodeParts {
            recovered: storage.recovered.clone(),
            highest_store: storage.highest_store,
            partial: storage.partial.clone(),
            record: record.clone(),
            founding: founding.clone(),
            seeds: seeds
                .iter()
                .map(|(node, addresses)| (*node, teach::resolve_now(addresses)))
                .collect(),
            catalog: Arc::new(view),
            gate: gate.clone(),
            world,
        };
        let actors = NodeActors::start(parts)
            .await
            .map_err(|error| anyhow::anyhow!("the node's actors do not start: {error}"))?;
        late.set(actors.switchboard.clone());
        let view = NodeView::new(&config, &record, &actors, &storage, Arc::clone(&clock));
        gate.set(actors.router.clone(), view.clone());
        let network: Arc<dyn Network> = transport.clone();
        let teacher =
            tokio::spawn(teach::addresses(actors.catalog.clone(), network, identity.node));
        if founding.is_some() {
            tokio::spawn(forget_founding(dir, actors.catalog.clone()));
        } else {
            // The lock on the directory lives as long as the process.
            std::mem::forget(dir);
        }
        let http = http.map(|listener| {
            tokio::spawn(metrics::upkeep(page.clone()));
            let health = Health::new(page, view.readiness());
            tokio::spawn(async move {
                if let Err(error) = health.serve(listener, std::future::pending()).await {
                    tracing::error!(%error, "the http port no longer answers");
                }
            })
        });
        tracing::info!(node = %identity.node, listen = %transport.local_addr()?, "node started");
        Ok(Self { config, actors, transport, storage, view, http, teacher, fenced })
    }

    /// Serves until told to stop, or until it must.
    async fn serve(mut self) -> anyhow::Result<()> {
        let mut ended = self.actors.ended.clone();
        let end = tokio::select! {
            signal = stop_signal() => signal.map(|name| {
                tracing::info!(signal = name, "stopping");
            }).map_err(anyhow::Error::from),
            cause = &mut self.fenced => {
                let cause = cause.unwrap_or_else(|_| "its writer ended".to_owned());
                // Nothing written since the last sync may be believed: end at
                // once and recover at the next start.
                anyhow::bail!("the log of {} failed: {cause}; check the disk, then start the node again", self.config.data_dir.display())
            }
            why = ended.wait_for(Option::is_some) => {
                match why.ok().and_then(|why| why.clone()) {
                    Some(why @ (Ended::Failed { .. } | Ended::Refused(_))) => Err(why.into()),
                    Some(Ended::Stopped) | None => Ok(()),
                }
            }
        };
        self.view.stopping();
        self.teacher.abort();
        let _ = tokio::time::timeout(FAREWELL, self.actors.stop()).await;
        self.transport.shutdown().await;
        if let Some(http) = self.http {
            http.abort();
        }
        self.storage.stop();
        end
    }
}

async fn bind_http(config: &NodeConfig) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.http else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for HTTP: set another port with `http:` in the configuration")
    })?;
    Ok(Some(listener))
}

fn start_transport(
    config: &NodeConfig,
    credentials: Credentials,
    boot: Boot,
    clock: &Arc<SystemClock>,
    entropy: &Arc<SystemEntropy>,
    inbound: &Arc<LateInbound>,
) -> anyhow::Result<Arc<Transport>> {
    let clock: Arc<dyn Clock> = clock.clone();
    let entropy: Arc<dyn Entropy> = entropy.clone();
    let parts = TransportConfig {
        credentials,
        boot,
        config_hash: CONFIG_HASH,
        limits: Limits::default(),
        socket: Socket::Udp(transport::bind(config.listen)?),
        entropy,
        clock,
    };
    Ok(Transport::start(parts, inbound.clone())?)
}

/// What this node says of itself to the catalog.
fn node_record(
    config: &NodeConfig,
    http: Option<&TcpListener>,
    node: cluster::ids::NodeId,
    boot: Boot,
    storage: &Storage,
) -> anyhow::Result<NodeRecord> {
    let http = http.map(TcpListener::local_addr).transpose()?;
    Ok(NodeRecord {
        node,
        number: 0,
        addresses: vec![config.advertise.to_string()],
        http_address: http.map(|address| address.to_string()).unwrap_or_default(),
        zone: config.zone.to_string(),
        capacity_bytes: storage.capacity_bytes(),
        state: NodeState::Active,
        boot,
    })
}

/// Forgets what `cdb cluster init` left once the catalog stands; keeps the
/// directory's lock for as long as the process lives.
async fn forget_founding(
    dir: DataDir,
    mut catalog: tokio::sync::watch::Receiver<Arc<cluster::catalog::view::CatalogView>>,
) {
    if catalog.wait_for(|view| view.cluster().is_some()).await.is_ok()
        && let Err(error) = dir.forget(StateFile::Bootstrap)
    {
        tracing::warn!(%error, "the bootstrap record could not be removed; it does no harm");
    }
    std::mem::forget(dir);
}
