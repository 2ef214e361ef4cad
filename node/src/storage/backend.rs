//! The node behind an embedded store.

use std::{path::PathBuf, sync::Arc};

use actors::client::Client;
use cluster::units::ByteSize;

use super::error::{BackendError, BackendResult};
use crate::{
    assemble::{Embedded, embedded_config},
    devices::runtime::OwnRuntime,
};

/// How an embedded node is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Directory of all its state; one process at a time may use it.
    pub data_dir: PathBuf,
    /// Memory for what is not in the store yet and for requests, in MiB. A node
    /// does not go below its least (2 GiB as a cap, taken as needed); what was
    /// read is cached by the operating system beside it.
    pub cache_size_mb: usize,
    /// Kept for programs that set it. Nothing waits for a flush: a write that
    /// returns is durable, and the store follows by its own pace.
    pub flush_interval_ms: u64,
    /// Kept for programs that set it: values are not compressed yet.
    pub compression: bool,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            cache_size_mb: 256,
            flush_interval_ms: 1_000,
            compression: true,
        }
    }
}

/// An embedded node. Clones share it; the last one ends it.
#[derive(Clone, Debug)]
pub struct Backend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Some until it is dropped.
    node: Option<Embedded>,
    runtime: OwnRuntime,
}

impl Backend {
    /// Opens the node in `data_dir`, and makes one in an empty directory.
    ///
    /// # Errors
    /// If the directory is in use or damaged, or the node does not start.
    #[expect(clippy::needless_pass_by_value, reason = "as document 2 writes it")]
    pub fn new(config: BackendConfig) -> BackendResult<Self> {
        let memory = ByteSize::mib(config.cache_size_mb as u64);
        let start = |error: anyhow::Error| BackendError::Start(format!("{error:#}"));
        let config = embedded_config(&config.data_dir, memory).map_err(start)?;
        let runtime = OwnRuntime::start()?;
        let node = runtime.run(async move { Embedded::open(&config).await })?.map_err(start)?;
        Ok(Self(Arc::new(Inner { node: Some(node), runtime })))
    }

    /// Bytes on the disk.
    pub fn size(&self) -> u64 {
        self.0.node.as_ref().map_or(0, Embedded::used_bytes)
    }

    /// Asks the node.
    pub(super) fn client(&self) -> BackendResult<Client> {
        let node = self.0.node.as_ref().map(|node| node.client.clone());
        node.ok_or_else(|| BackendError::Serve("it has ended".to_owned()))
    }

    /// What etcd's services over a volume of the node share.
    #[cfg(feature = "etcd")]
    pub(super) fn etcd_gateway(
        &self,
        config: crate::config::EtcdConfig,
    ) -> crate::doors::etcd::Gateway {
        #[expect(clippy::expect_used, reason = "it is taken when the last clone is dropped")]
        let node = self.0.node.as_ref().expect("a backend has its node");
        node.etcd_gateway(config)
    }

    pub(super) fn runtime(&self) -> &OwnRuntime {
        &self.0.runtime
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            // A panic on the way out would only hide the first one.
            let _ = self.runtime.run(node.stop());
        }
    }
}
