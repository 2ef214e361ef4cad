//! etcd's services by JSON over HTTP, at the paths of its gateway (`/v3/kv/range` …).
//!
//! Nothing is served here: a request in JSON becomes one of gRPC, goes the way of
//! all others (who asks, bounds, who changed what), and its answer becomes JSON.
//! What messages look like is read from the descriptors of the protocol buffers, so
//! no message has code of its own. Bytes are base64, numbers of 64 bits strings,
//! enums names (numbers are taken too), what has its default is left out.
//!
//! A method that answers once says so in one object; one of a stream in lines of
//! `{"result":…}`, and takes one object after the other.
//!
//! Source: etcd's gateway (grpc-gateway 1.16, release 3.5 of etcd), the JSON mapping
//! of proto3. What differs is in `node/docs/etcd.md`.

mod asked;
mod methods;
mod told;

use std::{collections::BTreeMap, sync::Arc};

use actors::client::Room;
use anyhow::Context;
use axum::{
    Router,
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, header,
    },
    routing::any,
};
use prost_reflect::DescriptorPool;
use tokio::sync::Semaphore;
use tonic::{Code, Status, codegen::Service};
use tower_http::cors::CorsLayer;

use self::{asked::asked, methods::Method, told::Told};
use super::{
    bodies::{CountsItself, Pieces, WhileWaitedFor, answer, stream},
    faults::EtcdFault,
};

/// What the services are, as `node/tests/protos.rs` generates it.
const DESCRIPTORS: &[u8] = include_bytes!("../../../../proto/generated/descriptors.bin");
/// Headers with this before their names are passed on without it.
const METADATA_PREFIX: &str = "grpc-metadata-";
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What serves JSON: in front of what serves gRPC.
struct Json {
    methods: BTreeMap<&'static str, Method>,
    grpc: Router,
    /// Bytes that requests under way may hold.
    bound: Arc<Semaphore>,
    /// Bytes of one object.
    most: usize,
}

/// What the messages and methods of etcd's services are.
///
/// # Errors
/// If they cannot be read: a fault of the build.
pub(super) fn descriptors() -> anyhow::Result<DescriptorPool> {
    DescriptorPool::decode(DESCRIPTORS).context("the descriptors of the etcd door")
}

/// The same services, by JSON too; an object may have `most` bytes, and `cors` says
/// what browsers are told.
///
/// # Errors
/// If the descriptors know nothing of a method: a fault of the build.
pub(super) fn with_json(
    grpc: Router,
    descriptors: &DescriptorPool,
    bound: Arc<Semaphore>,
    most: usize,
    cors: CorsLayer,
) -> anyhow::Result<Router> {
    let methods = methods::all(descriptors)?;
    let json = Arc::new(Json { methods, grpc: grpc.clone(), bound, most });
    let serve = any(move |request| async move { json.serve(request).await });
    Ok(grpc.route("/v3/{*rest}", serve.layer(cors)).fallback(unknown))
}

/// What no service serves: by gRPC in its words.
async fn unknown(headers: HeaderMap) -> Response<Body> {
    let by_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|is| is.as_bytes().starts_with(GRPC.as_bytes()));
    if by_grpc { Status::unimplemented("").into_http() } else { plain(StatusCode::NOT_FOUND) }
}

impl Json {
    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let Some(method) = self.methods.get(request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND);
        };
        if request.method() != Verb::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let room = Arc::new(Room::of(self.bound.clone()));
        let request = self.asked(method, request, room.clone());
        let answered = self.grpc.clone().call(request).await;
        // What was asked is held until it is answered, or longer by a stream.
        drop(room);
        let Ok(answer) = answered;
        match self.told(method, answer).await {
            Ok(told) => told,
            Err(status) => refusal(&status),
        }
    }

    /// The request as gRPC has it.
    fn asked(&self, method: &Method, request: Request<Body>, room: Arc<Room>) -> Request<Body> {
        let (parts, body) = request.into_parts();
        let mut request = Request::new(asked(body, method, self.most, room));
        *request.method_mut() = Verb::POST;
        *request.uri_mut() = method.uri.clone();
        *request.headers_mut() = metadata(&parts.headers);
        *request.extensions_mut() = parts.extensions;
        request.extensions_mut().insert(CountsItself);
        request
    }

    /// Its answer as JSON.
    async fn told(
        &self,
        method: &Method,
        answer: Response<Body>,
    ) -> Result<Response<Body>, Status> {
        let (mut head, body) = answer.into_parts();
        if let Some(status) = refused(&head.headers) {
            return Err(status);
        }
        let told = Told::new(body, method.output.clone());
        if let Some(turn) = head.extensions.remove::<WhileWaitedFor>() {
            return Ok(json(StatusCode::OK, Body::new(stream(told.lines(), turn))));
        }
        let room = head.extensions.remove::<Arc<Room>>();
        let body = if method.answers_often {
            held(told.lines(), room)
        } else {
            let text = told.whole(room.as_deref()).await?;
            held(tonic::body::Body::new(Body::from(text)), room)
        };
        Ok(json(StatusCode::OK, body))
    }
}

/// A body that holds this room, if there is one, until it is read.
fn held(body: impl Pieces, room: Option<Arc<Room>>) -> Body {
    match room {
        Some(room) => Body::new(answer(body, room)),
        None => Body::new(body),
    }
}

/// What goes on of a request's headers: who asks, and what is meant for the service.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let name = match name.as_str().strip_prefix(METADATA_PREFIX) {
            Some(name) => HeaderName::from_bytes(name.as_bytes()).ok(),
            None => Some(name.clone()).filter(|name| *name == header::AUTHORIZATION),
        };
        if let Some(name) = name {
            metadata.append(name, value.clone());
        }
    }
    metadata.insert(header::CONTENT_TYPE, GRPC);
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

/// The refusal in headers or trailers, if there is one.
fn refused(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn plain(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}

fn refusal(status: &Status) -> Response<Body> {
    let text = status.message();
    let object =
        serde_json::json!({ "error": text, "message": text, "code": i32::from(status.code()) });
    json(http_status(status.code()), Body::from(object.to_string()))
}

/// The status of HTTP that stands for a code of gRPC. Source: grpc-gateway 1.16.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn malformed(cause: impl std::fmt::Display) -> Status {
    Status::invalid_argument(cause.to_string())
}

fn broken(cause: impl std::fmt::Display) -> Status {
    Status::internal(format!("an answer of the etcd door cannot be told in JSON: {cause}"))
}

fn too_many_requests() -> Status {
    EtcdFault::TooManyRequests.into()
}
