//! The transport between real sockets on loopback: nodes, clients, strangers,
//! and peers that break every rule. One file per theme.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "small test numbers")]

mod clients;
mod faults;
mod harness;
mod joining;
mod lifetime;
mod links;
mod raw;
mod simulated;
