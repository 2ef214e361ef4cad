//! Our forms of entries and messages to raft-rs's and back.
//!
//! Only kinds with a number in [`RaftMessageKind`] travel, so a peer cannot
//! make this replica propose, campaign or answer a read for it. A change of
//! configuration travels in our form: raft-rs finds its protobuf in `data`,
//! rebuilt here, and we find ours in `context`.
//!
//! Broken input is a [`PeerFault`](super::PeerFault), never a panic; what
//! depends on the receiver's state is judged in `validate.rs`.

use bytes::Bytes;
use raft::eraftpb::{self, EntryType, MessageType};

use super::{configuration::to_conf_change_bytes, validate::PeerFault};
use crate::{
    formats,
    ids::{LogIndex, ReplicaId, Term},
    raft::types::{ConfigurationChange, Entry, Payload, RaftMessage, RaftMessageKind},
};

/// Set in the context of an append whose leader wants to hear `Held`.
pub(super) const HELD_WANTED: &[u8] = &[1];

pub(super) fn entry_to_raft(entry: Entry) -> Result<eraftpb::Entry, PeerFault> {
    let mut raw =
        eraftpb::Entry { index: entry.index.0, term: entry.term.0, ..eraftpb::Entry::default() };
    match entry.payload {
        Payload::Empty => {}
        Payload::Command(command) if command.is_empty() => {
            return Err(PeerFault::EmptyCommand { index: entry.index });
        }
        Payload::Command(command) => raw.data = command.into(),
        Payload::Configuration(change) => {
            raw.set_entry_type(EntryType::EntryConfChangeV2);
            raw.data = to_conf_change_bytes(&change).into();
            raw.context = formats::to_bytes(&change).into();
        }
    }
    Ok(raw)
}

/// The change inside an entry of raft-rs.
pub(super) fn change_of(entry: &eraftpb::Entry) -> Result<ConfigurationChange, String> {
    formats::from_bytes(&entry.context).map_err(|error| error.to_string())
}

pub(super) fn entry_from_raft(entry: &eraftpb::Entry) -> Result<Entry, String> {
    let payload = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Payload::Empty,
        EntryType::EntryNormal => Payload::Command(entry.data.to_vec()),
        EntryType::EntryConfChangeV2 => Payload::Configuration(change_of(entry)?),
        EntryType::EntryConfChange => {
            return Err(format!("entry {} is a change of the old kind", entry.index));
        }
    };
    Ok(Entry { index: LogIndex(entry.index), term: Term(entry.term), payload })
}

pub(super) fn entries_from_raft(entries: &[eraftpb::Entry]) -> Result<Vec<Entry>, String> {
    entries.iter().map(entry_from_raft).collect()
}

fn kind_to_raft(kind: RaftMessageKind) -> MessageType {
    match kind {
        RaftMessageKind::Append => MessageType::MsgAppend,
        RaftMessageKind::AppendResponse => MessageType::MsgAppendResponse,
        RaftMessageKind::RequestVote => MessageType::MsgRequestVote,
        RaftMessageKind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftMessageKind::Heartbeat => MessageType::MsgHeartbeat,
        RaftMessageKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftMessageKind::TransferLeader => MessageType::MsgTransferLeader,
        RaftMessageKind::TimeoutNow => MessageType::MsgTimeoutNow,
        RaftMessageKind::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftMessageKind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    }
}

fn kind_from_raft(kind: MessageType) -> Option<RaftMessageKind> {
    Some(match kind {
        MessageType::MsgAppend => RaftMessageKind::Append,
        MessageType::MsgAppendResponse => RaftMessageKind::AppendResponse,
        MessageType::MsgRequestVote => RaftMessageKind::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftMessageKind::RequestVoteResponse,
        MessageType::MsgHeartbeat => RaftMessageKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftMessageKind::HeartbeatResponse,
        MessageType::MsgTimeoutNow => RaftMessageKind::TimeoutNow,
        MessageType::MsgRequestPreVote => RaftMessageKind::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftMessageKind::RequestPreVoteResponse,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgSnapshot
        | MessageType::MsgTransferLeader
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => return None,
    })
}

/// A checked message of a peer, ready to be stepped.
pub(super) fn message_to_raft(
    from: ReplicaId,
    to: ReplicaId,
    message: RaftMessage,
) -> Result<eraftpb::Message, PeerFault> {
    let entries: Vec<_> =
        message.entries.into_iter().map(entry_to_raft).collect::<Result<_, _>>()?;
    let mut raw = eraftpb::Message {
        to: to.0,
        from: from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        priority: message.priority,
        entries: entries.into(),
        ..eraftpb::Message::default()
    };
    raw.set_msg_type(kind_to_raft(message.kind));
    if message.kind != RaftMessageKind::Append {
        raw.context = Bytes::from(message.context);
    }
    Ok(raw)
}

/// A message of raft-rs in our form; `None` for kinds that do not travel.
pub(super) fn message_from_raft(message: &eraftpb::Message) -> Result<Option<RaftMessage>, String> {
    let Some(kind) = kind_from_raft(message.get_msg_type()) else { return Ok(None) };
    Ok(Some(RaftMessage {
        kind,
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        commit: LogIndex(message.commit),
        commit_term: Term(message.commit_term),
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        priority: message.priority,
        context: message.context.to_vec(),
        entries: entries_from_raft(&message.entries)?,
    }))
}
