//! Messages of the outbox, and the bounded way in.

use std::sync::Arc;

use cluster::{
    ids::NodeId,
    raft::types::{Addressed, Message, Payload},
};
use ractor::ActorRef;

use super::OUTBOX_MESSAGES_MAX;
use crate::{
    admission::{Admission, Permit},
    queue::Queue,
};

/// What the outbox is told.
#[derive(Debug)]
pub enum OutboxMessage {
    /// Take these to a node.
    Send {
        /// Where.
        to: NodeId,
        /// What, in order.
        messages: Vec<Addressed>,
        /// Room in the outbox.
        permit: Permit,
    },
}

/// The way into the outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    actor: ActorRef<OutboxMessage>,
    queue: Arc<Queue>,
    admission: Arc<Admission>,
}

impl Outbox {
    /// A way to `actor`, which was born with `queue`, for so many bytes at once.
    pub fn new(actor: ActorRef<OutboxMessage>, queue: Arc<Queue>, bytes_max: usize) -> Self {
        Self { actor, queue, admission: Admission::new(OUTBOX_MESSAGES_MAX, bytes_max) }
    }

    /// Sends messages to a node, or drops them when the outbox is full: the
    /// protocols above repeat.
    pub fn send(&self, to: NodeId, messages: Vec<Addressed>) {
        let bytes = messages.iter().map(weight).sum();
        match self.admission.try_enter(bytes) {
            Some(permit) => {
                // A stopped outbox means the node is stopping.
                self.queue.cast(&self.actor, OutboxMessage::Send { to, messages, permit });
            }
            None => metrics::counter!(crate::metrics::OUTBOX_DROPPED).increment(1),
        }
    }
}

/// Roughly the bytes of a message in a frame.
pub(super) fn weight(addressed: &Addressed) -> usize {
    const HEAD: usize = 96;
    match &addressed.message {
        Message::Raft(raft) => {
            let entries: usize = raft
                .entries
                .iter()
                .map(|entry| match &entry.payload {
                    Payload::Command(bytes) => HEAD / 2 + bytes.len(),
                    Payload::Empty | Payload::Configuration(_) => HEAD,
                })
                .sum();
            HEAD + raft.context.len() + entries
        }
        Message::Held { .. }
        | Message::Hibernate { .. }
        | Message::Hibernating { .. }
        | Message::Awake { .. }
        | Message::SnapshotOffer(_)
        | Message::SnapshotWanted { .. }
        | Message::SnapshotResult { .. } => HEAD,
    }
}
