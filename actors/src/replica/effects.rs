//! Does what the Raft core asked, in the order it asked.

use cluster::{
    catalog::record::Loss,
    ids::{Epoch, LogIndex, NodeId, ReplicaId, Term},
    ports::log::{LogError, LogRecord},
    raft::{
        Effect, Input,
        types::{Addressed, Configuration, ConfigurationStep, Entry, Message, Payload},
    },
    shard::descriptor::ShardDescriptor,
};

use super::{
    halt::Halt,
    journal::Written,
    messages::{ReplicaMessage, ReplicaTimer},
    state::{Phase, ReplicaState},
};
use crate::{failpoint::FailPoint, probe::Report};

/// Wait before a record is given again that the log had no room for.
const LOG_RETRY: std::time::Duration = std::time::Duration::from_millis(50);

/// Room kept for effects between two runs: more than one run of a busy leader
/// asks for, 10 KiB.
const SPENT_EFFECTS_MAX: usize = 64;

/// Messages by node: a handful of peers.
type Outgoing = Vec<(NodeId, Vec<Addressed>)>;

impl ReplicaState {
    /// Runs all effects collected so far.
    pub(super) fn run_effects(&mut self) {
        let mut outgoing: Outgoing = Vec::new();
        let room = std::mem::take(&mut self.spent_effects);
        let mut effects = std::mem::replace(&mut self.effects, room);
        for effect in effects.drain(..) {
            // After a broken invariant nothing may be written or said.
            let Phase::Running(_) = self.phase else { return };
            if let Effect::Send { to, message } = effect {
                self.address(to, message, &mut outgoing);
            } else {
                self.run_effect(effect);
            }
        }
        for (node, messages) in outgoing {
            self.outbox.send(node, messages);
        }
        effects.shrink_to(SPENT_EFFECTS_MAX);
        self.spent_effects = effects;
    }

    fn address(&self, to: ReplicaId, message: Message, outgoing: &mut Outgoing) {
        // A replica whose node is not known (yet) is like one that is down.
        let Some(node) = self.node_of(to) else { return };
        let (shard, from) = (self.facts.shard, self.facts.replica);
        let addressed = Addressed { shard, from, to, message };
        match outgoing.iter_mut().find(|(peer, _)| *peer == node) {
            Some((_, messages)) => messages.push(addressed),
            None => outgoing.push((node, vec![addressed])),
        }
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            // Sent in bulk by the caller; told to the apply half by its entry.
            Effect::Send { .. } => {}
            Effect::Configured { configuration, .. } => {
                let joint = configuration.is_joint();
                let point = if joint { FailPoint::ChangeJoint } else { FailPoint::ChangeSettled };
                self.world.reach(point);
            }
            Effect::Persist { number, hard_state, entries } => {
                self.learn_nodes(&entries);
                if hard_state.is_some() {
                    self.world.reach(FailPoint::VoteAsked);
                }
                self.journal.push_step(number, hard_state, entries);
            }
            Effect::Apply { entries } => {
                let last = entries.last().map_or(LogIndex(0), |last| last.index);
                self.rounds.committed(last, self.world.clock.now());
                self.half.apply(entries);
            }
            Effect::Proposed { ticket, term, index } => self.proposed(ticket, term, index),
            Effect::Dropped { ticket, leader } | Effect::ReadFailed { ticket, leader } => {
                self.dropped(ticket, leader);
            }
            Effect::Refused { ticket, why } => self.change_refused(ticket, why.to_string()),
            Effect::Held { ticket } => self.held(ticket),
            Effect::ReadReady { ticket, index } => self.read_ready(ticket, index),
            Effect::Fetch { id, from, to, bytes_max } => self.fetch(id, (from, to), bytes_max),
            Effect::PinSnapshot { id, to } => self.pin_snapshot(id, to),
            Effect::UnpinSnapshot { id } => self.snapshots.unpin(id),
            Effect::FetchSnapshot { from, offer } => self.fetch_snapshot(from, &offer),
            Effect::DiscardSnapshot { from: _, id } => self.discard_snapshot(id),
            Effect::InstallSnapshot { number, id, hard_state, index, term, .. } => {
                self.install_snapshot(number, id, (index, term), hard_state);
            }
            Effect::RoleChanged { leading, term, .. } => self.role_changed(leading, term),
            Effect::Hibernated => self.slept(true),
            Effect::Woke => self.slept(false),
            Effect::PeerFault { from, fault } => {
                tracing::warn!(shard = %self.facts.shard, %from, %fault, "a peer broke the protocol");
            }
            Effect::Broken { what } => self.stop_for_good(what),
        }
    }

    fn role_changed(&mut self, leading: bool, term: Term) {
        let (shard, replica) = (self.facts.shard, self.facts.replica);
        if leading {
            metrics::counter!(crate::metrics::ELECTIONS).increment(1);
            self.calls.begin_leading(self.world.clock.now());
            self.watch_leases();
            self.world.probe.report(Report::Elected { shard, replica, term });
        } else {
            self.interrupt_all();
        }
        self.publish();
    }

    fn slept(&mut self, asleep: bool) {
        let replica = self.facts.replica;
        self.world.probe.report(Report::Hibernating { replica, asleep });
        self.publish();
        self.wake();
    }

    /// Gives the log the next record, if none is in flight.
    pub(super) fn append(&mut self) {
        let Some(record) = self.journal.next() else { return };
        let (myself, queue) = (self.myself.clone(), self.queue.clone());
        let done = move |result| {
            queue.cast(&myself, ReplicaMessage::LogWritten(result));
        };
        self.world.reach(FailPoint::LogAsked);
        self.world.log.append(self.facts.replica, record, Box::new(done));
        self.world.reach(FailPoint::LogHanded);
    }

    /// The record in flight is durable, or was not taken.
    pub(super) fn log_written(&mut self, result: Result<(), LogError>) {
        match result {
            Ok(()) => {
                self.world.reach(FailPoint::LogDurable);
                if self.journal.in_flight_votes() {
                    self.world.reach(FailPoint::VoteDurable);
                }
                let written = self.journal.done();
                self.append();
                self.written(written);
            }
            Err(LogError::Busy | LogError::Full(_)) => {
                // The core sees its record wait and, if this replica leads,
                // gives leadership away in time.
                if self.journal.again() {
                    let alarm = || ReplicaMessage::Timer(ReplicaTimer::RetryLog);
                    self.myself.send_after(LOG_RETRY, alarm);
                }
            }
            // The disk is fenced for good: the process ends and recovers.
            Err(LogError::Fenced(cause)) => {
                self.world.probe.report(Report::DiskFenced { cause });
            }
            // A replica that was never born has no end to write.
            Err(LogError::Refused { .. }) if matches!(self.phase, Phase::Destroying) => {
                self.destroyed();
            }
            // The log does not give birth to what it may have forgotten.
            Err(error @ LogError::Refused { .. }) if matches!(self.phase, Phase::Opening(None)) => {
                self.halt(Halt::lost(Loss::Forgotten, error.to_string()));
            }
            Err(
                error @ (LogError::Refused { .. }
                | LogError::Missing { .. }
                | LogError::Damaged { .. }),
            ) => self.halt(error.into()),
        }
    }

    fn written(&mut self, written: Option<Written>) {
        match written {
            Some(Written::Steps(number)) => self.input(Input::Persisted { number }),
            Some(Written::Born) => self.born_in_log(),
            Some(Written::Installed(number)) => self.snapshot_installed(number),
            Some(Written::Destroyed) => self.destroyed(),
            Some(Written::Own) | None => {}
        }
    }

    /// Gives a record again that the log had no room for.
    pub(super) fn retry_log(&mut self) {
        self.journal.rested();
        self.append();
    }

    /// Asks the log for older entries, for a follower that lags.
    fn fetch(&self, id: u64, (from, to): (LogIndex, LogIndex), bytes_max: usize) {
        let myself = self.myself.clone();
        let done = move |result| {
            let _ = myself.cast(ReplicaMessage::EntriesFetched { id, result });
        };
        self.world.log.read(self.facts.replica, from, to, bytes_max, Box::new(done));
    }

    /// Older entries are here.
    pub(super) fn entries_fetched(&mut self, id: u64, result: Result<Vec<Entry>, LogError>) {
        match result {
            Ok(entries) => self.input(Input::Fetched { id, entries }),
            Err(error) => {
                tracing::warn!(shard = %self.facts.shard, %error, "entries could not be fetched");
                self.input(Input::FetchFailed { id });
                let halt = Halt::from(error);
                if halt.loss.is_some() {
                    self.halt(halt);
                }
            }
        }
    }

    /// Learns where replicas lie from changes of configuration on their way
    /// into the log: a learner must be reached before its entry is applied.
    fn learn_nodes(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Payload::Configuration(change) = &entry.payload else { continue };
            self.world.reach(FailPoint::ChangeLogged);
            for step in &change.steps {
                match step {
                    ConfigurationStep::Voter(replica, node)
                    | ConfigurationStep::Learner(replica, node) => {
                        self.learn_node(*replica, *node);
                    }
                    ConfigurationStep::Remove(_) => {}
                }
            }
        }
    }

    /// A new descriptor took effect.
    pub(super) fn described(&mut self, descriptor: ShardDescriptor) {
        self.describe(descriptor);
    }

    pub(super) fn report_configured(&self, configured: Vec<(LogIndex, Epoch, Configuration)>) {
        let (shard, replica) = (self.facts.shard, self.facts.replica);
        for (index, epoch, configuration) in configured {
            let report = Report::Configured { shard, replica, index, epoch, configuration };
            self.world.probe.report(report);
        }
    }

    /// The pacer says it is time to write the overlay to the store.
    pub(super) fn flush(&mut self, pressed: bool) {
        if matches!(self.phase, Phase::Running(_)) {
            if pressed {
                self.trim(true);
            }
            self.half.flush();
        }
    }

    /// The pacer says it is time to sweep the history. What is pinned stays; a
    /// state that is pinned later has nothing below what is shown now.
    pub(super) fn sweep(&mut self) {
        if matches!(self.phase, Phase::Running(_)) {
            self.half.sweep(self.snapshots.sweepable().min(self.half.floor()));
        }
    }

    /// The store proves a position: the log may forget what nobody needs.
    pub(super) fn flushed(&mut self, result: Result<(LogIndex, Term), Halt>) {
        match result {
            Ok(proven) => {
                self.world.reach(FailPoint::FlushProven);
                self.proven = self.proven.max(proven);
                self.trim(false);
            }
            Err(halt) if halt.loss == Some(Loss::Store) => self.halt(halt),
            Err(Halt { cause, .. }) => {
                tracing::error!(shard = %self.facts.shard, %cause, "a flush failed; the log keeps its entries");
            }
        }
    }

    /// Lets the log forget what the store proves, but for what live followers
    /// and offered snapshots still need, unless the log is over its budget.
    fn trim(&mut self, pressed: bool) {
        let Phase::Running(group) = &self.phase else { return };
        let (proven, proven_term) = self.proven;
        let needed = LogIndex(group.needed_from().0.saturating_sub(1));
        let index = if pressed { proven } else { proven.min(needed) };
        if index <= self.trimmed {
            return;
        }
        let term = if index == proven { Some(proven_term) } else { group.term_of(index) };
        let Some(term) = term else { return };
        self.world.reach(FailPoint::TrimAsked);
        self.trimmed = index;
        self.journal.push_trim(LogRecord::Trimmed { index, term });
        self.input(Input::Trimmed { index });
        self.append();
    }

    /// Gives leadership to another replica.
    pub(super) fn transfer_leader(&mut self, to: Option<ReplicaId>) {
        let (shard, replica) = (self.facts.shard, self.facts.replica);
        if self.leads() {
            self.world.probe.report(Report::LeadershipOffered { shard, replica });
        }
        self.input(Input::Wake);
        self.input(Input::TransferLeader { to });
        self.wake();
    }

    /// Ends this replica and its data: the catalog no longer wants it.
    pub(super) fn destroy(&mut self) {
        match &mut self.phase {
            Phase::Destroying => {}
            // Where its data lies is known in a moment.
            Phase::Asking { doomed } => *doomed = true,
            Phase::Opening(_) | Phase::Running(_) | Phase::Stopped(_) => self.end(),
        }
    }

    pub(super) fn end(&mut self) {
        self.interrupt_all();
        self.phase = Phase::Destroying;
        self.effects.clear();
        self.journal.abandon();
        self.let_go();
        self.publish();
        let myself = self.myself.clone();
        self.half.close(move || {
            let _ = myself.cast(ReplicaMessage::Closed);
        });
    }

    /// Machine and store are let go of: write the end to the log.
    pub(super) fn closed(&mut self) {
        if matches!(self.phase, Phase::Destroying) {
            self.world.reach(FailPoint::DestroyClosed);
            self.journal.push(Written::Destroyed, LogRecord::Destroyed);
            self.append();
        }
    }

    /// The end is durable: the data may go, and so may this actor. A damaged
    /// store is set aside instead: somebody may want to look at it.
    pub(super) fn destroyed(&mut self) {
        self.world.reach(FailPoint::DestroyLogged);
        self.phase = Phase::Destroying;
        let damaged = matches!(self.loss, Some(Loss::Store | Loss::Device));
        let mut stores = self.snapshots.all_stores();
        stores.extend(Some(self.store).filter(|store| store.0 != 0));
        let (world, myself) = (self.world.clone(), self.myself.clone());
        self.world.workers.in_order(
            self.facts.replica,
            Box::new(move || {
                for store in stores {
                    let engine = &world.engine;
                    let gone =
                        if damaged { engine.quarantine(store) } else { engine.destroy(store) };
                    if let Err(error) = gone {
                        // No record names it any more: the next start quarantines it.
                        tracing::warn!(%store, %error, "a store could not be put away");
                    }
                }
                world.reach(FailPoint::DestroyDone);
                myself.stop(None);
            }),
        );
    }
}
