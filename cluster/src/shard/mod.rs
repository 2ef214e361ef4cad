//! The replicated state machine of one shard: what a log entry does.
//!
//! [`machine`] applies entries, [`reader`] reads what was applied while apply
//! goes on, [`range`] is what can be asked of keys, [`leases`] ends keys nobody
//! keeps, [`root`] is what a replica keeps beside its data, [`restore`] fills one with
//! what [`saved`] holds, [`sessions`]
//! makes retries harmless, [`transaction`] is what compares before it changes,
//! [`snapshot`] copies a replica while it is written, [`sweep`] rids its store of
//! what nobody can read any more, [`watch`] tells what happened and who waits for it.

mod catalog_records;
pub mod command;
mod configuration;
pub mod descriptor;
pub mod leases;
pub mod machine;
pub mod range;
pub mod reader;
pub mod restore;
pub mod root;
pub mod saved;
pub mod sessions;
pub mod snapshot;
pub mod sweep;
pub mod transaction;
pub mod watch;
