//! The versioned store as a library: a node inside this program, asked directly.
//!
//! ```no_run
//! use std::{path::PathBuf, sync::Arc, time::Duration};
//! use clusterdb::storage::{Backend, BackendConfig, CompactionMode, Compactor, MvccStore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = BackendConfig { data_dir: PathBuf::from("./data"), ..Default::default() };
//! let store = Arc::new(MvccStore::new(Backend::new(config)?)?);
//! let (revision, _) = store.put(b"greeting", b"hello", 0)?;
//! assert_eq!(store.range(b"greeting", b"", revision, 0, false)?.count, 1);
//! let every = CompactionMode::Periodic(Duration::from_secs(600));
//! let compactor = Compactor::new(store.clone(), every, Duration::from_secs(3600)).run();
//! # drop(compactor);
//! # Ok(())
//! # }
//! ```
//!
//! Names and behaviour are etcd's where both have one: a revision per change, an
//! empty `range_end` for one key, `\0` for all that follow. Calls block and may be
//! made from any thread. The node is that of a cluster with one machine: log,
//! stores and recovery are the same, there is only nobody to copy to.

mod asked;
mod backend;
mod compactor;
mod error;
mod kinds;
mod leases;
mod services;
mod snapshot;
mod store;
mod watch;

pub use backend::{Backend, BackendConfig};
#[cfg(feature = "etcd")]
pub(crate) use compactor::keep_compacted;
pub use compactor::{CompactionMode, Compactor, CompactorHandle};
pub use error::{BackendError, BackendResult, StorageError, StorageResult};
pub use kinds::{Event, KeyValue, OpResponse, RangeResult, Revision, StorageMetrics, TxnResult};
#[cfg(feature = "etcd")]
pub use services::{ApiService, KvService};
pub use services::{Command, LeaseManager, LogEntry, RaftNode, TimeToLive, WatchService};
pub use store::{KeyIndex, MvccStore};
pub use watch::Events;

/// A revision, as conditions compare with it.
pub use cluster::mvcc::version::Version;
/// A condition of a transaction.
pub use cluster::shard::transaction::Compare;
/// A step of a transaction.
pub use cluster::shard::transaction::Step as RequestOp;
