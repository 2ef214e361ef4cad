//! The replicated state machine of one shard: what a log entry does.

pub mod command;
pub mod descriptor;
