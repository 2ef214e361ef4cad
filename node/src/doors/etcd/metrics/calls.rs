//! How often each method of the door is called, and how calls end: gRPC's own counters.
//!
//! A call is counted as it begins, and again as its end is known: of a method that answers
//! once with its answer, of a stream with its trailers. One that is dropped before was given
//! up by its client. What comes in JSON is counted too, for it becomes a call of gRPC.
//!
//! Source: go-grpc-prometheus, whose names etcd shows.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, ready},
};

use http_body::Body as _;
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, body::Body, codegen::http};

use super::page::Page;
use crate::doors::etcd::bodies::body_of;

/// What a call may come to, by number, as gRPC's library for Go calls it.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// Methods whose requests go through the log.
const PROPOSING: [(&str, &str); 6] = [
    ("etcdserverpb.KV", "Put"),
    ("etcdserverpb.KV", "DeleteRange"),
    ("etcdserverpb.KV", "Txn"),
    ("etcdserverpb.KV", "Compact"),
    ("etcdserverpb.Lease", "LeaseGrant"),
    ("etcdserverpb.Lease", "LeaseRevoke"),
];

/// One method.
#[derive(Debug, Default)]
struct Method {
    service: String,
    name: String,
    /// Whether it takes one request after the other.
    asked_often: bool,
    /// Whether it gives one answer after the other.
    answers_often: bool,
    started: AtomicU64,
    /// By code.
    handled: [AtomicU64; CODES.len()],
}

impl Method {
    fn kind(&self) -> &'static str {
        match (self.asked_often, self.answers_often) {
            (false, false) => "unary",
            (false, true) => "server_stream",
            (true, false) => "client_stream",
            (true, true) => "bidi_stream",
        }
    }

    fn labels(&self) -> String {
        let Self { service, name, .. } = self;
        format!(r#"grpc_method="{name}",grpc_service="{service}",grpc_type="{}""#, self.kind())
    }

    fn handled(&self, code: Code) -> u64 {
        self.handled.get(code as usize).map_or(0, |count| count.load(Relaxed))
    }
}

/// The counters of all methods.
#[derive(Debug)]
pub(in crate::doors::etcd) struct Calls(BTreeMap<String, Arc<Method>>);

impl Calls {
    /// None yet, of all services that these descriptors name.
    pub(in crate::doors::etcd) fn of(pools: &[&DescriptorPool]) -> Self {
        let services = pools.iter().flat_map(|pool| pool.services());
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        Self(
            methods
                .map(|method| {
                    let service = method.parent_service().full_name().to_owned();
                    let path = format!("/{service}/{}", method.name());
                    let counted = Method {
                        service,
                        name: method.name().to_owned(),
                        asked_often: method.is_client_streaming(),
                        answers_often: method.is_server_streaming(),
                        ..Method::default()
                    };
                    (path, Arc::new(counted))
                })
                .collect(),
        )
    }

    /// Counts a call that begins; none of a method that nobody knows.
    pub(in crate::doors::etcd) fn begin(&self, path: &str) -> Option<Call> {
        let method = self.0.get(path)?.clone();
        method.started.fetch_add(1, Relaxed);
        Some(Call { method, ended: false })
    }

    /// Calls of a method that came to this.
    pub(super) fn came_to(&self, service: &str, method: &str, code: Code) -> u64 {
        self.0.get(&format!("/{service}/{method}")).map_or(0, |method| method.handled(code))
    }

    /// Calls whose proposals came to nothing, as far as the door was told.
    pub(super) fn proposals_failed(&self) -> u64 {
        let failed = |(service, method)| {
            [Code::Unavailable, Code::DeadlineExceeded]
                .map(|code| self.came_to(service, method, code))
                .iter()
                .sum::<u64>()
        };
        PROPOSING.into_iter().map(failed).sum()
    }

    /// Writes all of them; of codes that never came up only the good one.
    pub(super) fn show(&self, page: &mut Page) {
        let methods = || self.0.values();
        page.family(
            ("grpc_server_started_total", "counter"),
            "Calls that were begun at the server.",
            methods().map(|method| (method.labels(), method.started.load(Relaxed))),
        );
        let handled = methods().flat_map(|method| {
            let codes = CODES.iter().zip(&method.handled);
            codes.map(move |(code, count)| (*code, count.load(Relaxed), method))
        });
        page.family(
            ("grpc_server_handled_total", "counter"),
            "Calls that ended at the server, however they did.",
            handled.filter(|(code, count, _)| *count > 0 || *code == "OK").map(
                |(code, count, method)| {
                    (format!(r#"grpc_code="{code}",{}"#, method.labels()), count)
                },
            ),
        );
    }
}

/// A call under way.
#[derive(Debug)]
pub(in crate::doors::etcd) struct Call {
    method: Arc<Method>,
    ended: bool,
}

impl Call {
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true)
            && let Some(count) = self.method.handled.get(code as usize)
        {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Ends with an answer, or with the end of one that goes on.
    pub(in crate::doors::etcd) fn answered(
        mut self,
        response: http::Response<Body>,
    ) -> http::Response<Body> {
        match Status::from_header_map(response.headers()) {
            Some(status) => self.end(status.code()),
            None if self.method.answers_often => {
                return response.map(|body| self.told(body));
            }
            None => self.end(Code::Ok),
        }
        response
    }

    /// The body of an answer that goes on: the call ends with it.
    fn told(mut self, mut body: Body) -> Body {
        Body::new(body_of(move |context| {
            let piece = ready!(Pin::new(&mut body).poll_frame(context));
            match &piece {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        let status = Status::from_header_map(trailers);
                        self.end(status.map_or(Code::Ok, |status| status.code()));
                    }
                }
                Some(Err(status)) => self.end(status.code()),
                None => self.end(Code::Ok),
            }
            Poll::Ready(piece)
        }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::doors::etcd::json;

    const PUT: &str = "/etcdserverpb.KV/Put";
    const WATCH: &str = "/etcdserverpb.Watch/Watch";

    fn calls() -> Arc<Calls> {
        Arc::new(Calls::of(&[&json::descriptors().unwrap()]))
    }

    fn shows(calls: &Calls, line: &str) -> bool {
        let mut page = Page::default();
        calls.show(&mut page);
        page.text().lines().any(|shown| shown == line)
    }

    fn answer(calls: &Calls, path: &str, body: Body) -> Body {
        calls.begin(path).unwrap().answered(http::Response::new(body)).into_body()
    }

    fn refusal() -> Status {
        Status::unavailable("no leader")
    }

    #[test]
    fn a_call_that_is_answered_once_ends_with_its_answer() {
        let calls = calls();
        answer(&calls, PUT, Body::empty());
        calls.begin(PUT).unwrap().answered(refusal().into_http());
        drop(calls.begin(PUT));
        for code in ["OK", "Unavailable", "Canceled"] {
            let line = format!(
                r#"grpc_server_handled_total{{grpc_code="{code}",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}} 1"#
            );
            assert!(shows(&calls, &line), "{line}");
        }
        assert_eq!(calls.proposals_failed(), 1);
        assert!(calls.begin("/nobody/Knows").is_none());
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_trailers_or_with_its_reader() {
        let calls = calls();
        let count = |code| calls.came_to("etcdserverpb.Watch", "Watch", code);
        let mut trailers = http::HeaderMap::new();
        refusal().add_header(&mut trailers).unwrap();
        let trailers = stream::iter([Ok::<_, Infallible>(Frame::trailers(trailers))]);
        let mut told = answer(&calls, WATCH, Body::new(StreamBody::new(trailers)));
        assert_eq!([Code::Unavailable, Code::Ok].map(count), [0, 0]);
        told.frame().await;
        drop(told);
        assert_eq!([Code::Unavailable, Code::Cancelled].map(count), [1, 0]);
        drop(answer(&calls, WATCH, Body::empty()));
        assert_eq!([Code::Unavailable, Code::Cancelled].map(count), [1, 1]);
    }
}
