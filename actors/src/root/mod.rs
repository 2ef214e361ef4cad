//! The root: a node's supervision tree, from start to stop.
//!
//! Owns: the actors every other part hangs on (membership, outbox, volumes,
//! the catalog's follower, the controller, the disk's pacer). Talks to it: who
//! started the node. Supervised by: the process. May lose when it dies:
//! nothing durable; the process ends and the next start recovers from the
//! log. Invariants: children stop before what they use, in our own order.
//! Restart policy: actors that hold nothing and that nobody addresses (pacer,
//! follower, controller) are started again; when one that others address fails
//! (membership, outbox, volumes), what they hold of each other is in doubt and
//! the node ends with the cause. A replica's failure never gets here: its
//! volume deals with it. Limits: [`CHILD_RESTARTS`].

mod children;
mod ended;
pub mod image;
mod register;
mod state;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use cluster::{
    catalog::{
        record::{ClusterRecord, NodeRecord},
        view::CatalogView,
    },
    ids::{NodeId, ReplicaId, StoreId},
    membership::swim::LiveView,
    ports::log::RecoveredReplica,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};

pub use self::{
    children::Child,
    ended::{Ended, STATE_FILES},
    image::OldImage,
    state::RootState,
};
use crate::{
    budget::{NodeBudget, NodeLimits},
    membership::MembershipDoor,
    router::{Hosted, Router},
    supervision::RestartPolicy,
    switchboard::{Gate, Switchboard},
    world::{Space, World},
};

/// Actors without state may fail five times a minute before the node ends.
pub const CHILD_RESTARTS: RestartPolicy = RestartPolicy {
    attempts_max: 5,
    window: Duration::from_mins(1),
    backoff: Duration::from_millis(100),
};

/// What a node is assembled from.
#[derive(Debug)]
pub struct NodeParts {
    /// Its world.
    pub world: World,
    /// Replicas found in the log.
    pub recovered: Vec<RecoveredReplica>,
    /// Highest number of a store in use.
    pub highest_store: StoreId,
    /// Whether the log cannot tell which replicas lived on the disk.
    pub forgetful: bool,
    /// Stores that no record names and that hold part of a snapshot.
    pub partial: BTreeMap<ReplicaId, Vec<StoreId>>,
    /// What this node says of itself to the catalog at each start.
    pub record: NodeRecord,
    /// The cluster, when this start founds it.
    pub founding: Option<ClusterRecord>,
    /// Nodes to ask first, before the catalog names any.
    pub seeds: Vec<(NodeId, Vec<SocketAddr>)>,
    /// The catalog as last known.
    pub catalog: Arc<CatalogView>,
    /// What only the node itself can do.
    pub gate: Arc<dyn Gate>,
    /// Bounds its configuration sets.
    pub limits: NodeLimits,
}

/// A node's running actors.
#[derive(Debug)]
pub struct NodeActors {
    root: ActorRef<RootMessage>,
    /// Serves requests of this process.
    pub router: Router,
    /// Receives from the network.
    pub switchboard: Switchboard,
    /// The replicas here.
    pub hosted: watch::Receiver<Arc<Hosted>>,
    /// The catalog as last seen.
    pub catalog: watch::Receiver<Arc<CatalogView>>,
    /// Who is up.
    pub live: watch::Receiver<LiveView>,
    /// Room on the disk.
    pub space: watch::Receiver<Space>,
    /// What the replicas hold in memory.
    pub budget: Arc<NodeBudget>,
    /// How the node's actors ended, once they have.
    pub ended: watch::Receiver<Option<Ended>>,
}

impl NodeActors {
    /// Starts a node's actors.
    ///
    /// # Errors
    /// If an actor does not start.
    pub async fn start(parts: NodeParts) -> Result<Self, ActorProcessingErr> {
        let (hosted_sender, hosted) = watch::channel(Arc::new(Hosted::default()));
        let (catalog_sender, catalog) = watch::channel(Arc::clone(&parts.catalog));
        let (live_sender, live) = watch::channel(LiveView::default());
        let (space_sender, space) = watch::channel(parts.world.space.measure());
        let (ended_sender, ended) = watch::channel(None);
        let world = parts.world.clone();
        let router = Router::new(world.clone(), hosted.clone(), catalog.clone());
        let gate = Arc::clone(&parts.gate);
        let budget = NodeBudget::new(parts.limits);
        let arguments = RootArguments {
            parts,
            budget: Arc::clone(&budget),
            router: router.clone(),
            hosted: hosted_sender,
            catalog: catalog_sender,
            live: live_sender,
            space: space_sender,
            ended: ended_sender,
        };
        let (root, _) = Actor::spawn(None, RootActor, arguments).await?;
        let (reply, door) = oneshot::channel();
        root.cast(RootMessage::MembershipDoor(reply))?;
        let door: MembershipDoor = door.await?;
        let switchboard = Switchboard::new(world, router.clone(), hosted.clone(), door, gate);
        Ok(Self { root, router, switchboard, hosted, catalog, live, space, budget, ended })
    }

    /// Stops in order: says farewell, flushes nothing (the log has it all),
    /// ends every actor. Returns when all have ended.
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.root.cast(RootMessage::Stop(reply)).is_ok() {
            let _ = stopped.await;
        }
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(Option::is_some).await;
    }
}

/// What the root is born with.
#[derive(Debug)]
pub struct RootArguments {
    parts: NodeParts,
    budget: Arc<NodeBudget>,
    router: Router,
    hosted: watch::Sender<Arc<Hosted>>,
    catalog: watch::Sender<Arc<CatalogView>>,
    live: watch::Sender<LiveView>,
    space: watch::Sender<Space>,
    ended: watch::Sender<Option<Ended>>,
}

/// What the root is told.
#[derive(Debug)]
pub enum RootMessage {
    /// Hand out the way to membership.
    MembershipDoor(oneshot::Sender<MembershipDoor>),
    /// Start an actor again after its wait.
    Restart(Child),
    /// The catalog has refused this start of the node for good.
    Refused(String),
    /// The catalog has seen a later start of this node.
    OldImage(OldImage),
    /// Stop everything.
    Stop(oneshot::Sender<()>),
}

/// The actor.
#[derive(Debug)]
pub struct RootActor;

impl Actor for RootActor {
    type Msg = RootMessage;
    type State = RootState;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMessage>,
        arguments: RootArguments,
    ) -> Result<RootState, ActorProcessingErr> {
        RootState::begin(myself, arguments).await
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMessage>,
        message: RootMessage,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::MembershipDoor(reply) => drop(reply.send(state.membership_door())),
            RootMessage::Restart(child) => state.restart(child).await?,
            RootMessage::Refused(cause) => {
                state.end(Ended::Refused(cause)).await;
                myself.stop(None);
            }
            RootMessage::OldImage(image) => {
                let ended = state.note_old_image(image);
                state.end(ended).await;
                myself.stop(None);
            }
            RootMessage::Stop(reply) => {
                state.end(Ended::Stopped).await;
                let _ = reply.send(());
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMessage>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some(ended) = state.failed(cell.get_id(), &error.to_string()) {
                    state.end(ended).await;
                    myself.stop(None);
                }
            }
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}
