//! The node's HTTP port: `/metrics`, `/healthz`, `/readyz`.
//!
//! *Healthy* means that the process answers: restart it when it does not.
//! *Ready* means that it can serve: its checks say so, one line each with
//! `?verbose`. All three are cheap and without authentication, so they tell
//! nothing about data.

use std::{fmt, future::Future, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// What is wrong and what to do; `None` when all is well.
    pub problem: Option<String>,
}

/// Asks the node what keeps it from serving. Called per request: must be quick.
pub type Readiness = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// Lines for the page of metrics that are made when it is asked for.
pub type Lines = Arc<dyn Fn() -> String + Send + Sync>;

/// What the HTTP port shows.
#[derive(Clone)]
pub struct Health {
    metrics: PrometheusHandle,
    readiness: Readiness,
    lines: Lines,
}

impl Health {
    /// Shows these metrics and this readiness.
    pub fn new(metrics: PrometheusHandle, readiness: Readiness) -> Self {
        Self { metrics, readiness, lines: Arc::new(String::new) }
    }

    /// The same with more lines on the page of metrics.
    #[must_use]
    pub fn with_lines(self, lines: Lines) -> Self {
        Self { lines, ..self }
    }

    /// Its routes, to be served here or merged into a larger door.
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(self)
    }

    /// Serves until `stop` resolves.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        axum::serve(listener, self.router()).with_graceful_shutdown(stop).await
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    let mut page = health.metrics.render();
    page.push_str(&(health.lines)());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn ready(State(health): State<Health>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let checks = (health.readiness)();
    let ready = checks.iter().all(|check| check.problem.is_none());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, readiness_text(&checks, ready, verbose)).into_response()
}

/// One line per check: all of them, or only those that fail.
fn readiness_text(checks: &[Check], ready: bool, verbose: bool) -> String {
    let lines = checks.iter().filter_map(|check| match &check.problem {
        Some(problem) => Some(format!("[-] {}: {problem}\n", check.name)),
        None => verbose.then(|| format!("[+] {}: ok\n", check.name)),
    });
    let verdict = if ready { "ready\n" } else { "not ready\n" };
    lines.chain([verdict.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn request(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let text = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_node_that_cannot_serve_says_so_over_a_real_socket() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("cdb_x_total").increment(3));
        let problem = Arc::new(std::sync::Mutex::new(Some("no leader yet".to_owned())));
        let shared = Arc::clone(&problem);
        let readiness: Readiness = Arc::new(move || {
            let problem = shared.lock().unwrap().clone();
            vec![Check { name: "disk", problem: None }, Check { name: "catalog", problem }]
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let health = Health::new(recorder.handle(), readiness);
        let server = tokio::spawn(health.serve(listener, async { drop(stopped.await) }));

        assert!(request(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let page = request(address, "/metrics").await;
        assert!(page.contains("cdb_x_total 3"), "{page}");
        let not_ready = request(address, "/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503"), "{not_ready}");
        assert!(not_ready.contains("[-] catalog: no leader yet\nnot ready"), "{not_ready}");
        *problem.lock().unwrap() = None;
        let ready = request(address, "/readyz?verbose").await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("[+] disk: ok"), "{ready}");

        drop(stop);
        server.await.unwrap().unwrap();
    }
}
