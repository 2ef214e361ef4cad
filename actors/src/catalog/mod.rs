//! The catalog follower: this node's picture of the catalog.
//!
//! Owns: the [`CatalogView`] every actor and door of the node reads, and its
//! copy on disk. Talks to it: nobody; it asks a catalog replica (the one on
//! this node, else another) what changed since its version, and the question
//! waits there until something did, so nothing periodic passes the catalog's
//! log. Supervised by: the root. May lose when it dies: nothing; it begins
//! again from its copy. Invariants: the view only moves forward; the copy is
//! replaced whole. Limits: one question under way.

mod cache;
mod reporter;
mod state;

use std::{sync::Arc, time::Duration};

use cluster::{catalog::view::CatalogView, ids::NodeId, mvcc::version::Version, request::Answer};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

pub use cache::load;
pub use reporter::Reporter;
pub use state::FollowerState;

use crate::{membership::MembershipMessage, router::Router, volumes::VolumesMessage, world::World};

/// Longest one question waits for news.
const WAIT: Duration = Duration::from_secs(5);
/// Pause after a question that failed.
const RETRY: Duration = Duration::from_millis(200);

/// What the follower is born with.
#[derive(Debug)]
pub struct FollowerArguments {
    /// The node's world.
    pub world: World,
    /// Asks the replica on this node.
    pub router: Router,
    /// Nodes to ask while the view names no catalog.
    pub seeds: Vec<NodeId>,
    /// The view to begin with.
    pub view: Arc<CatalogView>,
    /// Where the view is shown.
    pub shown: watch::Sender<Arc<CatalogView>>,
    /// Told of each new view.
    pub volumes: ActorRef<VolumesMessage>,
    /// Told of each new view.
    pub membership: ActorRef<MembershipMessage>,
}

/// What the follower is told.
#[derive(Debug)]
pub enum FollowerMessage {
    /// Ask what changed.
    Ask,
    /// What a catalog replica answered to a question.
    Answered {
        /// The version asked after.
        after: Version,
        /// The answer, or why there is none.
        answer: Result<Answer, String>,
    },
}

/// The actor.
#[derive(Debug)]
pub struct FollowerActor;

impl Actor for FollowerActor {
    type Msg = FollowerMessage;
    type State = FollowerState;
    type Arguments = FollowerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<FollowerMessage>,
        arguments: FollowerArguments,
    ) -> Result<FollowerState, ActorProcessingErr> {
        myself.cast(FollowerMessage::Ask)?;
        let state = FollowerState::new(arguments);
        state.teach();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<FollowerMessage>,
        message: FollowerMessage,
        state: &mut FollowerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FollowerMessage::Ask => state.ask(&myself),
            FollowerMessage::Answered { after, answer } => {
                let wait = state.answered(after, answer);
                myself.send_after(wait, || FollowerMessage::Ask);
            }
        }
        Ok(())
    }
}
