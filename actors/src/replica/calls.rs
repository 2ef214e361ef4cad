//! Requests at a replica: what waits for a proposal, a read position, a turn.
//!
//! A write waits for its entry to be applied at the position and term it was
//! proposed with. What reads wait for is told in `reads`. When leadership ends,
//! everything under way is answered `Interrupted`: a retry with the same session
//! number finds out.

use std::collections::BTreeMap;

use cluster::{
    auth::Principal,
    ids::{CATALOG_SHARD, LogIndex, Term},
    limits::{BATCH_OPS_MAX, ENTRY_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    mvcc::version::{Hlc, Version},
    raft::{Input, Ticket, types::ConfigurationChange},
    request::{Fault, ReadLevel, ShardAnswer, ShardBody, ShardRequest, ShardResult, WriteLevel},
    shard::{
        command::{Action, Command, Op, Outcome},
        leases::LeaseCommand,
        range::Range,
        restore::{RestoreCommand, RestoreStep},
        transaction::check_keys,
        watch::Watch,
    },
    units::Instant,
};
use tokio::sync::oneshot;

use super::{
    accounts::Guard,
    apply::ReadHalf,
    messages::{AppliedBatch, ReplicaCall, refused},
    reads::ReadQuery,
    state::{Phase, ReplicaState},
};
use crate::{admission::Permit, failpoint::FailPoint, probe::Report};

/// Largest step of shard time one command adds: a leader that slept does not
/// end sessions early.
const SHARD_TIME_STEP_MS_MAX: u128 = 10_000;
/// Longest any request waits here, whatever its sender says: a minute is six
/// times the usual deadline.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_mins(1);
/// What a refused asker should wait before it tries again.
pub(super) const RETRY_MS: u32 = 20;

/// Where a change of configuration is answered.
pub(super) type ConfigureReply = oneshot::Sender<Result<(), Fault>>;

/// A request with its way back.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) reply: oneshot::Sender<ShardAnswer>,
    pub(super) deadline: Instant,
    pub(super) guard: Guard,
    _permit: Permit,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Its entry to be applied.
    Write(Asked),
    /// Its entry to be applied, then read.
    Close(Asked, ReadQuery),
    /// A position, then apply up to it.
    Read(Asked, ReadQuery),
    /// A change of configuration to be applied.
    Configure(ConfigureReply),
    /// Its entry to be applied; nobody outside asked for it.
    Own,
}

/// All requests under way at one replica.
#[derive(Debug, Default)]
pub(super) struct Calls {
    last_ticket: u64,
    pub(super) waiting: BTreeMap<Ticket, Waiting>,
    /// Proposals in the log, by position.
    proposed: BTreeMap<LogIndex, (Term, Ticket)>,
    /// Reads that wait for apply to reach a position.
    pub(super) reads: BTreeMap<LogIndex, Vec<Ticket>>,
    /// When this leader last added to shard time.
    stepped: Option<Instant>,
    /// When it looks after leases next.
    pub(super) alarm: Option<Instant>,
}

impl Asked {
    /// Whether somebody still wants to know.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.reply.is_closed()
    }

    /// Answers.
    pub(super) fn answer(
        self,
        clock: Hlc,
        leader: Option<cluster::ids::NodeId>,
        result: Result<ShardResult, Fault>,
    ) {
        let _ = self.reply.send(ShardAnswer { clock, leader, result });
    }
}

impl Waiting {
    /// As whom an entry is put before the log. A read that closes a point of
    /// time is judged when it reads.
    fn principal(&self) -> Principal {
        match self {
            Self::Write(asked) => asked.guard.principal(),
            Self::Close(..) | Self::Read(..) | Self::Configure(_) | Self::Own => Principal::Trusted,
        }
    }
}

impl Calls {
    pub(super) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Forgets requests whose askers no longer wait. Their entries may still
    /// be applied; a retry by session number finds the kept reply.
    pub(super) fn expire(&mut self, now: Instant) {
        self.waiting.retain(|_, waiting| match waiting {
            Waiting::Write(asked) | Waiting::Close(asked, _) | Waiting::Read(asked, _) => {
                asked.deadline > now && !asked.reply.is_closed()
            }
            Waiting::Configure(reply) => !reply.is_closed(),
            Waiting::Own => true,
        });
        let waiting = &self.waiting;
        self.proposed.retain(|_, (_, ticket)| waiting.contains_key(ticket));
        self.reads.retain(|_, tickets| {
            tickets.retain(|ticket| waiting.contains_key(ticket));
            !tickets.is_empty()
        });
    }

    /// Whether something that nobody outside asked for is under way.
    pub(super) fn has_own(&self) -> bool {
        self.waiting.values().any(|waiting| matches!(waiting, Waiting::Own))
    }

    /// Starts to count shard time: this replica leads now.
    pub(super) fn begin_leading(&mut self, now: Instant) {
        self.stepped = Some(now);
    }
}

impl ReplicaState {
    /// Takes a request.
    pub(super) fn call(&mut self, call: ReplicaCall) {
        let ReplicaCall { request, permit, reply } = call;
        if request.body == ShardBody::Inspect {
            // Also one that takes no part says so.
            let status = self.half.status().map(ShardResult::Replica);
            return self.answer(reply, status.ok_or(Fault::NotLeader { leader: None }));
        }
        if let Err(fault) = self.admit(&request) {
            return self.refuse(reply, fault);
        }
        let timeout = std::time::Duration::from_millis(u64::from(request.timeout_ms)).min(WAIT_MAX);
        let (deadline, guard) = (self.world.clock.now() + timeout, Guard::of(&request));
        let asked = Asked { reply, deadline, guard, _permit: permit };
        match request.body {
            ShardBody::OpenSession => self.propose(asked, Action::OpenSession, WriteLevel::Strong),
            ShardBody::CloseSession(session) => {
                self.propose(asked, Action::CloseSession(session), WriteLevel::Strong);
            }
            ShardBody::Write { request, level, ops } => {
                self.propose(asked, Action::Write { request, ops }, level);
            }
            ShardBody::Transact { request, transaction } => {
                let action = Action::Transact { request: Some(request), transaction };
                self.propose(asked, action, WriteLevel::Strong);
            }
            ShardBody::Catalog { request, command } => {
                self.propose(asked, Action::Catalog { request, command }, WriteLevel::Strong);
            }
            ShardBody::Lease { request, command } => {
                let action = Action::Lease { request: Some(request), command };
                self.propose(asked, action, WriteLevel::Strong);
            }
            ShardBody::Range { range, level } => self.read(asked, ReadQuery::Range(range), level),
            ShardBody::Look { transaction, level } => {
                self.read(asked, ReadQuery::Look(transaction), level);
            }
            ShardBody::Watch { watch, after, wait_ms } => self.watch(asked, watch, after, wait_ms),
            ShardBody::ShowLease { lease, keys } => {
                self.read(asked, ReadQuery::Lease { lease, keys }, ReadLevel::Strong);
            }
            ShardBody::ListLeases { after } => {
                self.read(asked, ReadQuery::Leases { after }, ReadLevel::Strong);
            }
            ShardBody::Auth { request, command } => {
                let action = Action::Auth { request: Some(request), command };
                self.propose(asked, action, WriteLevel::Strong);
            }
            ShardBody::ShowAuth(query) => {
                self.read(asked, ReadQuery::Accounts(query), ReadLevel::Strong);
            }
            ShardBody::Restore { request, command } => {
                let action = Action::Restore { request: Some(request), command };
                self.propose(asked, action, WriteLevel::Strong);
            }
            ShardBody::Compact { version } => self.compact(asked, version),
            ShardBody::Advance { version } => {
                self.propose(asked, Action::Advance { version }, WriteLevel::Strong);
            }
            ShardBody::Get { key, level, at, head_only } => {
                self.read(asked, ReadQuery::Get { key, at, head_only }, level);
            }
            ShardBody::List { prefix, after, limit, level, at, values } => {
                self.read(asked, ReadQuery::List { prefix, after, limit, at, values }, level);
            }
            ShardBody::Inspect => {}
        }
    }

    /// What can be judged before anything is done.
    fn admit(&mut self, request: &ShardRequest) -> Result<(), Fault> {
        match &self.phase {
            Phase::Asking { .. } | Phase::Opening(_) => {
                return Err(Fault::NotLeader { leader: None });
            }
            Phase::Stopped(cause) => return Err(Fault::Stopped(cause.clone())),
            Phase::Destroying => return Err(Fault::NoReplica(self.facts.shard)),
            Phase::Running(_) => {}
        }
        if self.facts.shard != CATALOG_SHARD && request.epoch < self.descriptor.epoch {
            return Err(Fault::StaleEpoch(self.descriptor.clone()));
        }
        match &request.body {
            ShardBody::Write { request, level, ops } => {
                self.admit_write(request.is_some(), *level, ops)
            }
            ShardBody::Transact { transaction, .. } => {
                transaction.check().map_err(|error| Fault::Invalid(error.to_string()))?;
                self.admit_changes(transaction.puts().next().is_some(), transaction.writes())
            }
            ShardBody::Look { transaction, .. } if transaction.writes() => {
                Err(Fault::Invalid("a transaction that changes keys goes by the log".to_owned()))
            }
            ShardBody::Look { transaction, .. } => {
                transaction.check().map_err(|error| Fault::Invalid(error.to_string()))
            }
            ShardBody::Watch { watch: Watch { keys, .. }, .. }
            | ShardBody::Range { range: Range { keys, .. }, .. } => {
                check_keys(keys).map_err(|error| Fault::Invalid(error.to_string()))
            }
            ShardBody::Restore { command, .. } => self.admit_restore(command),
            ShardBody::Lease { command: LeaseCommand::Expire(_), .. } => {
                Err(Fault::Invalid("only its leader sees that a lease is over".to_owned()))
            }
            ShardBody::OpenSession
            | ShardBody::CloseSession(_)
            | ShardBody::Catalog { .. }
            | ShardBody::Compact { .. }
            | ShardBody::Advance { .. }
            | ShardBody::Lease { .. }
            | ShardBody::ShowLease { .. }
            | ShardBody::ListLeases { .. }
            | ShardBody::Auth { .. }
            | ShardBody::ShowAuth(_)
            | ShardBody::Get { .. }
            | ShardBody::List { .. }
            | ShardBody::Inspect => Ok(()),
        }
    }

    /// Limits of a write: what apply must never have to judge.
    fn admit_write(
        &mut self,
        has_session: bool,
        level: WriteLevel,
        ops: &[Op],
    ) -> Result<(), Fault> {
        check_ops(ops)?;
        if level == WriteLevel::Strong && !has_session {
            return Err(Fault::Invalid("a strong write needs a session".to_owned()));
        }
        self.admit_changes(ops.iter().any(|op| matches!(op, Op::Put { .. })), true)
    }

    /// Limits of a step of a restore.
    fn admit_restore(&mut self, command: &RestoreCommand) -> Result<(), Fault> {
        let RestoreStep::Keys(_, items) = &command.step else { return Ok(()) };
        if let Some(item) = items.iter().find(|item| item.value.len() > VALUE_BYTES_MAX) {
            let text = format!("a value has {} bytes", item.value.len());
            return Err(Fault::Invalid(text));
        }
        self.admit_changes(true, true)
    }

    /// Room for what changes data.
    fn admit_changes(&mut self, puts: bool, writes: bool) -> Result<(), Fault> {
        // Whoever does not lead refuses anyway, and names who does.
        if !writes || !self.leads() {
            return Ok(());
        }
        if puts {
            self.admit_puts()?;
        }
        if self.half.budget().overlay_full() {
            return Err(Fault::Busy { retry_after_ms: RETRY_MS * 5 });
        }
        Ok(())
    }

    pub(super) fn leads(&self) -> bool {
        matches!(&self.phase, Phase::Running(group) if group.glance().leading)
    }

    /// Puts a command before the shard's log.
    fn propose(&mut self, asked: Asked, action: Action, level: WriteLevel) {
        self.propose_as(Waiting::Write(asked), action, level);
    }

    pub(super) fn propose_as(&mut self, waiting: Waiting, action: Action, level: WriteLevel) {
        let command = Command {
            time: self.world.tick_hybrid(),
            shard_time_step_ms: self.shard_time_step(),
            principal: waiting.principal(),
            action,
        };
        let command = command.encode();
        if command.len() > ENTRY_BYTES_MAX {
            let text = format!(
                "one request takes at most {ENTRY_BYTES_MAX} bytes with its keys, not {}",
                command.len()
            );
            return self.fail(waiting, Fault::Invalid(text));
        }
        if self.leads() && !self.half.may_propose() {
            return self.fail(waiting, Fault::Busy { retry_after_ms: RETRY_MS * 5 });
        }
        let ticket = self.calls.ticket();
        self.calls.waiting.insert(ticket, waiting);
        self.propose_in_round(ticket, command, level);
        self.wake();
    }

    /// Lets go of history, unless it is gone already: several nodes with tight
    /// disks may ask for the same. Also taken on a full disk, for it makes room.
    fn compact(&mut self, asked: Asked, version: Version) {
        let compacted = self.half.compacted();
        // Whoever is bound by accounts is judged by apply.
        if asked.guard.principal() == Principal::Trusted && self.leads() && version <= compacted {
            let now = self.half.now();
            let outcome = Outcome::Compacted { before: compacted, compacted, now };
            return self.answer(asked.reply, Ok(ShardResult::Outcome(outcome)));
        }
        self.propose(asked, Action::Compact { version }, WriteLevel::Strong);
    }

    /// Puts a command of this leader's own before the log.
    pub(super) fn propose_own(&mut self, action: Action) {
        self.propose_as(Waiting::Own, action, WriteLevel::Strong);
    }

    /// Shard time as this leader counts it now.
    pub(super) fn shard_time_ms(&self, half: &ReadHalf) -> u64 {
        let ahead = |last| self.world.clock.now().since(last).as_millis();
        let ahead_ms = self.calls.stepped.filter(|_| self.leads()).map_or(0, ahead);
        let ahead_ms = ahead_ms.min(SHARD_TIME_STEP_MS_MAX);
        half.reader.shard_time_ms() + u64::try_from(ahead_ms).unwrap_or(0)
    }

    /// Monotonic milliseconds since this leader last added to shard time.
    fn shard_time_step(&mut self) -> u32 {
        let now = self.world.clock.now();
        let Some(last) = self.calls.stepped else { return 0 };
        let step_ms = now.since(last).as_millis().min(SHARD_TIME_STEP_MS_MAX);
        if step_ms > 0 {
            self.calls.stepped = Some(now);
        }
        u32::try_from(step_ms).unwrap_or(0)
    }

    /// A proposal stands in our log.
    pub(super) fn proposed(&mut self, ticket: Ticket, term: Term, index: LogIndex) {
        self.rounds.proposed(index, self.world.clock.now());
        self.calls.proposed.insert(index, (term, ticket));
    }

    /// A proposal or read was not taken: not (or no longer) the leader.
    pub(super) fn dropped(&mut self, ticket: Ticket, leader: Option<cluster::ids::ReplicaId>) {
        let Some(waiting) = self.calls.waiting.remove(&ticket) else { return };
        let here = leader == Some(self.facts.replica);
        let fault = if here {
            Fault::Busy { retry_after_ms: RETRY_MS }
        } else {
            Fault::NotLeader { leader: leader.and_then(|leader| self.node_of(leader)) }
        };
        self.fail(waiting, fault);
    }

    /// A change of configuration was refused.
    pub(super) fn change_refused(&mut self, ticket: Ticket, cause: String) {
        if let Some(waiting) = self.calls.waiting.remove(&ticket) {
            self.fail(waiting, Fault::Invalid(cause));
        }
    }

    /// A weaker write level is reached.
    pub(super) fn held(&mut self, ticket: Ticket) {
        if let Some(Waiting::Write(asked)) = self.calls.waiting.remove(&ticket) {
            self.answer(asked.reply, Ok(ShardResult::Accepted));
        }
    }

    /// Entries took effect: answer who waited for them.
    pub(super) fn applied(&mut self, batch: AppliedBatch) {
        let AppliedBatch { index, term, repeated, expired, .. } = batch;
        self.tell_watchers(&batch);
        let restored = batch.outcomes.iter().any(|(.., done)| matches!(done, Outcome::Restored(_)));
        if restored {
            // It told no keys, but what they waited behind is compacted.
            self.wake_watchers();
        }
        if index > self.applied.0 {
            // A batch of before a snapshot may come after it.
            self.applied = (index, term);
        }
        self.world.reach(FailPoint::ApplyReply);
        self.report_configured(batch.configured);
        let (shard, replica) = (self.facts.shard, self.facts.replica);
        let report = Report::Applied { shard, replica, index, term, repeated, expired };
        self.world.probe.report(report);
        metrics::counter!(crate::metrics::APPLIED).increment(batch.outcomes.len() as u64);
        let leases = batch.outcomes.iter().any(|(_, _, done)| matches!(done, Outcome::Lease(_)));
        for (index, term, outcome) in batch.outcomes {
            if let Some((expected, ticket)) = self.calls.proposed.remove(&index) {
                self.settle(ticket, expected == term, outcome);
            }
        }
        self.settle_rest(batch.index);
        self.world.reach(FailPoint::ApplyReplied);
        if let Some(descriptor) = batch.descriptor {
            self.described(descriptor);
        }
        let later = self.calls.reads.split_off(&LogIndex(batch.index.0 + 1));
        for ticket in std::mem::replace(&mut self.calls.reads, later).into_values().flatten() {
            self.finish_read(ticket);
        }
        self.input(Input::Applied { index: batch.index });
        if leases || restored {
            self.watch_leases();
        }
        self.publish();
    }

    fn settle(&mut self, ticket: Ticket, ours: bool, outcome: Outcome) {
        match self.calls.waiting.remove(&ticket) {
            Some(waiting) if !ours => self.fail(waiting, Fault::Interrupted),
            Some(Waiting::Write(asked)) => {
                self.answer(asked.reply, Ok(ShardResult::Outcome(outcome)));
            }
            Some(Waiting::Close(asked, query)) => self.start_read(asked, query),
            Some(Waiting::Read(asked, _)) => self.refuse(asked.reply, Fault::Interrupted),
            Some(Waiting::Configure(reply)) => drop(reply.send(Ok(()))),
            Some(Waiting::Own) | None => {}
        }
    }

    /// Positions that held something else than the proposal that waits there,
    /// or a change of configuration, which has no outcome.
    fn settle_rest(&mut self, upto: LogIndex) {
        let later = self.calls.proposed.split_off(&LogIndex(upto.0 + 1));
        for (_, ticket) in std::mem::replace(&mut self.calls.proposed, later).into_values() {
            match self.calls.waiting.remove(&ticket) {
                Some(Waiting::Configure(reply)) => drop(reply.send(Ok(()))),
                Some(waiting) => self.fail(waiting, Fault::Interrupted),
                None => {}
            }
        }
    }

    /// Asks for a change of voters or learners.
    pub(super) fn configure(&mut self, change: ConfigurationChange, reply: ConfigureReply) {
        let ticket = self.calls.ticket();
        if !matches!(self.phase, Phase::Running(_)) {
            drop(reply.send(Err(Fault::NotLeader { leader: None })));
            return;
        }
        self.calls.waiting.insert(ticket, Waiting::Configure(reply));
        self.input(Input::Configure { ticket, change });
        self.wake();
    }

    /// Leadership ended: nobody here knows what becomes of what was proposed.
    pub(super) fn interrupt_all(&mut self) {
        self.rounds.end();
        self.calls.proposed.clear();
        self.calls.reads.clear();
        for waiting in std::mem::take(&mut self.calls.waiting).into_values() {
            self.fail(waiting, Fault::Interrupted);
        }
    }

    fn fail(&self, waiting: Waiting, fault: Fault) {
        match waiting {
            Waiting::Write(asked) => self.refuse(asked.reply, fault),
            // A read changes nothing: it may simply be asked again.
            Waiting::Close(asked, _) | Waiting::Read(asked, _) => self.refuse(
                asked.reply,
                if fault == Fault::Interrupted {
                    Fault::NotLeader { leader: self.leader_node() }
                } else {
                    fault
                },
            ),
            Waiting::Configure(reply) => drop(reply.send(Err(fault))),
            Waiting::Own => {}
        }
    }

    pub(super) fn refuse(&self, reply: oneshot::Sender<ShardAnswer>, fault: Fault) {
        let _ = reply.send(refused(self.world.hybrid.last(), fault));
    }

    fn answer(&self, reply: oneshot::Sender<ShardAnswer>, result: Result<ShardResult, Fault>) {
        let answer =
            ShardAnswer { clock: self.world.hybrid.last(), leader: self.leader_node(), result };
        let _ = reply.send(answer);
    }

    /// The node that leads, as far as this replica knows.
    pub(super) fn leader_node(&self) -> Option<cluster::ids::NodeId> {
        match &self.phase {
            Phase::Running(group) => group.glance().leader.and_then(|leader| self.node_of(leader)),
            Phase::Asking { .. } | Phase::Opening(_) | Phase::Stopped(_) | Phase::Destroying => {
                None
            }
        }
    }
}

/// Limits of keys, values and batches.
fn check_ops(ops: &[Op]) -> Result<(), Fault> {
    if ops.is_empty() || ops.len() > BATCH_OPS_MAX {
        return Err(Fault::Invalid(format!(
            "a batch takes 1 to {BATCH_OPS_MAX} operations, not {}",
            ops.len()
        )));
    }
    let mut bytes = 0;
    for op in ops {
        let key_bytes = op.key().len();
        if key_bytes == 0 || key_bytes > KEY_BYTES_MAX {
            return Err(Fault::Invalid(format!(
                "a key takes 1 to {KEY_BYTES_MAX} bytes, not {key_bytes}"
            )));
        }
        if let Op::Put { value, .. } = op {
            bytes += value.len();
        }
    }
    if bytes > VALUE_BYTES_MAX {
        return Err(Fault::Invalid(format!(
            "the values of one write take at most {VALUE_BYTES_MAX} bytes (4 MiB), not {bytes}"
        )));
    }
    Ok(())
}
