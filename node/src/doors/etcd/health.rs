//! What probes, balancers and scripts ask an etcd on its client port by plain HTTP: `/health`,
//! `/version`, and of later releases `/livez` and `/readyz`; and by gRPC its own service of
//! health.
//!
//! All but `/version` read: `/livez` what this member has, the others the newest, so that a
//! member cut off from its majority says so. They tell nothing about data and ask for no name.
//! Whoever watches the health by gRPC hears of a change within a second or two: all who do
//! share one look, and without them there is none.
//!
//! Source: etcd's `etcdhttp` (health.go, version.go), release 3.5; gRPC's health checking
//! protocol.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;

use axum::{
    Router,
    extract::RawQuery,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cluster::{
    request::ReadLevel,
    shard::{range::Range, transaction::Keys},
};
use futures_util::{Stream, stream};
use prost_reflect::DescriptorPool;
use tokio::{sync::watch, time::sleep};
use tonic::{Request, Status};
use tonic_health::pb::{
    FILE_DESCRIPTOR_SET, HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus, health_server::Health,
};

use super::{
    gateway::Gateway,
    maintenance::{ETCD_VERSION, STORAGE_VERSION},
    metrics::Calls,
};

/// How often somebody looks for those who watch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is asked by plain HTTP; metrics unless they are not to be shown.
pub(super) fn probes(gateway: &Arc<Gateway>, calls: &Arc<Calls>) -> Router {
    let [health, lives, ready, counted] = [(); 4].map(|()| gateway.clone());
    let calls = calls.clone();
    let metrics = || Router::new().route("/metrics", get(move || counted.tell_metrics(calls)));
    let routes = if gateway.config.metrics { metrics() } else { Router::new() };
    routes
        .route("/health", get(move |query| async move { health.tell_health(query).await }))
        .route("/livez", get(move || async move { lives.tell_reads(ReadLevel::Eventual).await }))
        .route("/readyz", get(move || async move { ready.tell_reads(ReadLevel::Strong).await }))
        .route("/version", get(version))
}

async fn version() -> Response {
    let text = format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{STORAGE_VERSION}"}}"#);
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

impl Gateway {
    async fn tell_health(&self, RawQuery(query): RawQuery) -> Response {
        let asks = |wanted| query.iter().flat_map(|query| query.split('&')).any(|it| it == wanted);
        let level = if asks("serializable=true") { ReadLevel::Eventual } else { ReadLevel::Strong };
        let problem = self.problem(level, asks("exclude=NOSPACE")).await;
        let status = status_of(problem.as_deref());
        let healthy = problem.is_none().to_string();
        let view = serde_json::json!({ "health": healthy, "reason": problem.unwrap_or_default() });
        (status, view.to_string()).into_response()
    }

    /// What keeps this member from serving at a level; nothing if it does.
    async fn problem(&self, level: ReadLevel, full_is_well: bool) -> Option<String> {
        if !full_is_well && self.is_full() {
            Some("ALARM NOSPACE".to_owned())
        } else if level == ReadLevel::Strong && !self.has_leader() {
            Some("RAFT NO LEADER".to_owned())
        } else {
            self.fails_to_read(level).await.map(|why| format!("QGET ERROR:{why}"))
        }
    }

    /// What gRPC calls the health of this member: that of `/health`.
    async fn serves(&self) -> ServingStatus {
        match self.problem(ReadLevel::Strong, false).await {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        }
    }

    /// Looks for as long as the door is open, if anybody watches.
    pub(super) async fn watch_health(&self) -> Infallible {
        loop {
            if self.serving.0.receiver_count() > 0 {
                let serves = self.serves().await;
                self.serving.0.send_replace(serves);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn tell_reads(&self, level: ReadLevel) -> Response {
        let problem = self.fails_to_read(level).await;
        let text = problem.as_ref().map_or_else(|| "ok\n".to_owned(), |why| format!("{why}\n"));
        (status_of(problem.as_deref()), text).into_response()
    }

    /// Why a read fails; none if it does not.
    async fn fails_to_read(&self, level: ReadLevel) -> Option<String> {
        let range = Range::of(Keys::One(b"health".to_vec())).heads();
        let read = Box::pin(self.client.range(self.volume(), range, level)).await;
        read.err().map(|error| error.to_string())
    }
}

/// What was found when somebody looked last; it may be long ago.
#[derive(Debug, Default)]
pub(super) struct Serving(watch::Sender<ServingStatus>);

/// gRPC's own service of health.
#[derive(Clone, Debug)]
pub(super) struct HealthService(pub(super) Arc<Gateway>);

/// What its messages and methods are.
///
/// # Errors
/// If they cannot be read: a fault of the build.
pub(super) fn descriptors() -> anyhow::Result<DescriptorPool> {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).context("the descriptors of gRPC's health")
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    /// Of the whole member only, as etcd's: its services have no names here.
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(tonic::Response::new(said(self.0.serves().await)))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        if !request.get_ref().service.is_empty() {
            // It stays unknown, and the protocol wants the stream to stay.
            let unknown = stream::iter([Ok(said(ServingStatus::ServiceUnknown))]);
            let stays = futures_util::StreamExt::chain(unknown, stream::pending());
            return Ok(tonic::Response::new(Box::pin(stays)));
        }
        let (gateway, heard) = (self.0.clone(), self.0.serving.0.subscribe());
        let told =
            stream::unfold((gateway, heard, None), |(gateway, mut heard, last)| async move {
                let next = match last {
                    None => {
                        let now = gateway.serves().await;
                        gateway.serving.0.send_replace(now);
                        now
                    }
                    Some(last) => *heard.wait_for(|now| *now != last).await.ok()?,
                };
                Some((Ok(said(next)), (gateway, heard, Some(next))))
            });
        Ok(tonic::Response::new(Box::pin(told)))
    }
}

fn status_of(problem: Option<&str>) -> StatusCode {
    if problem.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
