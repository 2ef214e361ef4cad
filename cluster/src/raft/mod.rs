//! Consensus: the only home of raft-rs.
//!
//! [`Group`] is one replica's core, driven by [`Input`]s and answering with
//! [`Effect`]s; [`types`] holds our forms of what is stored and sent. No type
//! of raft-rs leaves this folder. Why raft-rs, and what it demands of its user:
//! `docs/decisions/2026-11-20-raft-rs.md`.

mod changes;
mod commits;
mod configuration;
mod core;
mod elections;
mod group;
mod hibernate;
mod holds;
mod messages;
mod persists;
mod reads;
mod ready;
mod snapshot;
mod start;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod ticks;
pub mod types;
mod validate;
mod wire;

pub use self::{
    configuration::ConfigurationFault,
    core::{ChangeRefusal, Effect, Effects, Input, Ticket},
    group::Group,
    start::{GroupConfig, GroupError, GroupStart},
    status::{GroupGlance, GroupStatus, PeerStatus},
    validate::PeerFault,
};
