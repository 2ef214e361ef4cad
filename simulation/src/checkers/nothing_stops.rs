//! Nothing stops by itself: no replica, no actor, no disk, no node - unless
//! the plan brought it about, for example by a poison entry or a failed sync.
//!
//! Source: design.md §3: a stop raises an alarm; one nobody caused is a bug.

use std::collections::BTreeSet;

use actors::probe::Report;

use super::Checker;

/// What may stop when a plan says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// A replica stops for good.
    Replica,
    /// A replica is lost: bytes on a disk are damaged, old or gone.
    Loss,
    /// A supervised actor fails and is started again.
    Actor,
    /// A disk is fenced.
    Disk,
    /// A node ends by itself.
    Node,
}

/// What the plan brings about.
#[derive(Debug, Default)]
pub(super) struct NothingStops {
    planned: BTreeSet<Stop>,
}

impl NothingStops {
    /// From now on this may happen.
    pub(super) fn plan(&mut self, stop: Stop) {
        self.planned.insert(stop);
    }

    /// Something of the kind stopped.
    pub(super) fn stopped(&self, stop: Stop, how: String) -> Result<(), String> {
        if self.planned.contains(&stop) { Ok(()) } else { Err(how) }
    }
}

impl Checker for NothingStops {
    fn report(&mut self, node: u32, report: &Report) -> Result<(), String> {
        let stop = match report {
            Report::ReplicaStopped { .. } => Stop::Replica,
            Report::ReplicaLost { .. } => Stop::Loss,
            Report::Restarted { .. } => Stop::Actor,
            Report::DiskFenced { .. } => Stop::Disk,
            Report::Elected { .. }
            | Report::Applied { .. }
            | Report::Configured { .. }
            | Report::SnapshotInstalled { .. }
            | Report::SnapshotPinned { .. }
            | Report::SnapshotOpened { .. }
            | Report::SnapshotResumed { .. }
            | Report::LeadershipOffered { .. }
            | Report::Gathered { .. }
            | Report::Hibernating { .. }
            | Report::ReplicaReplaced { .. }
            | Report::PeerRefused { .. } => return Ok(()),
        };
        self.stopped(stop, format!("n{node} {report:?}, which nobody planned"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_nobody_planned_is_found_and_a_planned_one_is_not() {
        let mut checker = NothingStops::default();
        let fenced = Report::DiskFenced { cause: "test".to_owned() };
        assert!(checker.report(1, &fenced).is_err());
        checker.plan(Stop::Disk);
        assert_eq!(checker.report(1, &fenced), Ok(()));
        assert!(checker.stopped(Stop::Node, "a node ended".to_owned()).is_err());
        let restarted = Report::Restarted { actor: "test", cause: "test".to_owned() };
        assert!(checker.report(1, &restarted).is_err());
    }
}
