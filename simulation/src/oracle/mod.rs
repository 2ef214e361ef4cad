//! Judges of what clients were promised. They see only what clients saw.

pub mod durable;
pub mod history;
pub(crate) mod kept;
pub(crate) mod keyspace;
pub mod linearizable;
pub mod listing;
pub(crate) mod lives;
pub(crate) mod restored;
pub(crate) mod search;
pub mod versions;
pub mod watched;
