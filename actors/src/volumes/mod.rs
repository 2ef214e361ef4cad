//! The volumes of this node, and the map of its replicas.
//!
//! Owns: one volume actor per volume with a replica here, and the map from
//! shard to replica that routers read. Talks to it: the catalog follower (what
//! is wanted), volumes (what runs). Supervised by: the root. May lose when it
//! dies: the whole data path of the node, so its death ends the node's actors
//! and the root starts them again. Invariants: replicas begin by the
//! catalog's intent or from the log, never by a message; a replica is
//! destroyed only when the catalog shows that it is no longer wanted; a lost
//! one is reported until the catalog has it, stays until it has left its
//! shard, and makes way for the one that takes its place.
//! Limits: [`cluster::limits::REPLICAS_PER_NODE_MAX`].

mod reconcile;
mod state;

use std::{collections::BTreeMap, sync::Arc};

use cluster::{
    catalog::{record::Loss, view::CatalogView},
    ids::{ReplicaId, ShardId, StoreId, VolumeId},
    ports::log::RecoveredReplica,
    shard::descriptor::ShardDescriptor,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;

pub use self::state::VolumesState;
use crate::{
    budget::NodeBudget,
    catalog::Reporter,
    disk::StoreIds,
    outbox::Outbox,
    replica::messages::ReplicaHandle,
    router::Hosted,
    world::{Space, World},
};

/// What the volumes actor is born with.
#[derive(Debug)]
pub struct VolumesArguments {
    /// The node's world.
    pub world: World,
    /// Where messages to other nodes leave.
    pub outbox: Outbox,
    /// Numbers of new stores.
    pub stores: Arc<StoreIds>,
    /// What all replicas of the node may hold together.
    pub budget: Arc<NodeBudget>,
    /// Room on the disk.
    pub space: watch::Receiver<Space>,
    /// Stores found at start that hold part of a snapshot.
    pub partial: Arc<BTreeMap<ReplicaId, Vec<StoreId>>>,
    /// Tells the catalog what was observed here.
    pub reporter: Reporter,
    /// Replicas found in the log.
    pub recovered: Vec<RecoveredReplica>,
    /// The catalog shard, when this start founds the cluster.
    pub founding: Option<ShardDescriptor>,
    /// The catalog as last known, for the kinds of volumes.
    pub catalog: Arc<CatalogView>,
    /// Where the map is shown.
    pub hosted: watch::Sender<Arc<Hosted>>,
}

/// What the volumes actor is told.
#[derive(Debug)]
pub enum VolumesMessage {
    /// The catalog moved on.
    CatalogChanged(Arc<CatalogView>),
    /// Compare what runs here with the catalog once more.
    LookAgain,
    /// A replica runs.
    ReplicaUp(Box<ReplicaHandle>),
    /// A replica's actor failed. Its data is here, and it may come back.
    ReplicaDown(ReplicaId),
    /// A replica is gone with its data.
    ReplicaEnded {
        /// Its shard.
        shard: ShardId,
        /// Which.
        replica: ReplicaId,
    },
    /// A replica is lost: what is here of it is damaged, old or gone.
    ReplicaLost {
        /// Its shard.
        shard: ShardId,
        /// Which.
        replica: ReplicaId,
        /// Its volume.
        volume: VolumeId,
        /// What happened.
        loss: Loss,
        /// The same for people.
        cause: String,
    },
    /// A replica failed too often and stays down.
    ReplicaStopped {
        /// Its shard.
        shard: ShardId,
        /// Which.
        replica: ReplicaId,
        /// Why.
        cause: String,
    },
}

/// The actor.
#[derive(Debug)]
pub struct VolumesActor;

impl Actor for VolumesActor {
    type Msg = VolumesMessage;
    type State = VolumesState;
    type Arguments = VolumesArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<VolumesMessage>,
        arguments: VolumesArguments,
    ) -> Result<VolumesState, ActorProcessingErr> {
        let mut state = VolumesState::new(myself, arguments);
        state.begin().await?;
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<VolumesMessage>,
        message: VolumesMessage,
        state: &mut VolumesState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            VolumesMessage::CatalogChanged(view) => state.catalog_changed(view).await?,
            VolumesMessage::LookAgain => state.look().await?,
            VolumesMessage::ReplicaUp(handle) => state.replica_up(*handle),
            VolumesMessage::ReplicaDown(replica) => state.replica_down(replica),
            VolumesMessage::ReplicaLost { shard, replica, volume, loss, cause } => {
                state.replica_lost((shard, replica, volume), loss, cause);
            }
            VolumesMessage::ReplicaEnded { shard, replica } => state.replica_ended(shard, replica),
            VolumesMessage::ReplicaStopped { shard, replica, cause } => {
                state.replica_stopped(shard, replica, cause);
            }
        }
        Ok(())
    }

    /// Volumes end before their supervisor: ractor would kill them, and their
    /// replicas with them.
    async fn post_stop(
        &self,
        _myself: ActorRef<VolumesMessage>,
        state: &mut VolumesState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop_all().await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<VolumesMessage>,
        event: SupervisionEvent,
        _state: &mut VolumesState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            // A volume has no work of its own that could fail: if one does,
            // what it supervised is in doubt, and the root begins anew.
            SupervisionEvent::ActorFailed(_, error) => Err(error),
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}
