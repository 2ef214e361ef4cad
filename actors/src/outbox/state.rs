//! What waits for each peer, and how it becomes frames.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use cluster::{
    formats,
    ids::NodeId,
    ports::network::Lane,
    raft::types::{Addressed, RaftBatch},
};

use super::{BATCH_BYTES_MAX, messages::weight};
use crate::{
    admission::Permit,
    failpoint::FailPoint,
    queue::{Queue, Round},
    world::World,
};

/// Messages waiting for one peer.
#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<Addressed>,
    permits: Vec<Permit>,
}

/// State of the outbox.
#[derive(Debug)]
pub struct OutboxState {
    world: World,
    waiting: BTreeMap<NodeId, Waiting>,
    /// One flush for all that waits.
    round: Round,
}

impl OutboxState {
    pub(super) fn new(world: World, queue: Arc<Queue>) -> Self {
        Self { world, waiting: BTreeMap::new(), round: Round::new(queue) }
    }

    /// Adds messages, and flushes once all that waited are in.
    pub(super) fn collect(&mut self, to: NodeId, messages: Vec<Addressed>, permit: Permit) {
        self.round.handled();
        let waiting = self.waiting.entry(to).or_default();
        if waiting.messages.is_empty() {
            waiting.messages = messages;
        } else {
            waiting.messages.extend(messages);
        }
        waiting.permits.push(permit);
        self.round.begin();
        if self.round.end() {
            self.flush();
        }
    }

    /// Hands all that waits to the network, in frames of about [`BATCH_BYTES_MAX`].
    fn flush(&mut self) {
        for (to, waiting) in std::mem::take(&mut self.waiting) {
            self.world.reach(FailPoint::OutboxFlush);
            for messages in frames(waiting.messages) {
                let batch = RaftBatch { boot: self.world.identity.boot, messages };
                let bytes = Bytes::from(formats::to_bytes(&batch));
                if let Err(error) = self.world.network.send(to, Lane::Raft, bytes) {
                    tracing::debug!(%to, %error, "raft batch was not taken");
                }
            }
            self.world.reach(FailPoint::OutboxSent);
        }
    }
}

/// Cuts messages into runs of about one frame each, keeping their order.
pub(super) fn frames(messages: Vec<Addressed>) -> Vec<Vec<Addressed>> {
    if messages.iter().map(weight).sum::<usize>() <= BATCH_BYTES_MAX {
        return vec![messages];
    }
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let more = weight(&message);
        if bytes + more > BATCH_BYTES_MAX && !frame.is_empty() {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += more;
        frame.push(message);
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    frames
}
