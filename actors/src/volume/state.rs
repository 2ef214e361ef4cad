//! The replicas of one volume on this node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    catalog::record::{Loss, VolumeKind},
    ids::{CATALOG_VOLUME, ReplicaId, ShardId},
    mvcc::version::VersionKind,
    shard::root::ShardRole,
};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use super::{REPLICA_RESTARTS, VolumeArguments, VolumeMessage};
use crate::{
    probe::Report,
    replica::{
        Halt, ReplicaActor, ReplicaArguments, StoreGate,
        apply::{MemoryGauge, Published},
        messages::{Beginning, ReplicaMessage},
    },
    supervision::{Failures, Verdict},
    volumes::VolumesMessage,
};

/// How a replica's actor fares.
#[derive(Debug)]
enum Life {
    Runs(ActorRef<ReplicaMessage>),
    /// It failed and waits for its restart.
    Rests,
    /// It failed too often.
    GivenUp,
}

#[derive(Debug)]
struct Child {
    shard: ShardId,
    life: Life,
    failures: Failures,
    gate: Arc<StoreGate>,
    /// To be destroyed as soon as it runs.
    doomed: bool,
}

/// State of a volume.
#[derive(Debug)]
pub struct VolumeState {
    myself: ActorRef<VolumeMessage>,
    arguments: VolumeArguments,
    children: BTreeMap<ReplicaId, Child>,
}

/// Longest wait for one replica's end.
const STOP_WAIT: Duration = Duration::from_secs(1);

impl VolumeState {
    pub(super) fn new(myself: ActorRef<VolumeMessage>, arguments: VolumeArguments) -> Self {
        Self { myself, arguments, children: BTreeMap::new() }
    }

    /// Starts a replica unless it is here already.
    pub(super) async fn begin(&mut self, shard: ShardId, replica: ReplicaId, beginning: Beginning) {
        if self.children.contains_key(&replica) {
            return;
        }
        let (failures, gate) = (Failures::new(REPLICA_RESTARTS), Arc::default());
        let child = Child { shard, life: Life::Rests, failures, gate, doomed: false };
        self.children.insert(replica, child);
        self.start(replica, beginning).await;
    }

    /// Starts a replica's actor; one that does not even start has failed.
    async fn start(&mut self, replica: ReplicaId, beginning: Beginning) {
        if let Err(error) = self.spawn(replica, beginning).await {
            self.record(replica, &error.to_string());
        }
    }

    async fn spawn(
        &mut self,
        replica: ReplicaId,
        beginning: Beginning,
    ) -> Result<(), ActorProcessingErr> {
        let (founder_versions, role) = (self.founder_versions(), self.role());
        let Some(child) = self.children.get_mut(&replica) else { return Ok(()) };
        let (shared, volume) = (&self.arguments.shared, self.arguments.volume);
        let (published, shown) = watch::channel(Published::default());
        let partial = match &beginning {
            Beginning::Recovered(_) => shared.partial.get(&replica).cloned().unwrap_or_default(),
            // What was found at the node's start may be its own store by now.
            Beginning::Founder(_) | Beginning::Joiner(_) | Beginning::Restarted => Vec::new(),
        };
        let arguments = ReplicaArguments {
            world: shared.world.clone(),
            shard: child.shard,
            volume,
            replica,
            founder_versions,
            role,
            beginning,
            outbox: shared.outbox.clone(),
            stores: Arc::clone(&shared.stores),
            memory: MemoryGauge::new(Arc::clone(&shared.budget)),
            gate: Arc::clone(&child.gate),
            space: shared.space.clone(),
            partial,
            volumes: shared.volumes.clone(),
            filled: Arc::default(),
            published,
            queue: Arc::default(),
        };
        let gauges = (
            Arc::clone(&arguments.memory.own),
            Arc::clone(&arguments.filled),
            Arc::clone(&arguments.queue),
        );
        let me = self.myself.get_cell();
        let (actor, _) = Actor::spawn_linked(None, ReplicaActor, arguments, me).await?;
        let budget = Arc::clone(&shared.budget);
        let names = (replica, child.shard, volume);
        let handle = ReplicaActor::handle(names, actor.clone(), shown, gauges, budget);
        if child.doomed {
            let _ = actor.cast(ReplicaMessage::Destroy);
        }
        child.life = Life::Runs(actor);
        shared.volumes.cast(VolumesMessage::ReplicaUp(Box::new(handle)))?;
        Ok(())
    }

    /// A founder begins by a view that has its volume; others may be here before any.
    fn founder_versions(&self) -> VersionKind {
        match self.arguments.kind {
            VolumeKind::Single => VersionKind::Dense,
            VolumeKind::Hash | VolumeKind::Ordered => VersionKind::Hybrid,
        }
    }

    fn role(&self) -> ShardRole {
        if self.arguments.volume == CATALOG_VOLUME { ShardRole::Catalog } else { ShardRole::Data }
    }

    /// Tells a replica to destroy itself; its end arrives as an event.
    pub(super) async fn destroy(&mut self, replica: ReplicaId) {
        let Some(child) = self.children.get_mut(&replica) else { return };
        child.doomed = true;
        match &child.life {
            Life::Runs(actor) => drop(actor.cast(ReplicaMessage::Destroy)),
            Life::Rests => {}
            // Its log still says where its data lies; that much it can do.
            Life::GivenUp => self.start(replica, Beginning::Restarted).await,
        }
    }

    /// Tells a replica that the catalog holds it for lost.
    pub(super) fn retire(&mut self, replica: ReplicaId, loss: Loss) {
        if let Some(Life::Runs(actor)) = self.children.get(&replica).map(|child| &child.life) {
            let cause = "the cluster replaced it: it was reported lost before";
            drop(actor.cast(ReplicaMessage::Halted(Halt::lost(loss, cause))));
        }
    }

    /// Starts a failed replica again, from its log.
    pub(super) async fn restart(&mut self, replica: ReplicaId) {
        let rests = |child: &Child| matches!(child.life, Life::Rests);
        if self.children.get(&replica).is_some_and(rests) {
            self.start(replica, Beginning::Restarted).await;
        }
    }

    /// A replica's actor failed: a panic or a broken invariant in its Raft half.
    pub(super) fn failed(&mut self, actor: ActorId, cause: &str) {
        if let Some(replica) = self.find(actor) {
            self.record(replica, cause);
        }
    }

    /// Takes note of a failure, and does what the policy says.
    fn record(&mut self, replica: ReplicaId, cause: &str) {
        let common = &self.arguments.shared;
        let (now, probe) = (common.world.clock.now(), &common.world.probe);
        let Some(child) = self.children.get_mut(&replica) else { return };
        let shard = child.shard;
        match child.failures.record(now) {
            Verdict::RestartAfter(wait) => {
                child.life = Life::Rests;
                metrics::counter!(crate::metrics::RESTARTS).increment(1);
                let cause = cause.to_owned();
                probe.report(Report::Restarted { actor: "replica", cause });
                self.myself.send_after(wait, move || VolumeMessage::Restart(replica));
            }
            Verdict::GiveUp => {
                child.life = Life::GivenUp;
                metrics::counter!(crate::metrics::STOPPED).increment(1);
                let cause = format!("failed too often: {cause}");
                probe.report(Report::ReplicaStopped { shard, replica, cause: cause.clone() });
                let stopped = VolumesMessage::ReplicaStopped { shard, replica, cause };
                let _ = common.volumes.cast(stopped);
            }
        }
        let _ = common.volumes.cast(VolumesMessage::ReplicaDown(replica));
    }

    /// A replica ended in order: it was destroyed.
    pub(super) fn ended(&mut self, actor: ActorId) {
        let Some(replica) = self.find(actor) else { return };
        if let Some(Child { shard, .. }) = self.children.remove(&replica) {
            let ended = VolumesMessage::ReplicaEnded { shard, replica };
            let _ = self.arguments.shared.volumes.cast(ended);
        }
    }

    fn find(&self, actor: ActorId) -> Option<ReplicaId> {
        let is = |life: &Life| matches!(life, Life::Runs(runs) if runs.get_id() == actor);
        self.children.iter().find(|(_, child)| is(&child.life)).map(|(replica, _)| *replica)
    }

    /// Ends all replicas, each after what it is doing.
    pub(super) async fn stop_all(&mut self) {
        let children = std::mem::take(&mut self.children).into_values();
        let running: Vec<_> = children
            .filter_map(|child| match child.life {
                Life::Runs(actor) => Some(actor),
                Life::Rests | Life::GivenUp => None,
            })
            .collect();
        for actor in &running {
            actor.stop(None);
        }
        for actor in running {
            let _ = actor.wait(Some(STOP_WAIT)).await;
        }
    }
}
