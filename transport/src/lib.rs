//! HOW bytes travel: the network port over QUIC with mutual TLS.
//!
//! [`Transport`] implements `cluster::ports::network::Network` and calls
//! `Inbound`; [`client`] is the same wire seen from outside; [`identity`] makes
//! and reads the certificates both rest on. The README is the chapter to read.
#![forbid(unsafe_code)]

mod accept;
mod admission;
pub mod client;
mod connection;
mod credit;
mod endpoint;
mod fault;
mod framing;
#[cfg(test)]
mod fuzz;
mod gathering;
mod handshake;
pub mod identity;
mod lanes;
pub mod limits;
pub mod metrics;
mod peer;
mod quic;
mod requests;
mod tls;

pub use endpoint::{StartError, Transport, TransportConfig};
pub use limits::Limits;
pub use quic::{BindError, Socket, bind};
pub use tls::CertificateFault;
