//! Whether a node is who it was: incarnations and lines of starts.
//!
//! A node syncs a higher incarnation at each start. Starts form lines: each has
//! a nonce of its own and the incarnation it began with, and the next one
//! begins only after the disk knows that the catalog heard of a start of the
//! last ([`Boot::after`]). So a later start than one that was seen is of the
//! same line, or of a line that began later. Whoever shows anything else runs
//! on a restored old disk image: it may have forgotten votes and acknowledged
//! entries, so its votes and acks are refused and its replicas return under
//! new ids. A higher incarnation alone proves nothing: an old image that is
//! started often enough reaches any.
//!
//! Not told apart: an image copied before its line was known to the catalog,
//! put back while the node has begun no other line since.
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
    /// An older boot, or one of another line that does not follow the seen one.
    OldImage,
}

/// Judges a boot against the highest one seen.
pub fn judge_boot(seen: Boot, shown: Boot) -> BootVerdict {
    let newer = shown.incarnation > seen.incarnation;
    let follows = shown.nonce == seen.nonce || shown.nonce.begins() > seen.incarnation;
    if (newer && follows) || shown == seen { BootVerdict::Accept } else { BootVerdict::OldImage }
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

    /// The first start of a line.
    fn boot(incarnation: u64, chance: u64) -> Boot {
        let incarnation = Incarnation(incarnation);
        Boot { incarnation, nonce: BootNonce::line(incarnation, chance) }
    }

    const UNSEEN: Incarnation = Incarnation(0);

    #[test]
    fn an_old_image_is_refused_however_often_it_starts_before_the_catalog_hears_of_it() {
        let copied = boot(3, 30);
        // The disk knew that the catalog had heard of start 3.
        let newer = Boot::after(copied, Some(copied), UNSEEN, 40);
        let mut ledger = BootLedger::default();
        assert_eq!(ledger.judge(NodeId(1), newer), BootVerdict::Accept);
        let mut old = Boot::after(copied, Some(copied), UNSEEN, 41);
        for _ in 0..5 {
            assert_eq!(ledger.judge(NodeId(1), old), BootVerdict::OldImage, "{old:?}");
            // Whatever it learns of the newer start changes nothing.
            old = Boot::after(old, Some(newer), UNSEEN, 42);
        }
        let condemned = Boot::after(old, Some(newer), newer.incarnation, 43);
        assert_eq!(ledger.judge(NodeId(1), condemned), BootVerdict::Accept);
    }

    #[test]
    fn a_node_may_start_any_number_of_times_seen_or_unseen_told_or_not() {
        let mut ledger = BootLedger::default();
        let (mut last, mut told) = (Boot::after(Boot::default(), None, UNSEEN, 1), None);
        for start in 0_u64..40 {
            if start % 3 == 0 {
                assert_eq!(ledger.judge(NodeId(1), last), BootVerdict::Accept, "{last:?}");
            }
            if start % 4 == 0 {
                told = Some(last);
            }
            let known = told.filter(|_| start % 5 != 0);
            last = Boot::after(last, known, UNSEEN, start);
        }
        assert!(last.nonce.begins().0 > 30, "lines end");
    }

    #[test]
    fn a_boot_is_read_as_it_was_written() {
        let boot = boot(7, u64::MAX);
        assert_eq!(Boot::from_bytes(boot.to_bytes()), boot);
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
