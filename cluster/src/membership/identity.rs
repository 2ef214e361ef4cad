//! Whether a node is who it was: incarnations and boot nonces.
//!
//! A node syncs a higher incarnation at each start and draws a nonce with it.
//! Whoever shows a lower incarnation than was seen before, or the same with
//! another nonce, runs on a restored old disk image: it may have forgotten
//! votes and acknowledged entries, so its votes and acks are refused and its
//! replicas return under new ids.
//!
//! Invariant: the highest boot seen of a node never falls.

use std::collections::BTreeMap;

use super::Boot;
use crate::ids::NodeId;

/// Nodes a ledger remembers. Only nodes with a certificate of the cluster get
/// here; 4,096 is far above the nodes a catalog is meant for.
pub const LEDGER_NODES_MAX: usize = 4_096;

/// What a shown boot proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootVerdict {
    /// The highest boot seen, or a newer one.
    Accept,
    /// An older boot, or the same incarnation with another nonce.
    OldImage,
}

/// Judges a boot against the highest one seen.
pub fn judge_boot(seen: Boot, shown: Boot) -> BootVerdict {
    let newer = shown.incarnation > seen.incarnation;
    if newer || shown == seen { BootVerdict::Accept } else { BootVerdict::OldImage }
}

/// The highest boot seen of every node.
#[derive(Clone, Debug, Default)]
pub struct BootLedger {
    seen: BTreeMap<NodeId, Boot>,
}

impl BootLedger {
    /// Judges the boot a peer shows and remembers it when it is the highest.
    /// Past [`LEDGER_NODES_MAX`] an unknown peer is accepted and not
    /// remembered: forgetting is safe, the catalog judges boots as well.
    pub fn judge(&mut self, peer: NodeId, boot: Boot) -> BootVerdict {
        let Some(seen) = self.seen.get_mut(&peer) else {
            if self.seen.len() < LEDGER_NODES_MAX {
                self.seen.insert(peer, boot);
            }
            return BootVerdict::Accept;
        };
        let verdict = judge_boot(*seen, boot);
        if verdict == BootVerdict::Accept {
            *seen = boot;
        }
        verdict
    }

    /// The highest boot seen of a node.
    pub fn seen(&self, peer: NodeId) -> Option<Boot> {
        self.seen.get(&peer).copied()
    }

    /// Forgets a removed node.
    pub fn forget(&mut self, peer: NodeId) {
        self.seen.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BootNonce, Incarnation};

    fn boot(incarnation: u64, nonce: u128) -> Boot {
        Boot { incarnation: Incarnation(incarnation), nonce: BootNonce(nonce) }
    }

    #[test]
    fn a_restart_is_accepted_and_the_old_image_is_not() {
        let mut ledger = BootLedger::default();
        let peer = NodeId(1);
        assert_eq!(ledger.judge(peer, boot(3, 30)), BootVerdict::Accept);
        assert_eq!(ledger.judge(peer, boot(3, 30)), BootVerdict::Accept);
        assert_eq!(ledger.judge(peer, boot(4, 40)), BootVerdict::Accept);
        assert_eq!(ledger.judge(peer, boot(3, 30)), BootVerdict::OldImage);
        assert_eq!(ledger.judge(peer, boot(4, 41)), BootVerdict::OldImage);
        assert_eq!(ledger.seen(peer), Some(boot(4, 40)));
    }

    #[test]
    fn boots_of_different_nodes_do_not_meet() {
        let mut ledger = BootLedger::default();
        assert_eq!(ledger.judge(NodeId(1), boot(9, 1)), BootVerdict::Accept);
        assert_eq!(ledger.judge(NodeId(2), boot(1, 1)), BootVerdict::Accept);
    }

    #[test]
    fn a_full_ledger_grows_no_further() {
        let mut ledger = BootLedger::default();
        for id in 0..=LEDGER_NODES_MAX as u128 {
            assert_eq!(ledger.judge(NodeId(id), boot(2, 1)), BootVerdict::Accept);
        }
        assert_eq!(ledger.seen(NodeId(LEDGER_NODES_MAX as u128)), None);
        assert_eq!(ledger.judge(NodeId(0), boot(1, 1)), BootVerdict::OldImage);
    }
}
