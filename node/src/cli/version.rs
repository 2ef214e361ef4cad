//! `cdb version`.

use super::{error::Outcome, render::Output};

/// The release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Shows it.
///
/// # Errors
/// If standard output takes no more.
pub fn run(output: Output) -> Outcome {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    let view = serde_json::json!({
        "version": RELEASE,
        "protocol": cluster::request::REQUEST_VERSION,
        "os": system,
        "arch": machine,
    });
    output.record(&view, &format!("cdb {RELEASE} ({machine} {system})"))
}
