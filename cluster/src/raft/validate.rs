//! What a peer must not say.
//!
//! raft-rs trusts its peers and panics on what cannot be: a commit beyond the
//! log's end, an entry that contradicts a committed one, a term of zero (which
//! it takes for a local command). A node with a bug, or one restored from an
//! old disk image, says such things; here they become faults with a name.
//!
//! Out of reach: a peer that lies consistently. Nodes are authenticated, and
//! Raft does not defend against a member that votes twice.

use raft::{Raft, Storage};

use crate::{
    ids::{LogIndex, ReplicaId, Term},
    raft::types::{RaftMessage, RaftMessageKind},
};

/// Terms and positions stay far below overflow: at a million a second this
/// lasts 146,000 years.
const NUMBER_MAX: u64 = 1 << 62;
/// Contexts are read rounds (16 bytes) or the mark of a hand-over (16 bytes).
const CONTEXT_BYTES_MAX: usize = 32;

/// A rule of the protocol that a peer broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// It speaks as this replica, or as nobody.
    #[error("speaks as {0}")]
    WrongSender(ReplicaId),
    /// Term zero marks local commands of raft-rs.
    #[error("a message without a term")]
    NoTerm,
    /// A number near overflow.
    #[error("a number out of any sane range")]
    Overflow,
    /// That kind is never sent by a replica.
    #[error("{0:?} is not taken from a peer")]
    Kind(RaftMessageKind),
    /// Entries in a message that carries none, or a context too long.
    #[error("{0:?} with content it cannot have")]
    Content(RaftMessageKind),
    /// Entries do not follow each other.
    #[error("entries with a gap at {0}")]
    Gap(LogIndex),
    /// Terms of entries fall, or exceed the message's.
    #[error("entry {index} has {term}, which cannot be")]
    TermOrder {
        /// Which entry.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// An entry that contradicts a committed one.
    #[error("entry {0} contradicts a committed one")]
    Contradiction(LogIndex),
    /// It commits what this replica does not have.
    #[error("commits {commit} but the log ends at {last}")]
    CommitBeyondLog {
        /// What it says.
        commit: LogIndex,
        /// What is here.
        last: LogIndex,
    },
    /// It acknowledges what this leader never sent.
    #[error("acknowledges {index} but the log ends at {last}")]
    AckBeyondLog {
        /// What it says.
        index: LogIndex,
        /// What is here.
        last: LogIndex,
    },
    /// Two replicas lead in one term.
    #[error("leads in {term} beside {leader}")]
    TwoLeaders {
        /// The term.
        term: Term,
        /// The leader known here.
        leader: ReplicaId,
    },
    /// A command is never empty.
    #[error("entry {index} is an empty command")]
    EmptyCommand {
        /// Which.
        index: LogIndex,
    },
    /// An offered snapshot with an impossible configuration or position.
    #[error("offers a snapshot that cannot be: {0}")]
    Offer(String),
    /// An entry that cannot be read.
    #[error("an entry that cannot be read: {0}")]
    Entry(String),
}

/// Judges a message against the receiver's state.
pub(super) fn check<T: Storage>(
    raft: &Raft<T>,
    from: ReplicaId,
    message: &RaftMessage,
) -> Result<(), PeerFault> {
    check_sender(raft.id, from)?;
    check_form(message)?;
    if message.term.0 < raft.term {
        return Ok(()); // raft-rs looks at nothing but the kind.
    }
    match message.kind {
        RaftMessageKind::Append => {
            check_leader(raft, from, message)?;
            check_entries(raft, message)
        }
        RaftMessageKind::Heartbeat => {
            check_leader(raft, from, message)?;
            let last = LogIndex(raft.raft_log.last_index());
            if message.commit > last {
                return Err(PeerFault::CommitBeyondLog { commit: message.commit, last });
            }
            Ok(())
        }
        RaftMessageKind::AppendResponse => check_ack(raft, message),
        RaftMessageKind::TimeoutNow => check_leader(raft, from, message),
        RaftMessageKind::TransferLeader => Err(PeerFault::Kind(message.kind)),
        RaftMessageKind::RequestVote
        | RaftMessageKind::RequestVoteResponse
        | RaftMessageKind::RequestPreVote
        | RaftMessageKind::RequestPreVoteResponse
        | RaftMessageKind::HeartbeatResponse => Ok(()),
    }
}

pub(super) fn check_sender(own: u64, from: ReplicaId) -> Result<(), PeerFault> {
    if from.0 == own || from.0 == 0 {
        return Err(PeerFault::WrongSender(from));
    }
    Ok(())
}

fn check_form(message: &RaftMessage) -> Result<(), PeerFault> {
    if message.term.0 == 0 {
        return Err(PeerFault::NoTerm);
    }
    let numbers = [
        message.term.0,
        message.log_term.0,
        message.index.0,
        message.commit.0,
        message.commit_term.0,
        message.reject_hint.0,
    ];
    if numbers.iter().any(|number| *number > NUMBER_MAX) {
        return Err(PeerFault::Overflow);
    }
    let empty = message.kind == RaftMessageKind::Append || message.entries.is_empty();
    if !empty || message.context.len() > CONTEXT_BYTES_MAX {
        return Err(PeerFault::Content(message.kind));
    }
    // raft-rs reads term 0 at any position beyond its log: that would match.
    let probes = message.kind == RaftMessageKind::Append;
    if probes && (message.index.0 == 0) != (message.log_term.0 == 0) {
        return Err(PeerFault::TermOrder { index: message.index, term: message.log_term });
    }
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.index.0 != before.0.0 + 1 {
            return Err(PeerFault::Gap(entry.index));
        }
        if entry.term < before.1 || entry.term > message.term || entry.term.0 == 0 {
            return Err(PeerFault::TermOrder { index: entry.index, term: entry.term });
        }
        before = (entry.index, entry.term);
    }
    Ok(())
}

fn check_leader<T: Storage>(
    raft: &Raft<T>,
    from: ReplicaId,
    message: &RaftMessage,
) -> Result<(), PeerFault> {
    let known = raft.leader_id != 0 && raft.term == message.term.0;
    if known && raft.leader_id != from.0 {
        let leader = ReplicaId(raft.leader_id);
        return Err(PeerFault::TwoLeaders { term: message.term, leader });
    }
    Ok(())
}

fn check_entries<T: Storage>(raft: &Raft<T>, message: &RaftMessage) -> Result<(), PeerFault> {
    let log = &raft.raft_log;
    if message.index.0 < log.committed {
        return Ok(()); // answered with the commit position, entries unread.
    }
    if message.index.0 == log.committed && !log.match_term(log.committed, message.log_term.0) {
        return Err(PeerFault::Contradiction(message.index));
    }
    Ok(())
}

fn check_ack<T: Storage>(raft: &Raft<T>, message: &RaftMessage) -> Result<(), PeerFault> {
    let last = LogIndex(raft.raft_log.last_index());
    let index = message.index.max(message.reject_hint);
    let mine = raft.term == message.term.0 && raft.leader_id == raft.id;
    if mine && index > last {
        return Err(PeerFault::AckBeyondLog { index, last });
    }
    Ok(())
}
