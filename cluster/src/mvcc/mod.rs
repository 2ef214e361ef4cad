//! Versions: how the same key keeps its past, and how time names a cut.
//!
//! [`layout`] and [`record`] pin the stored bytes, [`overlay`] holds what is
//! applied but not yet in the store, [`draft`] collects the changes of one
//! command, [`compaction`] finds what nobody can read any more, [`tally`]
//! counts what is there. The state machine
//! that ties them together is `shard::machine`.

pub mod compaction;
pub mod draft;
mod growing;
pub mod layout;
pub mod overlay;
pub mod record;
pub mod tally;
pub mod version;
