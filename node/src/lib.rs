//! WHERE it really runs: devices, doors, command line and embedding façade.

mod assemble;
pub mod cli;
pub mod config;
pub mod data_dir;
pub mod devices;
pub mod doors;
pub mod observe;
mod saved;
pub mod status;
pub mod storage;

pub use assemble::run as run_node;
#[cfg(feature = "etcd")]
pub use doors::etcd::proto::etcdserverpb as etcd;
