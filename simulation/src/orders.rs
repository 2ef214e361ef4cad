//! What an operator wants of a running node, beside what clients ask.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cluster::ids::NodeId;

/// An order.
#[derive(Clone, Debug)]
pub enum Order {
    /// Give away the leadership of every shard it leads.
    GiveUpLeadership,
    /// Have a node removed from the cluster.
    Remove(NodeId, Done),
    /// See whether a node was removed.
    Miss(NodeId, Done),
    /// Have a removed node let in again under its old identity, with a good
    /// token: it must be refused.
    Readmit(NodeId),
}

/// Whether an order was carried out.
#[derive(Clone, Debug, Default)]
pub struct Done(Arc<AtomicBool>);

impl Done {
    /// It was.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
