//! The etcd door: a volume of kind *single* served as etcd v3, by gRPC and by JSON.
//!
//! It is a translation. What a revision is, when a lease ends, what a watch must
//! tell is decided by the store; here are etcd's words for it (`translate`,
//! `faults`), who asks (`caller`, `gateway`) and one file for each of its
//! services. Nothing is kept between requests but the streams themselves, so
//! any member may be asked next.
//!
//! Limits: bytes of a request, operations of a transaction, watches of a stream,
//! connections (`connections`), requests of a prefix (`rates`), what lies below one
//! (`quotas`), bytes of requests and answers under way (`bodies`) and of what waits for
//! readers of watches (`watch`) by configuration; catch-up reads by a semaphore.
//!
//! Source: etcd's API and server, release 3.5. What differs is in
//! `node/docs/etcd.md`.

mod around;
mod auth;
mod bodies;
pub mod caller;
mod connections;
mod cors;
mod election;
pub mod faults;
mod frames;
mod gateway;
mod gathered;
mod health;
mod json;
mod known;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod members;
mod metrics;
pub mod proto;
mod queue;
mod quotas;
mod rates;
mod snapshot;
mod tls;
mod translate;
mod watch;

#[cfg(test)]
mod tests;

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use actors::client::{Client, ClientError};
use anyhow::Context;
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    limits::KEY_BYTES_MAX,
};
use tokio::net::TcpListener;
use tonic::{service::Routes, transport::Server};
use tonic_health::pb::health_server::HealthServer;

use self::{
    around::Around,
    auth::AuthService,
    election::ElectionService,
    health::HealthService,
    lease::LeaseService,
    lock::LockService,
    maintenance::MaintenanceService,
    members::ClusterService,
    metrics::Calls,
    proto::{
        etcdserverpb::{
            auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
            lease_server::LeaseServer, maintenance_server::MaintenanceServer,
            watch_server::WatchServer,
        },
        v3electionpb::election_server::ElectionServer,
        v3lockpb::lock_server::LockServer,
    },
    tls::Renewal,
    watch::WatchService,
};
use crate::{
    config::{AutoCompaction, EtcdConfig},
    storage::{CompactionMode, keep_compacted},
};

pub use gateway::Gateway;
pub(crate) use kv::KvService;

/// What a message may have beyond the request's own limit before it is not even
/// read: as etcd's, and room for the longest key.
const MESSAGE_OVERHEAD_BYTES: usize = (512 << 10) + KEY_BYTES_MAX;
/// Streams of one connection at a time: what a proxy in front of many clients
/// needs; a client library opens a handful.
const STREAMS_PER_CONNECTION_MAX: u32 = 10_000;
/// A silent connection is asked so often whether its peer lives, so that a
/// watch of a dead one ends.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for that answer, and for the first words of TLS.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// What a byte of a message may be in JSON: base64 makes four of three, and names
/// are written out.
const JSON_PER_BYTE: usize = 2;
/// Bytes of a message of the services that carry names only.
const SMALL_MESSAGE_BYTES: usize = 64 << 10;
/// How often the age of history is looked at, as etcd does.
const LOOKS_PER_AGE: u32 = 10;
const LOOK_EVERY_MAX: Duration = Duration::from_hours(1);
/// Pause between tries to create the volume.
const CREATE_PAUSE: Duration = Duration::from_secs(1);

/// Listens where the configuration says.
///
/// # Errors
/// If the port is taken; the message says what to do.
pub async fn bind(config: &EtcdConfig) -> anyhow::Result<TcpListener> {
    TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {} for etcd clients: set another port with `doors.etcd.listen` in \
             the configuration",
            config.listen
        )
    })
}

/// Serves until the task is ended.
///
/// # Errors
/// If the certificates are unusable, or the port no longer answers.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener) -> anyhow::Result<()> {
    let renewal = gateway.config.tls.clone().map(Renewal::begin).transpose()?;
    let handshakes = renewal.as_ref().map(Renewal::handshakes);
    let renewing = async {
        match renewal {
            Some(renewal) => renewal.keep().await,
            None => pending().await,
        }
    };
    let upkeep = keep_volume(gateway.client.clone(), gateway.config.clone());
    let counting = gateway.quotas.keep(&gateway.client, gateway.volume());
    let mut guarded = server().layer(cors::guard(&gateway.config.cors));
    let routed = guarded.add_routes(services(gateway.clone())?);
    let serve = async {
        match handshakes {
            None => routed.serve_with_incoming(connections::incoming(listener, &gateway)).await,
            Some(handshakes) => {
                let secured = connections::secured(listener, &gateway, handshakes);
                routed.serve_with_incoming(secured).await
            }
        }
    };
    tokio::select! {
        served = serve => served.context("the etcd port no longer answers"),
        never = upkeep => match never {},
        never = renewing => match never {},
        never = counting => match never {},
        never = gateway.listen() => match never {},
        never = gateway.watch_health() => match never {},
    }
}

/// Creates the volume, and compacts it by itself if that is wanted. Every door does:
/// who is second finds it done. A volume of another kind is somebody else's.
async fn keep_volume(client: Client, config: EtcdConfig) -> Infallible {
    if !create_volume(client.clone(), &config).await {
        return pending().await;
    }
    let (mode, retention) = match config.auto_compaction {
        Some(AutoCompaction::Age(age)) => {
            (CompactionMode::Periodic((age / LOOKS_PER_AGE).min(LOOK_EVERY_MAX)), age)
        }
        Some(AutoCompaction::Revisions(kept)) => {
            (CompactionMode::Revision(i64::from(kept)), Duration::ZERO)
        }
        None => return pending().await,
    };
    keep_compacted(client, config.volume, mode, retention).await
}

/// What serves connections.
fn server() -> Server {
    Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION_MAX))
        .http2_keepalive_interval(Some(ALIVE_EVERY))
        .http2_keepalive_timeout(Some(ALIVE_WITHIN))
}

/// All services over one gateway.
fn services(gateway: Arc<Gateway>) -> anyhow::Result<Routes> {
    let request = usize::try_from(gateway.config.request.bytes()).unwrap_or(usize::MAX);
    let message = request.saturating_add(MESSAGE_OVERHEAD_BYTES);
    let (bound, telling) = (gateway.asked.clone(), gateway.clone());
    let descriptors = json::descriptors()?;
    let calls = Arc::new(Calls::of(&[&descriptors, &health::descriptors()?]));
    let kv = KvServer::new(KvService::new(gateway.clone())).max_decoding_message_size(message);
    let lease = LeaseServer::new(LeaseService(gateway.clone())).max_decoding_message_size(message);
    let watch = WatchServer::new(WatchService(gateway.clone())).max_decoding_message_size(message);
    let small = SMALL_MESSAGE_BYTES;
    let members =
        ClusterServer::new(ClusterService::new(gateway.clone())).max_decoding_message_size(small);
    let auth = AuthServer::new(AuthService(gateway.clone())).max_decoding_message_size(small);
    let lock = LockServer::new(LockService(gateway.clone())).max_decoding_message_size(small);
    let election =
        ElectionServer::new(ElectionService(gateway.clone())).max_decoding_message_size(message);
    let health = HealthServer::new(HealthService(gateway.clone())).max_decoding_message_size(small);
    let maintenance =
        MaintenanceServer::new(MaintenanceService(gateway)).max_decoding_message_size(small);
    let around = Around { bound: bound.clone(), calls: calls.clone() };
    let grpc = Routes::new(around.service(kv))
        .add_service(around.service(lease))
        .add_service(around.service(watch))
        .add_service(around.service(members))
        .add_service(around.service(auth))
        .add_service(around.service(lock))
        .add_service(around.service(election))
        .add_service(around.service(maintenance))
        .add_service(around.service(health))
        .into_axum_router();
    let most = message.saturating_mul(JSON_PER_BYTE);
    let cors = cors::layer(&telling.config.cors);
    let both = json::with_json(grpc, &descriptors, bound, most, cors.clone())?;
    Ok(both.merge(health::probes(&telling, &calls).layer(cors)).into())
}

/// Creates the volume if there is none: once there are as many nodes as it has
/// copies. Whoever is refused until then is told why. Whether it is one that the door
/// can serve.
async fn create_volume(client: Client, config: &EtcdConfig) -> bool {
    let policy = || VolumePolicy::new(VolumeKind::Single, config.replicas, 1);
    loop {
        match client.show_volume(&config.volume).await {
            Ok(view) if view.record.policy.kind == VolumeKind::Single => return true,
            Ok(_) => {
                tracing::error!(
                    volume = config.volume,
                    "the etcd door needs a volume of kind single: name another one"
                );
                return false;
            }
            Err(ClientError::UnknownVolume { .. }) => {
                if let Err(error) = client.create_volume(&config.volume, policy()).await {
                    tracing::debug!(%error, "the volume of the etcd door is not created yet");
                }
            }
            Err(error) => tracing::debug!(%error, "the etcd door waits for the catalog"),
        }
        tokio::time::sleep(CREATE_PAUSE).await;
    }
}
