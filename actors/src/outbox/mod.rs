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

use ractor::{Actor, ActorProcessingErr, ActorRef};

pub use messages::{Outbox, OutboxMessage};
pub use state::OutboxState;

use crate::world::World;

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
    type Arguments = World;

    async fn pre_start(
        &self,
        _myself: ActorRef<OutboxMessage>,
        world: World,
    ) -> Result<OutboxState, ActorProcessingErr> {
        Ok(OutboxState::new(world))
    }

    async fn handle(
        &self,
        myself: ActorRef<OutboxMessage>,
        message: OutboxMessage,
        state: &mut OutboxState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            OutboxMessage::Send { to, messages, permit } => {
                if state.collect(to, messages, permit) {
                    // Everything already waiting is handled before this comes round.
                    myself.cast(OutboxMessage::Flush)?;
                }
            }
            OutboxMessage::Flush => state.flush(),
        }
        Ok(())
    }
}
