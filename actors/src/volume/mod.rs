//! A volume on this node: the supervisor of its shard replicas.
//!
//! Owns: which replicas of the volume run here, and how often each may fail.
//! Talks to it: the volumes actor (what should be here), its replicas (as
//! their supervisor). Supervised by: the volumes actor. May lose when it
//! dies: nothing; its replicas are started again from the log. Invariants:
//! one actor per replica; a replica that failed too often stays down and is
//! reported, but can still be destroyed; two actors of one replica never write
//! to its store (the gate it keeps for each). Limits: [`REPLICA_RESTARTS`].

mod state;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    catalog::record::{Loss, VolumeKind},
    ids::{ReplicaId, ShardId, StoreId, VolumeId},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use tokio::sync::watch;

pub use self::state::VolumeState;
use crate::{
    budget::NodeBudget,
    disk::StoreIds,
    outbox::Outbox,
    replica::messages::Beginning,
    supervision::RestartPolicy,
    volumes::VolumesMessage,
    world::{Space, World},
};

/// A replica may fail three times a minute. Its log is on disk, so a restart
/// costs only a pause; failing again at once points to a cause that stays.
pub const REPLICA_RESTARTS: RestartPolicy = RestartPolicy {
    attempts_max: 3,
    window: Duration::from_mins(1),
    backoff: Duration::from_millis(100),
};

/// What every volume of a node shares.
#[derive(Clone, Debug)]
pub struct VolumeShared {
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
    /// The owner of the map of replicas.
    pub volumes: ActorRef<VolumesMessage>,
}

/// What a volume is born with.
#[derive(Debug)]
pub struct VolumeArguments {
    /// Which volume.
    pub volume: VolumeId,
    /// How its keys are spread, which decides how versions count.
    pub kind: VolumeKind,
    /// What it shares with the others.
    pub shared: VolumeShared,
}

/// What a volume is told.
#[derive(Debug)]
pub enum VolumeMessage {
    /// A replica should run here.
    Begin {
        /// Its shard.
        shard: ShardId,
        /// Which.
        replica: ReplicaId,
        /// How.
        beginning: Box<Beginning>,
    },
    /// A replica is to be destroyed with its data.
    Destroy(ReplicaId),
    /// The catalog holds a replica for lost.
    Retire(ReplicaId, Loss),
    /// The wait before a restart is over.
    Restart(ReplicaId),
}

/// The actor.
#[derive(Debug)]
pub struct VolumeActor;

impl Actor for VolumeActor {
    type Msg = VolumeMessage;
    type State = VolumeState;
    type Arguments = VolumeArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<VolumeMessage>,
        arguments: VolumeArguments,
    ) -> Result<VolumeState, ActorProcessingErr> {
        Ok(VolumeState::new(myself, arguments))
    }

    async fn handle(
        &self,
        _myself: ActorRef<VolumeMessage>,
        message: VolumeMessage,
        state: &mut VolumeState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            VolumeMessage::Begin { shard, replica, beginning } => {
                state.begin(shard, replica, *beginning).await;
            }
            VolumeMessage::Destroy(replica) => state.destroy(replica).await,
            VolumeMessage::Retire(replica, loss) => state.retire(replica, loss),
            VolumeMessage::Restart(replica) => state.restart(replica).await,
        }
        Ok(())
    }

    /// Replicas end before their supervisor: ractor would kill them.
    async fn post_stop(
        &self,
        _myself: ActorRef<VolumeMessage>,
        state: &mut VolumeState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop_all().await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<VolumeMessage>,
        event: SupervisionEvent,
        state: &mut VolumeState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                state.failed(cell.get_id(), &error.to_string());
            }
            SupervisionEvent::ActorTerminated(cell, _, _) => state.ended(cell.get_id()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}
