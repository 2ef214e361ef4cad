//! The outbox: what replicas say to other nodes, one frame per peer and turn.
//!
//! Owns: nothing durable. Talks to it: every replica of the node. Supervised
//! by: the root. Loses when it dies: messages not yet handed to the network,
//! which Raft repeats. Invariant: messages of one replica to one peer keep
//! their order. Limits: the node's budget waiting, [`BATCH_BYTES_MAX`] a frame.
//!
//! Replicas tick on one grid, so the heartbeats of a thousand shards arrive
//! here in the same turn and leave in one frame per peer.

mod messages;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

pub use messages::{Outbox, OutboxMessage};
pub use state::OutboxState;

use crate::{queue::Queue, world::World};

/// Messages waiting over all peers: a heartbeat for each of 4,096 replicas to
/// four peers, twice.
pub const OUTBOX_MESSAGES_MAX: usize = 32_768;
/// Soft size of one frame; a single larger message still travels alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// The actor.
#[derive(Debug)]
pub struct OutboxActor;

impl Actor for OutboxActor {
    type Msg = OutboxMessage;
    type State = OutboxState;
    type Arguments = (World, Arc<Queue>);

    async fn pre_start(
        &self,
        _myself: ActorRef<OutboxMessage>,
        (world, queue): (World, Arc<Queue>),
    ) -> Result<OutboxState, ActorProcessingErr> {
        Ok(OutboxState::new(world, queue))
    }

    async fn handle(
        &self,
        _myself: ActorRef<OutboxMessage>,
        message: OutboxMessage,
        state: &mut OutboxState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            OutboxMessage::Send { to, messages, permit } => state.collect(to, messages, permit),
        }
        Ok(())
    }
}
