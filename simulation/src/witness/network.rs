//! A way to other nodes that is watched: votes are told to the checkers as
//! they leave.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{
    formats,
    ids::NodeId,
    ports::network::{BoxFuture, Lane, Network, RequestClass, RequestError, SendError},
    raft::types::{
        Addressed, ArchivedMessage, ArchivedRaftBatch, ArchivedRaftMessageKind, Message, RaftBatch,
        RaftMessageKind,
    },
};

use crate::{
    checkers::{Ballot, Checkers},
    life::Life,
};

/// One boot's way to other nodes, watched.
#[derive(Debug)]
pub(crate) struct WitnessedNetwork {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) checkers: Checkers,
    pub(crate) life: Life,
}

/// The votes in a frame. Most frames hold none, and are not copied to see that.
fn ballots(frame: &[u8]) -> Vec<Ballot> {
    let Ok(seen) = rkyv::access::<ArchivedRaftBatch, rkyv::rancor::Error>(frame) else {
        return Vec::new();
    };
    let votes = seen.messages.iter().any(|addressed| {
        use ArchivedRaftMessageKind::{RequestVote, RequestVoteResponse};
        let ArchivedMessage::Raft(message) = &addressed.message else { return false };
        matches!(message.kind, RequestVote | RequestVoteResponse)
    });
    if !votes {
        return Vec::new();
    }
    let batch: RaftBatch = formats::from_bytes(frame).unwrap_or_default();
    batch.messages.iter().filter_map(ballot).collect()
}

/// The vote in a message: who asks for others' has given its own to itself.
fn ballot(addressed: &Addressed) -> Option<Ballot> {
    let Addressed { shard, from, to, message } = addressed;
    let Message::Raft(message) = message else { return None };
    let candidate = match message.kind {
        RaftMessageKind::RequestVote => *from,
        RaftMessageKind::RequestVoteResponse if !message.reject => *to,
        RaftMessageKind::RequestVoteResponse
        | RaftMessageKind::Append
        | RaftMessageKind::AppendResponse
        | RaftMessageKind::Heartbeat
        | RaftMessageKind::HeartbeatResponse
        | RaftMessageKind::TransferLeader
        | RaftMessageKind::TimeoutNow
        | RaftMessageKind::RequestPreVote
        | RaftMessageKind::RequestPreVoteResponse => return None,
    };
    Some(Ballot { shard: *shard, voter: *from, candidate, term: message.term })
}

impl Network for WitnessedNetwork {
    fn send(&self, to: NodeId, lane: Lane, message: Bytes) -> Result<(), SendError> {
        // What a dead boot says nobody hears.
        if lane == Lane::Raft && !self.life.is_over() {
            for ballot in ballots(&message) {
                self.checkers.votes(ballot);
            }
        }
        self.network.send(to, lane, message)
    }

    fn request(
        &self,
        to: NodeId,
        class: RequestClass,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<Result<Bytes, RequestError>> {
        self.network.request(to, class, body, timeout)
    }

    fn learn(&self, node: NodeId, addresses: Vec<SocketAddr>) {
        self.network.learn(node, addresses);
    }

    fn forget(&self, node: NodeId) {
        self.network.forget(node);
    }
}

#[cfg(test)]
mod tests {
    use cluster::{
        ids::{LogIndex, ReplicaId, ShardId, Term},
        raft::types::RaftMessage,
    };

    use super::*;

    fn says(kind: RaftMessageKind, reject: bool) -> Addressed {
        let message = RaftMessage {
            kind,
            term: Term(4),
            log_term: Term(0),
            index: LogIndex(0),
            commit: LogIndex(0),
            commit_term: Term(0),
            reject,
            reject_hint: LogIndex(0),
            priority: 0,
            context: Vec::new(),
            entries: Vec::new(),
        };
        let (from, to) = (ReplicaId(1), ReplicaId(2));
        Addressed { shard: ShardId(3), from, to, message: Message::Raft(message) }
    }

    #[test]
    fn votes_are_found_in_a_frame_and_nothing_else_is_one() {
        let heard = |messages: Vec<Addressed>| {
            ballots(&formats::to_bytes(&RaftBatch { messages, ..RaftBatch::default() }))
        };
        let vote = |candidate| {
            let (shard, voter, term) = (ShardId(3), ReplicaId(1), Term(4));
            Ballot { shard, voter, candidate: ReplicaId(candidate), term }
        };
        let others = [RaftMessageKind::RequestPreVoteResponse, RaftMessageKind::Heartbeat];
        assert_eq!(heard(others.map(|kind| says(kind, false)).to_vec()), []);
        let asks = says(RaftMessageKind::RequestVote, false);
        let grants = |reject| says(RaftMessageKind::RequestVoteResponse, reject);
        assert_eq!(heard(vec![asks, grants(false), grants(true)]), [vote(1), vote(2)]);
        assert_eq!(ballots(b"no frame"), []);
    }
}
