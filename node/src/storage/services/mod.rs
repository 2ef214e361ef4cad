//! Services over one store, for programs whose tasks share it: what they are asked is
//! waited for in a task of any runtime, where the store itself blocks a thread.

#[cfg(feature = "etcd")]
mod api;
mod lease_manager;
mod raft_node;
mod watch_service;

#[cfg(feature = "etcd")]
pub use api::{ApiService, KvService};
pub use lease_manager::{LeaseManager, TimeToLive};
pub use raft_node::{Command, LogEntry, RaftNode};
pub use watch_service::WatchService;
