//! Opens the doors a node is told to open.
//!
//! Ports are taken before anything is started, so that a taken one costs no
//! half-started node.
#![cfg_attr(not(feature = "etcd"), allow(unused, reason = "this build opens no door"))]

use std::sync::Arc;

use actors::{client::Client, root::NodeActors};
use anyhow::Context;
use cluster::{ids::NodeId, ports::network::Network};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;

use crate::{
    config::{AuditConfig, DoorsConfig},
    devices::{clock::SystemClock, entropy::SystemEntropy},
    doors::local::LocalDoor,
    observe::audit::Audit,
};

/// Doors whose ports are taken.
pub(super) struct Doors {
    /// Where what comes through any of them is told.
    audit: Option<Arc<Audit>>,
    #[cfg(feature = "etcd")]
    etcd: Option<OpenEtcd>,
}

/// What the etcd door has before it is opened.
#[cfg(feature = "etcd")]
struct OpenEtcd {
    config: crate::config::EtcdConfig,
    listener: tokio::net::TcpListener,
}

fn open_audit(config: &AuditConfig) -> anyhow::Result<Arc<Audit>> {
    Audit::open(config)
        .map(Arc::new)
        .with_context(|| format!("cannot write the audit log {}", config.file.display()))
}

/// Takes the ports, and opens what is told to.
pub(super) async fn bind(config: &DoorsConfig) -> anyhow::Result<Doors> {
    let audit = config.audit.as_ref().map(open_audit).transpose()?;
    #[cfg(feature = "etcd")]
    {
        let etcd = match &config.etcd {
            Some(etcd) => Some(OpenEtcd {
                listener: crate::doors::etcd::bind(etcd).await?,
                config: etcd.clone(),
            }),
            None => None,
        };
        Ok(Doors { audit, etcd })
    }
    #[cfg(not(feature = "etcd"))]
    {
        anyhow::ensure!(config.etcd.is_none(), "this build has no etcd door (feature `etcd`)");
        Ok(Doors { audit })
    }
}

impl Doors {
    /// Where changes are told.
    pub(super) fn audit(&self) -> Option<&Arc<Audit>> {
        self.audit.as_ref()
    }

    /// Opens them onto a started node whose metrics are these.
    pub(super) fn open(
        self,
        page: PrometheusHandle,
        actors: &NodeActors,
        network: &Arc<dyn Network>,
        node: NodeId,
        clock: Arc<SystemClock>,
        entropy: Arc<SystemEntropy>,
    ) -> Vec<JoinHandle<()>> {
        let mut open = Vec::new();
        #[cfg(feature = "etcd")]
        if let Some(OpenEtcd { config, listener }) = self.etcd {
            let door =
                LocalDoor::new(actors.switchboard.clone(), network.clone(), node, "etcd door");
            let client = Client::new(Arc::new(door), clock.clone(), entropy.clone());
            let gateway = etcd_gateway(&client, actors, node, config, clock, entropy)
                .with_audit(self.audit.as_deref().cloned())
                .with_metrics(Arc::new(move || page.render()));
            let serve = crate::doors::etcd::serve(Arc::new(gateway), listener);
            open.push(tokio::spawn(async move {
                if let Err(error) = Box::pin(serve).await {
                    tracing::error!(error = format!("{error:#}"), "the etcd door is closed");
                }
            }));
        }
        open
    }
}

/// What etcd's services over a volume of a started node share.
#[cfg(feature = "etcd")]
pub(super) fn etcd_gateway(
    client: &Client,
    actors: &NodeActors,
    node: NodeId,
    config: crate::config::EtcdConfig,
    clock: Arc<SystemClock>,
    entropy: Arc<SystemEntropy>,
) -> crate::doors::etcd::Gateway {
    use crate::doors::{accounts::Accounts, etcd::Gateway};
    let accounts = Arc::new(Accounts::new(client.clone(), &config.volume, clock, entropy));
    let (router, space) = (actors.router.clone(), actors.space.clone());
    Gateway::new(client, router, space, node, config, accounts)
}
