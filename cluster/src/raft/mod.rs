//! Consensus: the only home of raft-rs.

pub mod types;
