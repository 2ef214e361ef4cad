//! The ports in memory: for nodes that keep nothing (`--memory`) and for the
//! simulator. Pure, deterministic, and honest about what a crash may take.

mod engine;
mod files;

pub use engine::{MemoryEngine, MemoryStore, MemoryView};
pub use files::MemoryFiles;
