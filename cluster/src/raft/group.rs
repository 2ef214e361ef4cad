//! One replica of one shard: raft-rs, and around it everything raft-rs leaves
//! to its user.
//!
//! [`Group::step`] takes one input. Each concern is a machine of its own that
//! borrows only what it needs: timeouts (`elections.rs`), records under way
//! (`persists.rs`), reads, weak writes (`holds.rs`), snapshots, sleep. This
//! file holds them together; `ready.rs` runs raft-rs's ready loop,
//! `messages.rs` hears peers, `changes.rs` changes configurations, `commits.rs`
//! tells followers of commits, `ticks.rs` does what time demands.
//!
//! Invariants, checked by the tests beside this file: one leader per term; what
//! is applied is durable on a majority, this replica included; logs that agree
//! at a position agree before it; a read sees every write acknowledged before
//! it began; the same seed and inputs give the same effects.

use std::{collections::BTreeMap, fmt};

use raft::{GetEntriesContext, RawNode, StateRole, eraftpb};

use super::{
    core::{Effect, Effects, Input, Ticket},
    elections::Elections,
    hibernate::Sleep,
    holds::Holds,
    persists::Persists,
    reads::Reads,
    snapshot::{Fetch, Offers},
    start::{self, GroupConfig, GroupError, GroupStart},
    storage::Log,
};
use crate::{
    ids::{Epoch, LogIndex, ReplicaId, Term},
    raft::types::{Configuration, HardState},
    request::WriteLevel,
    units::Instant,
};

/// Bytes in memory that are not applied yet before a replica takes no more
/// entries: a slow state machine slows the log instead of filling memory.
pub(super) const UNAPPLIED_BYTES_MAX: usize = 64 << 20;

/// A command on its way into the log.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) ticket: Ticket,
    pub(super) level: WriteLevel,
    pub(super) entry: eraftpb::Entry,
}

/// What peers and the driver were last told about this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) leading: bool,
    pub(super) term: Term,
    pub(super) leader: Option<ReplicaId>,
}

/// The Raft core of one replica.
pub struct Group {
    pub(super) config: GroupConfig,
    pub(super) raw: RawNode<Log>,
    pub(super) elections: Elections,
    pub(super) persists: Persists,
    pub(super) proposals: Vec<Proposal>,
    pub(super) reads: Reads,
    pub(super) holds: Holds,
    pub(super) offers: Offers,
    pub(super) fetch: Fetch,
    pub(super) sleep: Sleep,
    pub(super) configuration: Configuration,
    pub(super) epoch: Epoch,
    pub(super) role: Role,
    /// Last hard state that is durable or on its way there.
    pub(super) saved: HardState,
    /// Entries being read back, and what raft-rs asked them for.
    pub(super) fetches: BTreeMap<u64, (LogIndex, Vec<GetEntriesContext>)>,
    pub(super) fetches_made: u64,
    /// Tick at which each member was last heard.
    pub(super) heard: BTreeMap<ReplicaId, u64>,
    /// The last commit that followers were told on purpose.
    pub(super) told: LogIndex,
    pub(super) tick: u64,
    pub(super) now: Instant,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("shard", &self.config.shard)
            .field("replica", &self.config.replica)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// Starts a replica from what its disk holds.
    ///
    /// # Errors
    /// If log, store and configuration do not fit each other; the replica must
    /// then be rebuilt from its peers.
    pub fn new(config: GroupConfig, start: GroupStart) -> Result<Self, GroupError> {
        let replica = config.replica;
        let hard_state = start::check(replica, &start)?;
        let saved = start.hard_state;
        let log = start::open_log(replica, &start, hard_state)?;
        let raw = RawNode::new(
            &start::raft_config(&config, start.applied),
            log,
            &slog::Logger::root(slog::Discard, slog::o!()),
        )
        .map_err(|error| GroupError::Raft { replica, cause: error.to_string() })?;
        let mut group = Self {
            elections: Elections::new(config.seed, start::ticks(config.election_ticks)),
            config,
            raw,
            persists: Persists::default(),
            proposals: Vec::new(),
            reads: Reads::default(),
            holds: Holds::default(),
            offers: Offers::default(),
            fetch: Fetch::default(),
            sleep: Sleep::default(),
            configuration: start.configuration,
            epoch: start.epoch,
            role: Role { leading: false, term: hard_state.term, leader: None },
            saved,
            fetches: BTreeMap::new(),
            fetches_made: 0,
            heard: BTreeMap::new(),
            told: LogIndex(0),
            tick: 0,
            now: Instant::ORIGIN,
        };
        group.elections.settle(&mut group.raw.raft);
        group.forget();
        Ok(group)
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        self.now = now;
        match input {
            Input::Tick => self.on_tick(out),
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Propose { ticket, command, level } => {
                self.on_propose(ticket, command, level, out);
            }
            Input::Configure { ticket, change } => self.on_configure(ticket, &change, out),
            Input::Read { ticket } => self.on_read(ticket, out),
            Input::Persisted { number } => self.on_persisted(number, out),
            Input::Applied { index } => self.on_applied(index),
            Input::Fetched { id, entries } => self.on_fetched(id, entries, out),
            Input::FetchFailed { id } => drop(self.fetches.remove(&id)),
            Input::SnapshotPinned { id, index, term, configuration } => {
                self.on_pinned(id, index, term, configuration, out);
            }
            Input::SnapshotPinFailed { id } => drop(self.offers.end(id)),
            Input::SnapshotFetched { from, id, epoch } => {
                self.on_snapshot_fetched(from, id, epoch, out);
            }
            Input::SnapshotFailed { from, id } => self.on_snapshot_failed(from, id, out),
            Input::Campaign => self.campaign(),
            Input::TransferLeader { to } => self.hand_over(to),
            Input::Trimmed { index } => self.on_trimmed(index),
            Input::Wake => self.wake(true, out),
            Input::TellCommitted => self.tell_committed(),
            Input::Ready => self.on_ready(out),
        }
        self.elections.settle(&mut self.raw.raft);
        self.observe_role(out);
    }

    /// Whether this replica leads, as raft-rs sees it this moment.
    pub(super) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Who leads, if known.
    pub(super) fn leader(&self) -> Option<ReplicaId> {
        Some(ReplicaId(self.raw.raft.leader_id)).filter(|id| id.0 != 0)
    }

    /// Up to where a member's durable log is known to agree.
    pub(super) fn matched(&self, id: ReplicaId) -> LogIndex {
        LogIndex(self.raw.raft.prs().get(id.0).map_or(0, |progress| progress.matched))
    }

    /// Whether a member was heard within two election timeouts.
    pub(super) fn live(&self, id: ReplicaId) -> bool {
        let heard = self.heard.get(&id).copied();
        let patience = u64::from(self.config.election_ticks) * 2;
        heard.is_some_and(|heard| self.tick - heard <= patience)
    }

    /// Everybody but this replica.
    pub(super) fn others(&self) -> Vec<ReplicaId> {
        let mut members = self.configuration.members();
        members.retain(|id| *id != self.config.replica);
        members
    }

    /// Keeps at most so many bytes of applied entries in memory from now on;
    /// followers that need older ones have them fetched.
    pub fn keep_at_most(&mut self, bytes_max: usize) {
        if self.config.memory_bytes_max != bytes_max {
            self.config.memory_bytes_max = bytes_max;
            self.forget();
        }
    }

    /// Drops applied entries that nobody is likely to ask for.
    pub(super) fn forget(&mut self) {
        let applied = self.raw.raft.raft_log.applied;
        let needed = self.needed_from().0;
        self.raw.mut_store().forget(applied, needed, self.config.memory_bytes_max);
    }

    /// Tells everybody concerned when term, leadership or the leader moved.
    pub(super) fn observe_role(&mut self, out: &mut Effects) {
        let leader = self.leader();
        let role = Role { leading: self.leads(), term: Term(self.raw.raft.term), leader };
        if role == self.role {
            return;
        }
        let moved = (role.leading, role.term) != (self.role.leading, self.role.term);
        self.role = role;
        out.push(Effect::RoleChanged { leading: role.leading, term: role.term, leader });
        if !moved {
            return;
        }
        self.reads.fail(leader, out);
        self.holds.clear();
        self.fetches.clear();
        for proposal in std::mem::take(&mut self.proposals) {
            out.push(Effect::Dropped { ticket: proposal.ticket, leader });
        }
        for to in self.offers.clear(out) {
            self.raw.mut_store().set_snapshot(to.0, None);
        }
        if self.sleep.disturb() {
            out.push(Effect::Woke);
        }
    }
}
