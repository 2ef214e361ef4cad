//! WHAT IF: the same actors in a fake world.
//!
//! A [`world::World`] runs machines on paused runtimes in one thread; their
//! ports are fakes whose every draw comes from one seed. Same seed, same trace.
//! What runs on the machines is a [`node::Resident`]: the product's actors, or
//! a host application's own.

pub mod case;
pub mod checkers;
pub mod clock;
pub mod disk;
pub mod door;
pub mod entropy;
pub mod faults;
pub mod hooks;
pub mod host;
mod identity;
pub mod life;
pub mod liveness;
pub mod network;
pub mod node;
pub mod oracle;
pub mod orders;
mod panics;
pub mod plan;
mod poison;
#[cfg(feature = "real")]
pub mod power;
pub mod product;
pub mod quic;
pub mod rng;
pub mod scenario;
pub mod stage;
pub mod trace;
pub mod trial;
mod witness;
pub mod workers;
pub mod workloads;
pub mod world;
