//! What a group shows of itself.

use super::group::Group;
use crate::{
    ids::{Epoch, LogIndex, ReplicaId, Term},
    raft::types::Configuration,
    units::Instant,
};

/// A look at a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Whether this replica leads.
    pub leading: bool,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The term.
    pub term: Term,
    /// Committed position.
    pub committed: LogIndex,
    /// Applied position, as the driver said.
    pub applied: LogIndex,
    /// Durable position.
    pub persisted: LogIndex,
    /// Last position.
    pub last: LogIndex,
    /// Log entries up to here are trimmed.
    pub base: LogIndex,
    /// First log position that live followers and offered snapshots may still
    /// ask for; trimming below it costs nobody a snapshot.
    pub needed_from: LogIndex,
    /// The configuration.
    pub configuration: Configuration,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it sleeps.
    pub hibernating: bool,
    /// Heartbeat rounds issued for reads.
    pub read_rounds: u64,
    /// Reads those rounds answered.
    pub reads_answered: u64,
    /// Bytes of entries in memory.
    pub memory_bytes: usize,
    /// Since when the oldest record waits for the disk.
    pub persist_waits_since: Option<Instant>,
    /// The others, as the leader sees them; empty elsewhere. In order of id.
    pub peers: Vec<PeerStatus>,
}

/// What of a group changes all the time and costs nothing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupGlance {
    /// Whether this replica leads.
    pub leading: bool,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The term.
    pub term: Term,
    /// Committed position.
    pub committed: LogIndex,
    /// Last position.
    pub last: LogIndex,
    /// Whether it sleeps.
    pub hibernating: bool,
    /// Heartbeat rounds issued for reads.
    pub read_rounds: u64,
    /// Bytes of entries in memory.
    pub memory_bytes: usize,
}

/// A peer, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which.
    pub replica: ReplicaId,
    /// Up to where its durable log is known to agree.
    pub matched: LogIndex,
    /// Whether it was heard lately.
    pub live: bool,
    /// Whether it waits for a snapshot.
    pub snapshot: bool,
}

impl Group {
    /// The term of a position, if the log still knows it: from its base to its
    /// end.
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        use raft::Storage as _;
        let log = &self.raw.raft.raft_log;
        let known = (log.store.base()..=log.last_index()).contains(&index.0);
        let term = log.unstable.maybe_term(index.0).or_else(|| log.store.term(index.0).ok());
        term.filter(|_| known).map(Term)
    }

    /// A glance at the group, without allocation.
    pub fn glance(&self) -> GroupGlance {
        let raft = &self.raw.raft;
        GroupGlance {
            leading: self.role.leading,
            leader: self.role.leader,
            term: Term(raft.term),
            committed: LogIndex(raft.raft_log.committed),
            last: LogIndex(raft.raft_log.last_index()),
            hibernating: self.sleep.asleep(),
            read_rounds: self.reads.rounds,
            memory_bytes: raft.raft_log.store.bytes(),
        }
    }

    /// A look at the group.
    pub fn status(&self) -> GroupStatus {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        GroupStatus {
            leading: self.role.leading,
            leader: self.role.leader,
            term: Term(raft.term),
            committed: LogIndex(log.committed),
            applied: LogIndex(log.applied),
            persisted: LogIndex(log.persisted),
            last: LogIndex(log.last_index()),
            base: LogIndex(log.store.base()),
            needed_from: self.needed_from(),
            configuration: self.configuration.clone(),
            epoch: self.epoch,
            hibernating: self.sleep.asleep(),
            read_rounds: self.reads.rounds,
            reads_answered: self.reads.answered,
            memory_bytes: log.store.bytes(),
            persist_waits_since: self.persists.oldest(),
            peers: self.peers(),
        }
    }

    /// First position live followers and offered snapshots may ask for.
    pub fn needed_from(&self) -> LogIndex {
        let own = LogIndex(self.raw.raft.raft_log.applied + 1);
        if !self.leads() {
            return own;
        }
        let followers = self
            .others()
            .into_iter()
            .filter(|id| self.live(*id) && !self.awaits_snapshot(*id))
            .map(|id| LogIndex(self.matched(id).0 + 1));
        followers.chain(self.offers.needed_from()).fold(own, LogIndex::min)
    }

    fn awaits_snapshot(&self, id: ReplicaId) -> bool {
        let progress = self.raw.raft.prs().get(id.0);
        progress.is_some_and(|progress| progress.state == raft::ProgressState::Snapshot)
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let others = if self.leads() { self.others() } else { Vec::new() };
        let peer = |replica| PeerStatus {
            replica,
            matched: self.matched(replica),
            live: self.live(replica),
            snapshot: self.awaits_snapshot(replica),
        };
        others.into_iter().map(peer).collect()
    }
}
