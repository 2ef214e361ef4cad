//! The cluster's own records: identities, policy, intent and ids.
//!
//! The catalog is a shard like any other, whose commands are typed and whose
//! records lie under readable keys. See [`record`] for the keys.

pub mod apply;
pub mod command;
pub mod controller;
pub mod encoding;
pub mod record;
#[cfg(test)]
mod trial;
pub mod view;
