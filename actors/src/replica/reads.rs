//! Reads at a replica: when one may run, and what it finds.
//!
//! A strong read waits for a position confirmed by a majority, then for apply to reach
//! it; a read as of a point of time until that is closed. It runs on a reading thread, at
//! what is published then, and changes nothing: whoever hears of no outcome asks again.

use std::sync::Arc;

use cluster::{
    auth::AuthQuery,
    ids::{LeaseId, LogIndex},
    limits::CLOCK_AHEAD_MS_MAX,
    mvcc::version::{Hlc, Version, VersionKind},
    raft::{Input, Ticket},
    request::{Fault, ReadLevel, ShardAnswer, ShardResult, WriteLevel},
    shard::{
        command::Action,
        leases::{LeaseRecord, LeaseView},
        range::Range,
        reader::ReadError,
        transaction::Transaction,
    },
};

use super::{
    accounts::Guard,
    apply::ReadHalf,
    calls::{Asked, RETRY_MS, Waiting},
    halt::read_halt,
    messages::ReplicaMessage,
    state::ReplicaState,
};

/// What to read.
#[derive(Clone, Debug)]
pub(super) enum ReadQuery {
    Get {
        key: Vec<u8>,
        at: Option<Version>,
        head_only: bool,
    },
    List {
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
        at: Option<Version>,
        values: bool,
    },
    Range(Range),
    /// A transaction that changes nothing.
    Look(Transaction),
    Lease {
        lease: LeaseId,
        keys: bool,
    },
    Leases {
        after: LeaseId,
    },
    Accounts(AuthQuery),
}

impl ReplicaState {
    /// Takes a read: at once where its level allows, else by the leader.
    pub(super) fn read(&mut self, asked: Asked, query: ReadQuery, level: ReadLevel) {
        if let Some(at) = query.at()
            && self.half.versions() == Some(VersionKind::Hybrid)
        {
            return self.read_at(asked, query, Hlc(at.0));
        }
        if self.half.serves(level, self.world.hybrid.tick(self.world.clock.wall())) {
            return self.start_read(asked, query);
        }
        let ticket = self.calls.ticket();
        self.calls.waiting.insert(ticket, Waiting::Read(asked, query));
        self.input(Input::Read { ticket });
        self.wake();
    }

    /// Reads as of a point of time: anyone may once it is closed; the leader
    /// closes it by an entry if need be.
    fn read_at(&mut self, asked: Asked, query: ReadQuery, at: Hlc) {
        if self.half.closed() >= at {
            return self.start_read(asked, query);
        }
        let ahead_ms = at.wall().0.saturating_sub(self.world.clock.wall().0);
        if ahead_ms > CLOCK_AHEAD_MS_MAX {
            let text = format!("version {} lies {ahead_ms} ms in the future", at.0);
            return self.refuse(asked.reply, Fault::NoSuchVersion(text));
        }
        let _ = self.world.hybrid.observe(at, self.world.clock.wall());
        self.propose_as(Waiting::Close(asked, query), Action::Close, WriteLevel::Strong);
    }

    /// Runs a read on a reading thread, at what is published now.
    pub(super) fn start_read(&self, asked: Asked, query: ReadQuery) {
        let Some(half) = self.half.read_half() else {
            return self.refuse(asked.reply, Fault::NotLeader { leader: None });
        };
        let (clock, leader) = (self.world.hybrid.last(), self.leader_node());
        let (myself, now_ms) = (self.myself.clone(), self.shard_time_ms(&half));
        self.world.workers.beside(Box::new(move || {
            let result = query.run(&asked.guard, &half, now_ms).map_err(|error| {
                if let Some(halt) = read_halt(&error) {
                    let _ = myself.cast(ReplicaMessage::Halted(halt));
                }
                read_fault(&error, &half)
            });
            let _ = asked.reply.send(ShardAnswer { clock, leader, result });
        }));
    }

    /// A read may run once a position is applied.
    pub(super) fn read_ready(&mut self, ticket: Ticket, index: LogIndex) {
        if index <= self.applied.0 {
            self.finish_read(ticket);
        } else {
            self.calls.reads.entry(index).or_default().push(ticket);
        }
    }

    pub(super) fn finish_read(&mut self, ticket: Ticket) {
        if let Some(Waiting::Read(asked, query)) = self.calls.waiting.remove(&ticket) {
            self.start_read(asked, query);
        }
    }
}

impl ReadQuery {
    fn at(&self) -> Option<Version> {
        match self {
            Self::Get { at, .. } | Self::List { at, .. } => *at,
            Self::Range(range) => range.at,
            Self::Look(_) | Self::Lease { .. } | Self::Leases { .. } | Self::Accounts(_) => None,
        }
    }

    /// `now_ms` is shard time as the leader counts it.
    fn run(
        &self,
        guard: &Guard,
        half: &Arc<ReadHalf>,
        now_ms: u64,
    ) -> Result<ShardResult, ReadError> {
        let view = half.reader.view(half.store.as_ref())?;
        guard.check(half, view.as_ref())?;
        let now = half.reader.now();
        match self {
            Self::Get { key, at, head_only } => {
                half.reader.get(view.as_ref(), key, *at, *head_only).map(ShardResult::Value)
            }
            Self::List { prefix, after, limit, at, values } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                half.reader.list(view.as_ref(), prefix, after.as_deref(), limit, *at, *values).map(
                    |page| ShardResult::Page { items: page.items, more: page.more, at: page.at },
                )
            }
            Self::Range(range) => {
                let (result, at) = half.reader.range(view.as_ref(), range)?;
                Ok(ShardResult::Range { result, at, now })
            }
            Self::Look(transaction) => {
                half.reader.look(view.as_ref(), transaction).map(ShardResult::Outcome)
            }
            Self::Lease { lease, keys } => {
                let Ok(known) = half.reader.leases().get(*lease) else {
                    return Ok(ShardResult::Lease(None, now));
                };
                let keys =
                    if *keys { half.reader.lease_keys(view.as_ref(), *lease)? } else { Vec::new() };
                let record = LeaseRecord { id: *lease, lease: known };
                let shown = LeaseView { keys, ..half.reader.lease_view(record, now_ms) };
                Ok(ShardResult::Lease(Some(shown), now))
            }
            Self::Accounts(query) => {
                Ok(ShardResult::Auth(half.reader.accounts().answer(query)?, now))
            }
            Self::Leases { after } => {
                let (leases, more) = half.reader.list_leases(*after, now_ms);
                Ok(ShardResult::Leases { leases, more, now })
            }
        }
    }
}

/// What a failed read means to the asker.
pub(super) fn read_fault(error: &ReadError, half: &ReadHalf) -> Fault {
    match error {
        ReadError::WrongShard(_) => Fault::StaleEpoch(half.reader.descriptor().clone()),
        ReadError::Compacted { at, compacted } => {
            Fault::Compacted { at: *at, compacted: *compacted }
        }
        ReadError::NotWhole(_) => Fault::Restoring,
        ReadError::Denied(error) => Fault::Denied(*error),
        ReadError::Future { .. } => Fault::NoSuchVersion(error.to_string()),
        ReadError::TooLarge(error) => Fault::TooLarge(*error),
        ReadError::ViewTooOld { .. }
        | ReadError::Overtaken { .. }
        | ReadError::GoneOn { .. }
        | ReadError::Gone(_) => Fault::Busy { retry_after_ms: RETRY_MS },
        ReadError::Engine(_) | ReadError::Root(_) => Fault::Stopped(error.to_string()),
    }
}
