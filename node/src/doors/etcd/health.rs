//! What probes, balancers and scripts ask an etcd on its client port by plain HTTP: `/health`,
//! `/version`, and of later releases `/livez` and `/readyz`.
//!
//! All but `/version` read: `/livez` what this member has, the others the newest, so that a
//! member cut off from its majority says so. They tell nothing about data, ask for no name, and
//! metrics are not here but at the node's own HTTP port.
//!
//! Source: etcd's `etcdhttp` (health.go, version.go), release 3.5.

use std::sync::Arc;

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

use super::{
    gateway::Gateway,
    maintenance::{ETCD_VERSION, STORAGE_VERSION},
};

/// The same routes, and these.
pub(super) fn with_health(routes: Router, gateway: &Arc<Gateway>) -> Router {
    let [health, lives, ready] = [(); 3].map(|()| gateway.clone());
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
        let full = !asks("exclude=NOSPACE") && self.space.borrow().is_full();
        let problem = if full {
            Some("ALARM NOSPACE".to_owned())
        } else if level == ReadLevel::Strong && !self.has_leader() {
            Some("RAFT NO LEADER".to_owned())
        } else {
            self.fails_to_read(level).await.map(|why| format!("QGET ERROR:{why}"))
        };
        let status = status_of(problem.as_deref());
        let healthy = problem.is_none().to_string();
        let view = serde_json::json!({ "health": healthy, "reason": problem.unwrap_or_default() });
        (status, view.to_string()).into_response()
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

fn status_of(problem: Option<&str>) -> StatusCode {
    if problem.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
