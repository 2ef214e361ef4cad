//! The replicated state machine of one shard: what a log entry does.
//!
//! [`machine`] applies entries, [`reader`] reads what was applied while apply
//! goes on, [`root`] is what a replica keeps beside its data, [`sessions`]
//! makes retries harmless, [`transaction`] is what compares before it changes,
//! [`snapshot`] copies a replica while it is written, [`sweep`] rids its store of
//! what nobody can read any more.

mod catalog_records;
pub mod command;
mod configuration;
pub mod descriptor;
pub mod machine;
pub mod reader;
pub mod root;
pub mod sessions;
pub mod snapshot;
pub mod sweep;
pub mod transaction;
