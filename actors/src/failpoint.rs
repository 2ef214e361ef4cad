//! Named places where a crash is interesting.
//!
//! An actor says through its probe that it reached one. A node's probe does
//! nothing there; the simulator's may end the machine at exactly that place,
//! so that nothing of what follows reaches disk or network. No switch in the
//! product turns on them: whoever does not simulate cannot misuse them.
//!
//! Invariants: a name is never used for another place, for kept schedules of
//! the simulator speak of it; [`FailPoint::ALL`] has every place.

use std::{fmt, str::FromStr};

/// Makes the places, their names and the list of them all.
macro_rules! fail_points {
    ($($(#[$doc:meta])* $point:ident $name:literal;)*) => {
        /// A place: who, what, and how far it has come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FailPoint { $($(#[$doc])* $point),* }

        impl FailPoint {
            /// Every place.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name),* }
            }
        }
    };
}

fail_points! {
    /// A record is about to be handed to the log.
    LogAsked "log.asked";
    /// A record was handed to the log and is not durable yet.
    LogHanded "log.handed";
    /// A record is durable; nobody was told.
    LogDurable "log.durable";
    /// A step that changes term, vote or commit is about to be written.
    VoteAsked "vote.asked";
    /// A changed term, vote or commit is durable; no answer has left.
    VoteDurable "vote.durable";
    /// Entries are applied in memory; the Raft half does not know.
    ApplyDone "apply.done";
    /// The Raft half knows what was applied; no reply has left.
    ApplyReply "apply.reply";
    /// The first replies of a batch have left.
    ApplyReplied "apply.replied";
    /// The overlay was copied to be written to the store.
    FlushBegun "flush.begun";
    /// A flush is about to be committed.
    FlushCommit "flush.commit";
    /// A flush is committed; the overlay still holds it.
    FlushCommitted "flush.committed";
    /// The store proves a position; the log was not told to forget.
    FlushProven "flush.proven";
    /// The log is about to be told to forget.
    TrimAsked "trim.asked";
    /// A state is pinned for a replica that fell behind.
    SnapshotPinned "snapshot.pinned";
    /// A store waits for the first piece of a snapshot.
    SnapshotBegun "snapshot.begun";
    /// A piece of a snapshot is committed, with its progress.
    SnapshotPiece "snapshot.piece";
    /// All pieces are here; the Raft half does not know.
    SnapshotWhole "snapshot.whole";
    /// The log is about to name the new store.
    SnapshotInstall "snapshot.install";
    /// The log names the new store; the old one is still there.
    SnapshotNamed "snapshot.named";
    /// A founder's store is made and empty.
    BirthStore "birth.store";
    /// A founder's store holds its first root record; the log knows nothing.
    BirthFilled "birth.filled";
    /// The log names a newborn replica.
    BirthLogged "birth.logged";
    /// A replica is to be destroyed and has let go of its store.
    DestroyClosed "destroy.closed";
    /// The log says that a replica is destroyed; its store is still there.
    DestroyLogged "destroy.logged";
    /// A destroyed replica's store is gone; its volume does not know.
    DestroyDone "destroy.done";
    /// A change of voters or learners is about to enter the log.
    ChangeLogged "change.logged";
    /// A joint configuration took effect.
    ChangeJoint "change.joint";
    /// A configuration that is not joint took effect.
    ChangeSettled "change.settled";
    /// The new copy of the catalog is written beside the old one.
    CatalogWritten "catalog.written";
    /// The copy of the catalog is replaced; its directory is not synced.
    CatalogRenamed "catalog.renamed";
    /// The copy of the catalog is durable.
    CatalogDurable "catalog.durable";
    /// A node is about to tell the catalog of its start.
    StartAsked "start.asked";
    /// The catalog knows of a node's start.
    StartKnown "start.known";
    /// The controller is about to take a step.
    ControllerStep "controller.step";
    /// The controller has taken a step.
    ControllerStepped "controller.stepped";
    /// Messages of this turn are about to leave for a peer.
    OutboxFlush "outbox.flush";
    /// The messages for one peer have left.
    OutboxSent "outbox.sent";
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FailPoint {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|point| point.name() == name);
        found.ok_or_else(|| format!("no fail point is called `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ_and_are_found() {
        let names: BTreeSet<_> = FailPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), FailPoint::ALL.len());
        assert!(FailPoint::ALL.iter().all(|point| point.to_string().parse() == Ok(*point)));
        assert!("nowhere".parse::<FailPoint>().is_err());
    }
}
