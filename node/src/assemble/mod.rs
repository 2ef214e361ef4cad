//! The real world plus the actors: a node.
//!
//! [`run`] opens the data directory, gives the ports real devices, starts the
//! actors over them and the doors before them, and waits for the end: a
//! signal, a fenced disk, or actors that cannot go on.

mod doors;
mod embed;
mod gate;
mod join;
mod late;
mod renewal;
mod space;
mod status;
mod storage;
mod teach;

use std::{sync::Arc, time::Duration};

use actors::{
    budget::NodeLimits,
    probe::TracingProbe,
    root::{Ended, NodeActors, NodeParts, image},
    world::{NodeIdentity, World},
};
use anyhow::Context;
use cluster::{
    catalog::{
        record::{ClusterRecord, NodeRecord, NodeState},
        view::CatalogView,
    },
    membership::Boot,
    ports::{clock::Clock, entropy::Entropy, files::Files, network::Network, workers::Workers},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use transport::{
    Limits, Socket, Transport, TransportConfig,
    identity::{ClusterKey, Credentials},
};

pub(crate) use self::embed::{Embedded, embedded_config};
use self::{
    gate::NodeGate, late::LateInbound, renewal::Renewal, status::NodeView, storage::Storage,
};
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
    doors::native::NativeDoor,
    observe::{audit::Audit, health::Health, metrics},
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
    doors: Vec<tokio::task::JoinHandle<()>>,
    teacher: tokio::task::JoinHandle<()>,
    /// Held until nobody changes anything any more.
    audit: Option<Arc<Audit>>,
    fenced: oneshot::Receiver<String>,
}

/// The devices of a node, and what they serve.
struct Devices {
    world: World,
    storage: Storage,
    transport: Arc<Transport>,
    late: Arc<LateInbound>,
    gate: Arc<NodeGate>,
    renewal: Renewal,
    fenced: oneshot::Receiver<String>,
}

impl Devices {
    /// Opens disk and network for this start of the node.
    fn open(
        config: &NodeConfig,
        dir: &Arc<DataDir>,
        founding: Option<&ClusterRecord>,
        clock: &Arc<SystemClock>,
        entropy: &Arc<SystemEntropy>,
    ) -> anyhow::Result<Self> {
        let identity = dir.existing()?;
        let state_files: Arc<dyn Files> = Arc::new(DirectoryFiles::open(dir.root())?);
        let old = image::load(state_files.as_ref()).context("cannot read what the catalog said")?;
        let secrets = dir.secrets()?;
        let mut renewal = Renewal::new(dir.clone(), &secrets, clock.clone(), entropy.clone())?;
        let (fence, fenced) = oneshot::channel();
        let storage = Storage::open(config, dir, identity, old, fence)?;
        // After the log: an old image is condemned before it gets a new start.
        let seen = old.map(|old| old.seen.incarnation);
        let copy = actors::catalog::load(state_files.as_ref())?;
        let told = copy.node(identity.node).map(|record| record.boot);
        let boot = dir.next_boot(config.engine, told, seen, entropy.as_ref())?;
        image::forget(state_files.as_ref()).context("cannot forget what the catalog said")?;
        // Off for a year, it would reach nobody who could tell it anything.
        renewal.look(copy.cluster().or(founding));
        let credentials = renewal.credentials().clone();
        let threads = EngineThreads::start(
            config.limits.engine_threads,
            config.limits.read_threads,
            Arc::new(|replica, cause| tracing::error!(?replica, cause, "a job panicked")),
        )
        .context("cannot start the engine threads")?;
        let workers: Arc<dyn Workers> = Arc::new(threads);
        let late = Arc::new(LateInbound::default());
        let transport = start_transport(config, credentials, boot, clock, entropy, &late)?;
        let world = World {
            identity: NodeIdentity { cluster: identity.cluster, node: identity.node, boot },
            clock: clock.clone(),
            hybrid: Arc::default(),
            entropy: entropy.clone(),
            network: transport.clone(),
            log: storage.log.clone(),
            engine: storage.engine.clone(),
            workers,
            state_files,
            space: storage.gauge.clone(),
            probe: Arc::new(TracingProbe),
        };
        let gate = Arc::new(NodeGate::new(world.clone(), ClusterKey(secrets.cluster_key)));
        Ok(Self { world, storage, transport, late, gate, renewal, fenced })
    }

    /// What the actors begin with.
    fn parts(
        &self,
        record: &NodeRecord,
        founding: Option<ClusterRecord>,
        seeds: &[join::Seed],
        limits: NodeLimits,
    ) -> anyhow::Result<NodeParts> {
        let found = |(node, addresses): &join::Seed| (*node, teach::resolve_now(addresses));
        Ok(NodeParts {
            recovered: self.storage.recovered.clone(),
            forgetful: self.storage.forgetful,
            highest_store: self.storage.highest_store,
            partial: self.storage.partial.clone(),
            record: record.clone(),
            founding,
            seeds: seeds.iter().map(found).collect(),
            catalog: Arc::new(actors::catalog::load(self.world.state_files.as_ref())?),
            gate: self.gate.clone(),
            limits,
            world: self.world.clone(),
        })
    }
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
        let doors = doors::bind(&config.doors).await?;
        let founding = waiting_cluster(&dir)?;
        let dir = Arc::new(dir);
        let devices = Devices::open(&config, &dir, founding.as_ref(), &clock, &entropy)?;
        let NodeIdentity { node, boot, .. } = devices.world.identity;
        let record = node_record(&config, http.as_ref(), node, boot, &devices.storage)?;
        let limits = limits_of(&config)?;
        let parts = devices.parts(&record, founding.clone(), &seeds, limits)?;
        let actors = NodeActors::start(parts)
            .await
            .map_err(|error| anyhow::anyhow!("the node's actors do not start: {error}"))?;
        let Devices { storage, transport, late, gate, renewal, fenced, .. } = devices;
        late.set(NativeDoor::new(
            actors.switchboard.clone(),
            actors.catalog.clone(),
            doors.audit(),
        ));
        let audit = doors.audit().cloned();
        let view = NodeView::new(&config, &record, &actors, &storage, clock.clone());
        gate.set(actors.router.clone(), view.clone());
        let network: Arc<dyn Network> = transport.clone();
        let doors = doors.open(page.clone(), &actors, &network, node, clock, entropy);
        let teacher = tokio::spawn(teach::addresses(actors.catalog.clone(), network, node));
        if founding.is_some() {
            tokio::spawn(forget_founding(dir.clone(), actors.catalog.clone()));
        }
        // The lock on the directory lives as long as the process.
        std::mem::forget(dir);
        tokio::spawn(renew(renewal, actors.catalog.clone(), transport.clone()));
        let http = http.map(|listener| tokio::spawn(show(page, view.clone(), listener)));
        tracing::info!(%node, listen = %transport.local_addr()?, "node started");
        Ok(Self { config, actors, transport, storage, view, http, doors, teacher, audit, fenced })
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
                    Some(
                        why @ (Ended::Failed { .. } | Ended::Refused(_) | Ended::OldImage(_)),
                    ) => Err(why.into()),
                    Some(Ended::Stopped) | None => Ok(()),
                }
            }
        };
        self.view.stopping();
        self.teacher.abort();
        self.doors.iter().for_each(tokio::task::JoinHandle::abort);
        let _ = tokio::time::timeout(FAREWELL, self.actors.stop()).await;
        self.transport.shutdown().await;
        drop(self.audit);
        if let Some(http) = self.http {
            http.abort();
        }
        self.storage.stop();
        end
    }
}

/// Serves metrics and health until the task is ended.
async fn show(page: PrometheusHandle, view: NodeView, listener: TcpListener) {
    let upkeep = metrics::upkeep(page.clone());
    let health = Health::new(page, view.readiness()).with_lines(view.volumes());
    let serve = health.serve(listener, std::future::pending());
    tokio::select! {
        () = upkeep => {}
        served = serve => {
            if let Err(error) = served {
                tracing::error!(%error, "the http port no longer answers");
            }
        }
    }
}

async fn bind_http(config: &NodeConfig) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.http else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for HTTP: set another port with `http:` in the configuration")
    })?;
    Ok(Some(listener))
}

/// What the parts of the node may hold.
fn limits_of(config: &NodeConfig) -> anyhow::Result<NodeLimits> {
    let memory = usize::try_from(config.limits.memory.bytes())
        .context("this machine has no 64-bit addresses")?;
    Ok(NodeLimits::of_memory(memory))
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
    let limits = limits_of(config)?;
    let parts = TransportConfig {
        credentials,
        boot,
        config_hash: CONFIG_HASH,
        limits: Limits {
            clients_body_bytes_max: limits.client_body_bytes_max,
            ..Limits::default()
        },
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

/// Keeps the node's certificate good, for handshakes from then on.
async fn renew(
    held: Renewal,
    catalog: watch::Receiver<Arc<CatalogView>>,
    transport: Arc<Transport>,
) {
    let swap = |credentials: &Credentials| {
        if let Err(error) = transport.replace_credentials(credentials) {
            tracing::error!(%error, "the renewed certificate is used from the next start on");
        }
    };
    match held.run(renewal::LOOK_EVERY, catalog, swap).await {}
}

/// Forgets what `cdb cluster init` left once the catalog stands.
async fn forget_founding(dir: Arc<DataDir>, mut catalog: watch::Receiver<Arc<CatalogView>>) {
    if catalog.wait_for(|view| view.cluster().is_some()).await.is_ok()
        && let Err(error) = dir.forget(StateFile::Bootstrap)
    {
        tracing::warn!(%error, "the bootstrap record could not be removed; it does no harm");
    }
}
