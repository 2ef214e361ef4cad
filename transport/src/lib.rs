//! HOW bytes travel: the network port over QUIC with mutual TLS.
#![forbid(unsafe_code)]

pub mod identity;
mod tls;

pub use tls::CertificateFault;
