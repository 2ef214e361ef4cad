//! The ready loop: raft-rs's work turned into effects.
//!
//! Order within one turn: a leader's messages, the record for the disk, then
//! what may be applied. Everybody but a leader speaks when the record is
//! durable. Commit of a leader's entry therefore waits for its own disk like
//! for any other's: raft-rs counts the leader as persisted only through
//! `on_persist_ready`.

use raft::{
    RawNode, Ready,
    eraftpb::{self, Entry as RaftEntry, EntryType, MessageType},
};

use super::{
    configuration::{from_conf_state, to_conf_change},
    core::{Effect, Effects, Ticket},
    group::{Group, Proposal, UNAPPLIED_BYTES_MAX},
    snapshot::Fetch,
    storage::Log,
    wire,
};
use crate::{
    ids::{LogIndex, ReplicaId, Term},
    raft::types::{Entry, HardState, Message},
    request::WriteLevel,
};

/// Bytes of one read-back of old entries; one entry may exceed it.
const FETCH_BYTES_MAX: usize = 1 << 20;
/// Askers remembered per read-back; each is a follower at the same position.
const ASKERS_MAX: usize = 16;

fn hard_state_of(raw: &RawNode<Log>) -> HardState {
    let raft = &raw.raft;
    HardState {
        term: Term(raft.term),
        vote: ReplicaId(raft.vote),
        commit: LogIndex(raft.raft_log.committed),
    }
}

impl Group {
    pub(super) fn on_propose(
        &mut self,
        ticket: Ticket,
        command: Vec<u8>,
        level: WriteLevel,
        out: &mut Effects,
    ) {
        self.wake(true, out);
        let leader = self.leader();
        let full = self.raw.store().bytes() > self.config.memory_bytes_max + UNAPPLIED_BYTES_MAX;
        if !self.leads() || full || command.is_empty() {
            out.push(Effect::Dropped { ticket, leader });
            return;
        }
        let entry = RaftEntry { data: command.into(), ..RaftEntry::default() };
        self.proposals.push(Proposal { ticket, level, entry });
    }

    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects) {
        self.wake(true, out);
        if !self.leads() || !self.reads.push(ticket) {
            out.push(Effect::ReadFailed { ticket, leader: self.leader() });
        }
    }

    pub(super) fn on_ready(&mut self, out: &mut Effects) {
        loop {
            self.propose_waiting(out);
            self.reads.issue(&mut self.raw);
            self.try_install(out);
            self.finish_joint();
            self.ask_for_wanted(out);
            if !self.raw.has_ready() {
                break;
            }
            self.handle_ready(out);
        }
        self.answer_holds(out);
        self.settle_sleep(out);
    }

    /// Puts all waiting commands into the log as one step of raft-rs: one
    /// message per follower, however many they are.
    pub(super) fn propose_waiting(&mut self, out: &mut Effects) {
        if self.proposals.is_empty() {
            return;
        }
        let proposals = std::mem::take(&mut self.proposals);
        let mut message = eraftpb::Message { from: self.raw.raft.id, ..Default::default() };
        message.set_msg_type(MessageType::MsgPropose);
        let entries: Vec<_> = proposals.iter().map(|proposal| proposal.entry.clone()).collect();
        message.set_entries(entries.into());
        let first = self.raw.raft.raft_log.last_index() + 1;
        let term = Term(self.raw.raft.term);
        if !self.leads() || self.raw.raft.step(message).is_err() {
            let leader = self.leader();
            let dropped = |proposal: Proposal| Effect::Dropped { ticket: proposal.ticket, leader };
            out.extend(proposals.into_iter().map(dropped));
            return;
        }
        for (index, Proposal { ticket, level, .. }) in (first..).map(LogIndex).zip(proposals) {
            out.push(Effect::Proposed { ticket, term, index });
            match level {
                WriteLevel::Strong => {}
                WriteLevel::Memory => self.holds.wait(index, ticket),
                WriteLevel::Eventual => out.push(Effect::Held { ticket }),
            }
        }
    }

    pub(super) fn answer_holds(&mut self, out: &mut Effects) {
        if !self.holds.wanted() {
            return;
        }
        let prs = self.raw.raft.prs();
        let matched = |id: ReplicaId| LogIndex(prs.get(id.0).map_or(0, |seen| seen.matched));
        self.holds.answer(self.config.replica, &self.configuration, matched, out);
    }

    /// Turns what raft-rs asked its storage for into effects.
    fn ask_for_wanted(&mut self, out: &mut Effects) {
        for (low, high, context) in self.raw.mut_store().take_wanted_entries() {
            let from = LogIndex(low);
            let under_way = self.fetches.values_mut().find(|(first, _)| *first == from);
            if let Some((_, askers)) = under_way {
                if askers.len() < ASKERS_MAX {
                    askers.push(context);
                }
                continue;
            }
            self.fetches_made += 1;
            let id = self.fetches_made;
            self.fetches.insert(id, (from, vec![context]));
            let to = LogIndex(high);
            out.push(Effect::Fetch { id, from, to, bytes_max: FETCH_BYTES_MAX });
        }
        let term = Term(self.raw.raft.term);
        for to in self.raw.mut_store().take_wanted_snapshots() {
            if self.leads() {
                self.offers.want(ReplicaId(to), term, out);
            }
        }
    }

    pub(super) fn on_fetched(&mut self, id: u64, entries: Vec<Entry>, out: &mut Effects) {
        let Some((from, askers)) = self.fetches.remove(&id) else { return };
        let contiguous = (from.0..).zip(&entries).all(|(index, entry)| entry.index.0 == index);
        let entries: Result<Vec<_>, _> = entries.into_iter().map(wire::entry_to_raft).collect();
        let entries = match entries {
            Ok(entries) if contiguous => entries,
            Ok(_) | Err(_) => {
                let what = format!("the log gave back other entries than those from {from}");
                out.push(Effect::Broken { what });
                return;
            }
        };
        self.raw.mut_store().set_fetched(entries);
        for asker in askers {
            self.raw.on_entries_fetched(asker);
        }
        self.raw.mut_store().set_fetched(Vec::new());
    }

    fn handle_ready(&mut self, out: &mut Effects) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        let hard_state = hard_state_of(&self.raw);
        self.say(ready.take_messages(), out);
        let after_record = ready.take_persisted_messages();
        self.reads.answer(ready.take_read_states(), out);
        let committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        let install = self.take_snapshot(&ready, hard_state, out);
        let must_write = ready.must_sync() && (install.is_none() || !entries.is_empty());
        if must_write {
            self.write(number, hard_state, &entries, out);
        }
        self.raw.mut_store().append(entries);
        self.raw.advance_append_async(ready);
        if must_write || install.is_some() {
            let now = (self.now, self.tick);
            self.persists.push(number, after_record, install, now);
        } else if let Some(messages) = self.persists.join(number, after_record) {
            self.raw.on_persist_ready(number);
            self.say(messages, out);
        }
        self.apply(committed, out);
    }

    fn write(
        &mut self,
        number: u64,
        hard_state: HardState,
        entries: &[RaftEntry],
        out: &mut Effects,
    ) {
        let moved = hard_state != self.saved;
        self.saved = hard_state;
        match wire::entries_from_raft(entries) {
            Ok(entries) => {
                let hard_state = moved.then_some(hard_state);
                out.push(Effect::Persist { number, hard_state, entries });
            }
            Err(what) => out.push(Effect::Broken { what }),
        }
    }

    /// Hands an unstable snapshot of raft-rs to the disk.
    fn take_snapshot(
        &mut self,
        ready: &Ready,
        hard_state: HardState,
        out: &mut Effects,
    ) -> Option<u64> {
        if ready.snapshot().is_empty() {
            return None;
        }
        let metadata = ready.snapshot().get_metadata();
        let (index, term) = (LogIndex(metadata.index), Term(metadata.term));
        let Fetch::Installing(from, offer, epoch) = &self.fetch else {
            let what = format!("a snapshot at {index} came from nowhere");
            out.push(Effect::Broken { what });
            return None;
        };
        self.configuration = from_conf_state(metadata.get_conf_state());
        self.epoch = *epoch;
        self.saved = hard_state;
        out.push(Effect::InstallSnapshot {
            number: ready.number(),
            from: *from,
            id: offer.id,
            hard_state,
            index,
            term,
            configuration: self.configuration.clone(),
        });
        self.raw.mut_store().install(index.0, term.0);
        Some(index.0)
    }

    /// Hands committed entries out, switching the configuration where they say.
    fn apply(&mut self, committed: Vec<RaftEntry>, out: &mut Effects) {
        let mut entries = Vec::with_capacity(committed.len());
        for raw in committed {
            match wire::entry_from_raft(&raw) {
                Ok(entry) => entries.push(entry),
                Err(what) => return out.push(Effect::Broken { what }),
            }
            if raw.get_entry_type() == EntryType::EntryConfChangeV2 {
                out.push(Effect::Apply { entries: std::mem::take(&mut entries) });
                self.apply_change(&raw, out);
            }
        }
        if !entries.is_empty() {
            out.push(Effect::Apply { entries });
        }
    }

    fn apply_change(&mut self, raw: &RaftEntry, out: &mut Effects) {
        let change = match wire::change_of(raw) {
            Ok(change) => change,
            Err(what) => return out.push(Effect::Broken { what }),
        };
        // One that does not fit changes nothing, here as in the state machine.
        let Ok(next) = self.configuration.after(&change) else { return };
        let index = LogIndex(raw.index);
        match self.raw.apply_conf_change(&to_conf_change(&change)) {
            Ok(state) if from_conf_state(&state) == next => {}
            other => {
                let what = format!("configuration at {index}: {next:?} here, {other:?} in raft");
                return out.push(Effect::Broken { what });
            }
        }
        self.configuration = next.clone();
        self.epoch = self.epoch.max(change.epoch);
        self.heard.retain(|id, _| next.contains(*id));
        out.push(Effect::Configured { index, configuration: next, epoch: self.epoch });
        if self.leads() && !self.configuration.is_voter(self.config.replica) {
            // raft-rs would go on leading, and panic at the next commit.
            self.step_down();
        }
    }

    pub(super) fn on_persisted(&mut self, number: u64, out: &mut Effects) {
        let durable = match self.persists.done(number) {
            Ok(durable) => durable,
            Err(what) => return out.push(Effect::Broken { what }),
        };
        if durable.covers != 0 {
            self.raw.on_persist_ready(durable.covers);
        }
        if let Some(index) = durable.installed {
            self.installed(LogIndex(index), out);
        }
        self.say(durable.messages, out);
    }

    pub(super) fn on_applied(&mut self, index: LogIndex) {
        let log = &self.raw.raft.raft_log;
        let known = log.committed.min(log.persisted);
        if index.0 > log.applied && index.0 <= known {
            self.raw.advance_apply_to(index.0);
            self.forget();
        }
    }

    pub(super) fn on_trimmed(&mut self, index: LogIndex) {
        let applied = self.raw.raft.raft_log.applied;
        self.raw.mut_store().trim(index.0.min(applied));
    }

    /// Sends messages of raft-rs in our own form.
    pub(super) fn say(&mut self, messages: Vec<eraftpb::Message>, out: &mut Effects) {
        for message in messages {
            let to = ReplicaId(message.to);
            if message.get_msg_type() == MessageType::MsgSnapshot {
                if let Some(offer) = self.offers.offer(to, self.tick) {
                    out.push(Effect::Send { to, message: Message::SnapshotOffer(offer) });
                }
                continue;
            }
            match wire::message_from_raft(&message) {
                Ok(Some(mut ours)) => {
                    if self.holds.wanted() && !ours.entries.is_empty() {
                        ours.context = wire::HELD_WANTED.to_vec();
                    }
                    out.push(Effect::Send { to, message: Message::Raft(ours) });
                }
                Ok(None) => {}
                Err(what) => out.push(Effect::Broken { what }),
            }
        }
    }
}
