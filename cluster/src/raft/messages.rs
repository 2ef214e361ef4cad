//! What peers say, judged and passed on.

use raft::eraftpb::{self, MessageType};

use super::{
    core::{Effect, Effects},
    group::{Group, UNAPPLIED_BYTES_MAX},
    snapshot::{self, Fetch},
    validate::{self, PeerFault},
    wire,
};
use crate::{
    ids::{Epoch, LogIndex, ReplicaId, Term},
    raft::types::{Configuration, Message, RaftMessage, RaftMessageKind, SnapshotOffer},
};

impl Group {
    pub(super) fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Effects) {
        if let Err(fault) = validate::check_sender(self.raw.raft.id, from) {
            return out.push(Effect::PeerFault { from, fault });
        }
        if self.configuration.contains(from) {
            self.heard.insert(from, self.tick);
        }
        match message {
            Message::Raft(message) => {
                if let Err(fault) = self.on_raft(from, message, out) {
                    out.push(Effect::PeerFault { from, fault });
                }
            }
            Message::Held { term, index } => self.on_held(from, term, index, out),
            Message::Hibernate { term, index } => self.on_hibernate(from, term, index, out),
            Message::Hibernating { term, index } => {
                if self.leads() && term.0 == self.raw.raft.term {
                    self.sleep.agree(from, index);
                }
            }
            Message::Awake { .. } => self.wake(true, out),
            Message::SnapshotOffer(offer) => self.on_offer(from, offer, out),
            Message::SnapshotWanted { term } => self.on_snapshot_wanted(from, term, out),
            Message::SnapshotResult { id, installed } => {
                self.on_snapshot_result(from, id, installed, out);
            }
        }
    }

    fn on_raft(
        &mut self,
        from: ReplicaId,
        message: RaftMessage,
        out: &mut Effects,
    ) -> Result<(), PeerFault> {
        validate::check(&self.raw.raft, from, &message)?;
        self.wake_for(&message, out);
        if self.must_not_step(from, &message, out) {
            return Ok(());
        }
        let asked = message.kind == RaftMessageKind::Append && message.context == wire::HELD_WANTED;
        let term = message.term;
        let raw = wire::message_to_raft(from, self.config.replica, message)?;
        // Errors say that the sender is not known here, or was dropped: both are
        // ordinary while configurations move.
        let _ = self.raw.step(raw);
        if asked {
            self.say_held(from, term, out);
        }
        Ok(())
    }

    fn wake_for(&mut self, message: &RaftMessage, out: &mut Effects) {
        match message.kind {
            // The answer to the heartbeat before the question may come after
            // the agreement.
            RaftMessageKind::HeartbeatResponse => {}
            RaftMessageKind::AppendResponse if !message.reject => {}
            // Who appends is awake.
            RaftMessageKind::Append => self.wake(false, out),
            // A late heartbeat can come from a leader that sleeps by now.
            RaftMessageKind::Heartbeat
            | RaftMessageKind::AppendResponse
            | RaftMessageKind::RequestVote
            | RaftMessageKind::RequestVoteResponse
            | RaftMessageKind::TransferLeader
            | RaftMessageKind::TimeoutNow
            | RaftMessageKind::RequestPreVote
            | RaftMessageKind::RequestPreVoteResponse => self.wake(true, out),
        }
    }

    /// Messages that are fine but come at a moment when raft-rs cannot take
    /// them. All are repeated by their senders.
    fn must_not_step(&mut self, from: ReplicaId, message: &RaftMessage, out: &mut Effects) -> bool {
        match message.kind {
            RaftMessageKind::Append if self.configuration.is_empty() => {
                let term = message.term;
                out.push(Effect::Send { to: from, message: Message::SnapshotWanted { term } });
                true
            }
            // A state machine that lags stops the intake, not the heartbeats.
            RaftMessageKind::Append => {
                let bytes_max = self.config.memory_bytes_max + UNAPPLIED_BYTES_MAX;
                !message.entries.is_empty() && self.raw.store().bytes() > bytes_max
            }
            RaftMessageKind::TimeoutNow => !self.may_campaign(),
            RaftMessageKind::AppendResponse => {
                self.note_configured(from, message);
                false
            }
            RaftMessageKind::RequestVote
            | RaftMessageKind::RequestVoteResponse
            | RaftMessageKind::Heartbeat
            | RaftMessageKind::HeartbeatResponse
            | RaftMessageKind::TransferLeader
            | RaftMessageKind::RequestPreVote
            | RaftMessageKind::RequestPreVoteResponse => false,
        }
    }

    /// A member that acknowledges entries has a configuration; raft-rs would
    /// send it a second snapshot.
    fn note_configured(&mut self, from: ReplicaId, message: &RaftMessage) {
        if message.reject || message.index.0 == 0 || message.term.0 != self.raw.raft.term {
            return;
        }
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(from.0) {
            progress.pending_request_snapshot = 0;
        }
    }

    /// After an append: tells the leader what now stands in memory here. Only
    /// the acknowledgement raft-rs just wrote proves that the append fitted.
    fn say_held(&self, leader: ReplicaId, term: Term, out: &mut Effects) {
        let Some(answer) = self.raw.raft.msgs.last() else { return };
        let fitted = answer.get_msg_type() == MessageType::MsgAppendResponse
            && !answer.reject
            && answer.to == leader.0
            && self.raw.raft.term == term.0;
        if fitted {
            let message = Message::Held { term, index: LogIndex(answer.index) };
            out.push(Effect::Send { to: leader, message });
        }
    }

    fn on_held(&mut self, from: ReplicaId, term: Term, index: LogIndex, out: &mut Effects) {
        if !self.leads() || term.0 != self.raw.raft.term || !self.configuration.contains(from) {
            return;
        }
        let last = LogIndex(self.raw.raft.raft_log.last_index());
        if index > last {
            let fault = PeerFault::AckBeyondLog { index, last };
            return out.push(Effect::PeerFault { from, fault });
        }
        self.holds.note(from, index);
        self.answer_holds(out);
    }

    // Snapshots, leader's side.

    /// A member without a configuration: raft-rs's own request for a snapshot.
    fn on_snapshot_wanted(&mut self, from: ReplicaId, term: Term, out: &mut Effects) {
        self.wake(true, out);
        if !self.leads() || term.0 != self.raw.raft.term {
            return;
        }
        let mut request = eraftpb::Message {
            from: from.0,
            to: self.raw.raft.id,
            term: term.0,
            reject: true,
            // Any committed position will do.
            request_snapshot: 1,
            ..eraftpb::Message::default()
        };
        request.set_msg_type(MessageType::MsgAppendResponse);
        let _ = self.raw.step(request);
    }

    pub(super) fn on_pinned(
        &mut self,
        id: u64,
        index: LogIndex,
        term: Term,
        configuration: Configuration,
        out: &mut Effects,
    ) {
        let offer = SnapshotOffer {
            id,
            term: Term(self.raw.raft.term),
            index,
            index_term: term,
            configuration,
        };
        let usable = offer.configuration.check().is_ok() && index.0 > 0 && self.leads();
        let Some(to) = self.offers.pinned(id, offer.clone(), self.tick) else {
            return out.push(Effect::UnpinSnapshot { id });
        };
        if !usable || !offer.configuration.contains(to) {
            // Pinned before the change that adds the follower was applied.
            self.offers.end(id);
            return out.push(Effect::UnpinSnapshot { id });
        }
        let snapshot = snapshot::to_raft(index, term, &offer.configuration);
        self.raw.mut_store().set_snapshot(to.0, Some(snapshot));
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(to.0) {
            progress.resume();
            self.raw.raft.send_append(to.0);
        }
    }

    fn on_snapshot_result(&mut self, from: ReplicaId, id: u64, installed: bool, out: &mut Effects) {
        self.wake(true, out);
        if self.offers.offered().contains(&(from, id)) {
            self.end_offer(from, id, installed, out);
        }
    }

    /// Ends an offer: the pin goes, and raft-rs is told, always.
    pub(super) fn end_offer(&mut self, to: ReplicaId, id: u64, ok: bool, out: &mut Effects) {
        self.offers.end(id);
        self.raw.mut_store().set_snapshot(to.0, None);
        let status = if ok { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(to.0, status);
        out.push(Effect::UnpinSnapshot { id });
    }

    // Snapshots, follower's side.

    fn on_offer(&mut self, from: ReplicaId, offer: SnapshotOffer, out: &mut Effects) {
        self.wake(false, out);
        if offer.term.0 < self.raw.raft.term || !self.fetch.is_idle() || self.leads() {
            return; // repeated by a leader that still means it.
        }
        let own = self.config.replica;
        let fault = match offer.configuration.check() {
            Err(fault) => Some(fault.to_string()),
            Ok(()) if !offer.configuration.contains(own) => {
                Some(format!("{own} has no part in it"))
            }
            Ok(()) if offer.index_term > offer.term => Some("its term is yet to come".to_owned()),
            Ok(()) => None,
        };
        if let Some(cause) = fault {
            return out.push(Effect::PeerFault { from, fault: PeerFault::Offer(cause) });
        }
        if offer.index.0 <= self.raw.raft.raft_log.committed {
            let message = Message::SnapshotResult { id: offer.id, installed: true };
            return out.push(Effect::Send { to: from, message });
        }
        self.fetch = Fetch::Fetching(from, offer.clone());
        out.push(Effect::FetchSnapshot { from, offer });
    }

    pub(super) fn on_snapshot_fetched(
        &mut self,
        from: ReplicaId,
        id: u64,
        epoch: Epoch,
        out: &mut Effects,
    ) {
        if !self.fetch.fetched(from, id, epoch) {
            out.push(Effect::DiscardSnapshot { from, id });
        }
    }

    pub(super) fn on_snapshot_failed(&mut self, from: ReplicaId, id: u64, out: &mut Effects) {
        if self.fetch.failed(from, id) {
            let message = Message::SnapshotResult { id, installed: false };
            out.push(Effect::Send { to: from, message });
        }
    }

    /// Steps the snapshot message, now that its data is here. It speaks in the
    /// name of the present leader: whoever offered it, it is committed state.
    pub(super) fn try_install(&mut self, out: &mut Effects) {
        let Fetch::Fetched(..) = &self.fetch else { return };
        let leader = self.raw.raft.leader_id;
        let following = self.raw.raft.state == raft::StateRole::Follower && leader != 0;
        if !(following || self.leads()) {
            return; // an election is on; wait for its winner.
        }
        let Fetch::Fetched(from, offer, epoch) = std::mem::take(&mut self.fetch) else { return };
        let id = offer.id;
        if following && offer.index.0 > self.raw.raft.raft_log.committed {
            let mut message = eraftpb::Message {
                from: leader,
                to: self.config.replica.0,
                term: self.raw.raft.term,
                ..eraftpb::Message::default()
            };
            message.set_msg_type(MessageType::MsgSnapshot);
            message.set_snapshot(snapshot::to_raft(
                offer.index,
                offer.index_term,
                &offer.configuration,
            ));
            let _ = self.raw.step(message);
            if self.raw.snap().is_some() {
                self.fetch = Fetch::Installing(from, offer, epoch);
                return;
            }
        }
        // The log caught up meanwhile: nothing is lost but the copy.
        out.push(Effect::DiscardSnapshot { from, id });
        let message = Message::SnapshotResult { id, installed: true };
        out.push(Effect::Send { to: from, message });
    }

    /// The record that makes the fetched store ours is durable.
    pub(super) fn installed(&mut self, index: LogIndex, out: &mut Effects) {
        self.raw.advance_apply_to(index.0);
        self.heard.retain(|id, _| self.configuration.contains(*id));
        if let Fetch::Installing(from, offer, _) = std::mem::take(&mut self.fetch) {
            let (configuration, epoch) = (self.configuration.clone(), self.epoch);
            out.push(Effect::Configured { index, configuration, epoch });
            let message = Message::SnapshotResult { id: offer.id, installed: true };
            out.push(Effect::Send { to: from, message });
        }
    }
}
