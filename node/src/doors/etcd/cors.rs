//! Which pages in browsers may read what the door answers over HTTP: etcd's `--cors`.
//!
//! Browsers ask before they let a page of another origin send a token, and hide the answer
//! from pages that are not allowed; whoever is no browser asks as ever. Nothing goes by cookies
//! and credentials are never allowed, so a page does no more than with a token of its own. A
//! door that asks for no name relies on who reaches it, and a page reaches what its browser
//! does: the guide says so.
//!
//! Source: etcd's `embed/serve.go`; the Fetch standard, by way of tower-http.

use axum::http::{
    HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What says so in the answers of a door to pages of these origins.
pub(super) fn layer(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
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
