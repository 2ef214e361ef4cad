//! Versions: how the same key keeps its past, and how time names a cut.

pub mod version;
