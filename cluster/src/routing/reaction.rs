//! What the sender of a request does about each fault: one exhaustive table.
//!
//! | fault | executed? | what to do |
//! |---|---|---|
//! | not leader, hint | no | ask the hinted node at once |
//! | not leader, no hint | no | ask another replica after a pause |
//! | no replica | no | refresh the map |
//! | stale epoch | no | take the descriptor it brings, route again |
//! | busy | no | same node, after the time it names |
//! | interrupted, timeout | perhaps | another node, same session number |
//! | replica stopped | no | another replica |
//! | disk full, clock, version, rights, invalid | no | give up: repeating cannot help |
//!
//! A disk that is full on a leader which then hands over is reported as
//! *not leader*, so giving up on *disk full* means that the quorum is full.

use crate::{
    ids::NodeId,
    request::Fault,
    shard::{command::Refusal, descriptor::ShardDescriptor},
};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Ask this node at once.
    At(NodeId),
    /// Ask the same node, not before so many milliseconds.
    SameAfter(u32),
    /// Ask another node after the usual pause. If the request may have been
    /// executed, a write must keep its session number.
    Elsewhere {
        /// Whether it may have been executed.
        in_doubt: bool,
    },
    /// Learn the map anew, then ask.
    Refresh,
    /// Take this descriptor if it is newer, then route again.
    Learn(ShardDescriptor),
    /// Open another session and ask under a new number (only when no earlier
    /// try is in doubt; otherwise the outcome is unknown).
    Renew,
    /// Give up.
    GiveUp,
}

/// The table for faults.
pub fn reaction(fault: &Fault) -> Reaction {
    match fault {
        Fault::NotLeader { leader: Some(node) } => Reaction::At(*node),
        Fault::NotLeader { leader: None } | Fault::Stopped(_) => {
            Reaction::Elsewhere { in_doubt: false }
        }
        Fault::NoReplica(_) => Reaction::Refresh,
        Fault::StaleEpoch(descriptor) => Reaction::Learn(descriptor.clone()),
        Fault::Busy { retry_after_ms } => Reaction::SameAfter(*retry_after_ms),
        Fault::Interrupted | Fault::Timeout => Reaction::Elsewhere { in_doubt: true },
        Fault::DiskFull { .. }
        | Fault::ClockAhead(_)
        | Fault::NoSuchVersion(_)
        | Fault::Restoring
        | Fault::Compacted { .. }
        | Fault::NotAllowed(_)
        | Fault::Denied(_)
        | Fault::TooLarge(_)
        | Fault::StoreFull { .. }
        | Fault::Invalid(_) => Reaction::GiveUp,
    }
}

/// Milliseconds after which a sender with too many numbers in flight asks
/// again: about one group commit on a slow disk.
const WINDOW_PAUSE_MS: u32 = 20;

/// The table for what apply refuses; the request was not executed by this try.
pub fn refusal_reaction(refusal: &Refusal) -> Reaction {
    match refusal {
        Refusal::UnknownOutcome(_) => Reaction::Renew,
        Refusal::TooManyInFlight { .. } => Reaction::SameAfter(WINDOW_PAUSE_MS),
        Refusal::WrongShard => Reaction::Refresh,
        Refusal::WrongKind
        | Refusal::InvalidKey { .. }
        | Refusal::Transaction(_)
        | Refusal::Lease(_)
        | Refusal::Restore(_)
        | Refusal::Auth(_) => Reaction::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::AuthError,
        ids::{SessionId, ShardId},
        mvcc::version::Version,
        shard::range::TooLarge,
    };

    #[test]
    fn only_a_lost_leader_leaves_a_request_in_doubt() {
        for fault in [Fault::Interrupted, Fault::Timeout] {
            assert_eq!(reaction(&fault), Reaction::Elsewhere { in_doubt: true });
        }
        assert_eq!(
            reaction(&Fault::NotLeader { leader: None }),
            Reaction::Elsewhere { in_doubt: false }
        );
        assert_eq!(
            reaction(&Fault::Stopped("damage".into())),
            Reaction::Elsewhere { in_doubt: false }
        );
    }

    #[test]
    fn what_repeating_cannot_mend_is_given_up() {
        for fault in [
            Fault::DiskFull { node: NodeId(1), percent_used: 96 },
            Fault::StoreFull {
                node: NodeId(1),
                shard: ShardId(7),
                percent_used: 90,
                limit_bytes: 1 << 36,
            },
            Fault::ClockAhead(String::new()),
            Fault::Restoring,
            Fault::NoSuchVersion(String::new()),
            Fault::Compacted { at: Version(1), compacted: Version(2) },
            Fault::NotAllowed(String::new()),
            Fault::Denied(AuthError::Denied),
            Fault::TooLarge(TooLarge { bytes_max: 1 }),
            Fault::Invalid(String::new()),
        ] {
            assert_eq!(reaction(&fault), Reaction::GiveUp, "{fault}");
        }
    }

    #[test]
    fn a_hint_is_followed_and_a_stale_map_is_mended() {
        let leader = NodeId(7);
        assert_eq!(reaction(&Fault::NotLeader { leader: Some(leader) }), Reaction::At(leader));
        assert_eq!(reaction(&Fault::NoReplica(ShardId(3))), Reaction::Refresh);
        assert_eq!(refusal_reaction(&Refusal::WrongShard), Reaction::Refresh);
        assert_eq!(refusal_reaction(&Refusal::UnknownOutcome(SessionId(1))), Reaction::Renew);
    }
}
