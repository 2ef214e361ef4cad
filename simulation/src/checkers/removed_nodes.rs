//! Removed nodes stay removed, and only those are that somebody had removed.
//!
//! Sources: the bug catalogue's R11 (etcd's zombie members), G1 and G6; G1 and
//! G6 ask that gossip never decides who belongs.

use std::collections::BTreeSet;

use cluster::{
    catalog::{record::NodeState, view::CatalogView},
    ids::NodeId,
};

/// Who was removed.
#[derive(Debug, Default)]
pub(super) struct RemovedNodes {
    ordered: BTreeSet<NodeId>,
    removed: BTreeSet<NodeId>,
    /// The newest catalog seen; an older one may still show who was removed.
    newest: u64,
}

impl RemovedNodes {
    /// An operator has a node removed.
    pub(super) fn order(&mut self, node: NodeId) {
        self.ordered.insert(node);
    }

    /// Takes note of the catalog as a node knows it.
    pub(super) fn catalog(&mut self, view: &CatalogView) -> Result<(), String> {
        if view.version().0 < self.newest {
            return Ok(());
        }
        self.newest = view.version().0;
        self.nodes(view.nodes().map(|record| (record.node, record.state)))
    }

    fn nodes(&mut self, nodes: impl Iterator<Item = (NodeId, NodeState)>) -> Result<(), String> {
        for (node, state) in nodes {
            match state {
                NodeState::Active if self.removed.contains(&node) => {
                    return Err(format!("{node} was removed and is back"));
                }
                NodeState::Removed if !self.ordered.contains(&node) => {
                    return Err(format!("{node} is removed, which nobody ordered"));
                }
                NodeState::Removed => {
                    self.removed.insert(node);
                }
                NodeState::Active => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_comes_back_and_one_nobody_had_removed_are_found() {
        let (a, b) = (NodeId(1), NodeId(2));
        let mut checker = RemovedNodes::default();
        let mut seen = |nodes: &[(NodeId, NodeState)]| checker.nodes(nodes.iter().copied());
        assert_eq!(seen(&[(a, NodeState::Active), (b, NodeState::Active)]), Ok(()));
        assert!(seen(&[(b, NodeState::Removed)]).is_err(), "nobody ordered it");
        checker.order(a);
        let mut seen = |nodes: &[(NodeId, NodeState)]| checker.nodes(nodes.iter().copied());
        assert_eq!(seen(&[(a, NodeState::Removed)]), Ok(()));
        assert!(seen(&[(a, NodeState::Active)]).is_err(), "it is back");
    }
}
