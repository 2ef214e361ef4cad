//! A window into a running node: what its actors publish for readers, routers
//! and status, looked at from outside and without a message.

use std::{collections::BTreeSet, sync::Arc};

use actors::{
    budget::{NodeBudget, NodeLimits},
    replica::{apply::ReadHalf, messages::Crowd},
    router::Hosted,
};
use cluster::{
    catalog::view::CatalogView,
    ids::{NodeId, ReplicaId, ShardId},
    membership::swim::LiveView,
};
use tokio::sync::watch;

use crate::life::Life;

/// One boot's.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Whether there is still something to see.
    pub(crate) life: Life,
    /// Its replicas.
    pub(crate) hosted: watch::Receiver<Arc<Hosted>>,
    /// The catalog as it knows it.
    pub(crate) catalog: watch::Receiver<Arc<CatalogView>>,
    /// Whom it sees up.
    pub(crate) live: watch::Receiver<LiveView>,
    /// What it holds in memory.
    pub(crate) budget: Arc<NodeBudget>,
    /// What it may hold.
    pub(crate) limits: NodeLimits,
}

/// A replica as it shows itself.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) shard: ShardId,
    pub(super) replica: ReplicaId,
    pub(super) crowd: Crowd,
    /// None before its store is open.
    pub(super) half: Option<Arc<ReadHalf>>,
}

impl Window {
    pub(super) fn catalog(&self) -> Arc<CatalogView> {
        Arc::clone(&self.catalog.borrow())
    }

    pub(super) fn up(&self) -> BTreeSet<NodeId> {
        self.live.borrow().nodes()
    }

    /// Its replicas.
    pub(super) fn replicas(&self) -> Vec<Sight> {
        let hosted = Arc::clone(&self.hosted.borrow());
        let sight = |handle: &actors::replica::messages::ReplicaHandle| Sight {
            shard: handle.shard,
            replica: handle.replica,
            crowd: handle.crowd(),
            half: handle.published.borrow().half.clone(),
        };
        hosted.by_shard.values().map(sight).collect()
    }
}
