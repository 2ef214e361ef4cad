//! WHO does it: the supervised actors that drive the cores of `cluster`.
//!
//! [`root`] starts a node's supervision tree over a [`world::World`] of ports;
//! [`switchboard`] receives from the network; [`client`] is the typed façade
//! the doors and the command line use. See this crate's README for the tree.

pub mod admission;
pub mod budget;
pub mod catalog;
pub mod client;
pub mod controller;
pub mod disk;
pub mod failpoint;
pub mod membership;
pub mod metrics;
pub mod outbox;
pub mod probe;
pub mod queue;
pub mod replica;
pub mod root;
pub mod router;
#[cfg(test)]
mod stand;
pub mod supervision;
pub mod switchboard;
pub mod volume;
pub mod volumes;
pub mod world;
