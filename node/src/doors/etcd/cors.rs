//! Which pages in browsers may ask: etcd's `--cors`, but none by default.
//!
//! A door that asks for no name relies on who reaches it, and any page reaches what its
//! browser does, loopback too. A browser hides answers from pages that are not allowed, but
//! sends what they ask, the bytes of gRPC too: so who names an origin that is not allowed is
//! refused, at every path. Whoever is no browser names none. Nothing goes by cookies and
//! credentials are never allowed, so a page does no more than with a token of its own.
//!
//! Source: etcd's `embed/serve.go`; the Fetch standard, by way of tower-http.

use std::sync::Arc;

use axum::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ORIGIN},
};
use http_body_util::Full;
use tonic::body::Body;
use tower_http::{
    cors::{AllowOrigin, CorsLayer},
    validate_request::ValidateRequestHeaderLayer,
};

/// Every page.
const ANY: &str = "*";

/// What a page hears that may not ask.
const REFUSED: &str = "pages of this origin may not ask here: name it in `doors.etcd.cors` of \
                       the node's configuration\n";

/// What lets pages of these origins ask only, and whoever is no page. It stands around the
/// whole port and in the way of each put, so it makes nothing for those that may ask.
pub(super) fn guard(
    origins: &[String],
) -> ValidateRequestHeaderLayer<
    impl FnMut(&mut Request<Body>) -> Result<(), Response<Body>> + Clone + use<>,
> {
    let known: Arc<[String]> = origins.into();
    ValidateRequestHeaderLayer::custom(move |request: &mut Request<Body>| {
        if may_ask(&known, request.headers()) { Ok(()) } else { Err(refusal()) }
    })
}

fn refusal() -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(REFUSED)));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

/// Whether who asks is no page of a browser, or one of these origins.
fn may_ask(origins: &[String], headers: &HeaderMap) -> bool {
    headers
        .get_all(ORIGIN)
        .iter()
        .all(|named| origins.iter().any(|known| known == ANY || named == known.as_str()))
}

/// What says so in the answers of a door to pages of these origins.
pub(super) fn layer(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == ANY) {
        AllowOrigin::any()
    } else {
        // The configuration has taken none that a header could not hold.
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST, Method::GET, Method::OPTIONS, Method::PUT, Method::DELETE])
        .allow_headers([ACCEPT, CONTENT_TYPE, AUTHORIZATION])
}
