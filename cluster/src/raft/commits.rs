//! How followers learn what is committed.
//!
//! An append says how far the log was committed when it went, so of the last commit
//! followers learn with the append after it, and if none comes with a heartbeat. On a
//! busy shard that is at once and costs nothing. On a quiet one, whoever reads or
//! watches at a follower would wait for up to two ticks (200 ms). So the driver asks
//! the leader a moment later whether it owes its followers a commit, and the leader
//! tells each commit once, in an append without entries; while entries are on their way
//! it waits, for what follows them will say it.
//!
//! Source: raft-rs `skip_bcast_commit`, which would tell every commit at once: two
//! messages more for each write of a lone writer.

use super::group::Group;
use crate::ids::{LogIndex, ReplicaId};

impl Group {
    /// Whether this replica leads, and some follower does not know how far the log is
    /// committed, and has not been told on purpose.
    pub fn owes_commit(&self) -> bool {
        let committed = LogIndex(self.raw.raft.raft_log.committed);
        self.leads() && committed > self.told && !self.uninformed(committed).is_empty()
    }

    pub(super) fn tell_committed(&mut self) {
        let log = &self.raw.raft.raft_log;
        let (last, committed) = (log.last_index(), LogIndex(log.committed));
        if last > committed.0 || !self.owes_commit() {
            return;
        }
        self.told = committed;
        for id in self.uninformed(committed) {
            self.raw.raft.send_append(id.0);
        }
    }

    fn uninformed(&self, committed: LogIndex) -> Vec<ReplicaId> {
        let mut others = self.others();
        others.retain(|id| {
            let progress = self.raw.raft.prs().get(id.0);
            progress.is_some_and(|progress| progress.committed_index < committed.0)
        });
        others
    }
}
