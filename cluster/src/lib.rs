//! WHAT is decided, and what bytes mean.
//!
//! The pure crate of ClusterDB: protocol cores stepped with time and input as
//! arguments, the ports through which they reach the world, and every stored
//! and wire format. Nothing here knows tokio, sockets, files, the wall clock
//! or entropy; `node` gives the ports real devices and `simulation` fake ones.
#![forbid(unsafe_code)]
#![allow(
    missing_debug_implementations,
    reason = "rkyv derives resolver and archived types that have no Debug"
)]

pub mod auth;
pub mod catalog;
pub mod codes;
pub mod formats;
pub mod ids;
pub mod limits;
pub mod log;
pub mod membership;
pub mod memory;
pub mod mvcc;
pub mod placement;
pub mod ports;
pub mod raft;
pub mod request;
pub mod routing;
pub mod shard;
pub mod units;
