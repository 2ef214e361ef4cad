//! The controller: turns the catalog's policies into steps.
//!
//! Where the catalog is led it decides the intent; for every shard that is led
//! here it takes the next step of that shard's own log towards the intent.
//!
//! Owns: nothing; it plans anew each time from what the catalog and gossip
//! show. Talks to it: nobody. Supervised by: the root. May lose when it dies:
//! nothing. Invariants: it acts only for shards whose leader is here; what it
//! decides goes through their logs, and every step may be repeated. Limits:
//! [`STEPS_MAX`] steps of the catalog a round, [`MENDING_MAX`] other shards at
//! a time.

mod mend;
mod state;

use std::time::Duration;

use cluster::membership::swim::LiveView;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

pub use self::state::ControllerState;
use crate::{router::Router, world::World};

/// How often the controller looks. A round without work costs one look at two
/// published values.
const ROUND: Duration = Duration::from_millis(200);
/// Steps taken in one round; the rest waits for the next plan.
pub const STEPS_MAX: usize = 256;

/// Shards of volumes one node takes a step for at a time; one that waits (for a
/// learner to catch up, say) holds its place only while it is asked.
pub const MENDING_MAX: usize = 16;

/// What the controller is born with.
#[derive(Clone, Debug)]
pub struct ControllerArguments {
    /// The node's world.
    pub world: World,
    /// The way to the catalog's log.
    pub router: Router,
    /// Who is up.
    pub live: watch::Receiver<LiveView>,
}

/// What the controller is told.
#[derive(Clone, Copy, Debug)]
pub enum ControllerMessage {
    /// Time to look.
    Round,
}

/// The actor.
#[derive(Debug)]
pub struct ControllerActor;

impl Actor for ControllerActor {
    type Msg = ControllerMessage;
    type State = ControllerState;
    type Arguments = ControllerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ControllerMessage>,
        arguments: ControllerArguments,
    ) -> Result<ControllerState, ActorProcessingErr> {
        myself.cast(ControllerMessage::Round)?;
        Ok(ControllerState::new(arguments))
    }

    async fn handle(
        &self,
        myself: ActorRef<ControllerMessage>,
        message: ControllerMessage,
        state: &mut ControllerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ControllerMessage::Round => {
                state.round();
                myself.send_after(ROUND, || ControllerMessage::Round);
            }
        }
        Ok(())
    }
}
