//! The map of replicas, and the volumes that run them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    catalog::{
        command::CatalogCommand,
        record::{Loss, VolumeKind},
        view::CatalogView,
    },
    ids::{CATALOG_VOLUME, ReplicaId, ShardId, VolumeId},
    limits::REPLICAS_PER_NODE_MAX,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{
    VolumesArguments, VolumesMessage,
    reconcile::{Step, plan},
};
use crate::{
    probe::Report,
    replica::messages::{Beginning, ReplicaHandle},
    router::Hosted,
    volume::{VolumeActor, VolumeArguments, VolumeMessage, VolumeShared},
};

/// Longest wait for one volume's end.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Pause before a loss is reported again that the catalog does not show: an
/// election, and the tries of one report.
const REPORT_AGAIN: Duration = Duration::from_secs(10);

/// State of the volumes actor.
#[derive(Debug)]
pub struct VolumesState {
    myself: ActorRef<VolumesMessage>,
    arguments: VolumesArguments,
    volumes: BTreeMap<VolumeId, ActorRef<VolumeMessage>>,
    /// Replicas begun here and not yet ended, by shard.
    running: BTreeMap<ShardId, (VolumeId, ReplicaId)>,
    /// Replicas that are lost and not yet gone.
    lost: BTreeMap<ReplicaId, LostHere>,
    /// Whether an alarm is set to look again.
    alarm: bool,
}

/// A lost replica whose files are still here.
#[derive(Clone, Copy, Debug)]
struct LostHere {
    shard: ShardId,
    volume: VolumeId,
    loss: Loss,
}

impl VolumesState {
    pub(super) fn new(myself: ActorRef<VolumesMessage>, arguments: VolumesArguments) -> Self {
        Self {
            myself,
            arguments,
            volumes: BTreeMap::new(),
            running: BTreeMap::new(),
            lost: BTreeMap::new(),
            alarm: false,
        }
    }

    /// Starts what the log holds, and the catalog if this start founds it. Of
    /// two replicas of one shard the younger is here because the other is lost.
    pub(super) async fn begin(&mut self) -> Result<(), ActorProcessingErr> {
        let recovered = std::mem::take(&mut self.arguments.recovered);
        let newest: BTreeMap<ShardId, ReplicaId> =
            recovered.iter().map(|found| (found.shard, found.replica)).collect();
        for mut replica in recovered {
            let (shard, volume, id) = (replica.shard, replica.volume, replica.replica);
            replica.damaged |= newest.get(&shard) != Some(&id);
            let beginning = Beginning::Recovered(replica);
            self.begin_replica(volume, shard, id, beginning).await?;
        }
        if let Some(descriptor) = self.arguments.founding.take()
            && !self.running.contains_key(&descriptor.shard)
            && let Some(first) = descriptor.replicas.first().map(|replica| replica.replica)
        {
            let (shard, volume) = (descriptor.shard, descriptor.volume);
            self.begin_replica(volume, shard, first, Beginning::Founder(descriptor)).await?;
        }
        Ok(())
    }

    /// Takes a view over, unless it has a newer one.
    pub(super) async fn catalog_changed(
        &mut self,
        view: Arc<CatalogView>,
    ) -> Result<(), ActorProcessingErr> {
        if view.version() >= self.arguments.catalog.version() {
            self.arguments.catalog = view;
        }
        self.reconcile().await
    }

    /// Compares once more with the catalog as it is.
    pub(super) async fn look(&mut self) -> Result<(), ActorProcessingErr> {
        self.alarm = false;
        self.reconcile().await
    }

    /// Takes the steps from what runs to what the catalog wants.
    async fn reconcile(&mut self) -> Result<(), ActorProcessingErr> {
        let running = self.running.iter().map(|(shard, (_, replica))| (*shard, *replica)).collect();
        let gone = self.lost.iter().map(|(replica, lost)| (*replica, lost.shard)).collect();
        let identity = &self.arguments.world.identity;
        let own = (identity.node, identity.boot);
        for step in plan(&self.arguments.catalog, own, &running, &gone) {
            match step {
                Step::Found(descriptor, replica) => {
                    let (shard, volume) = (descriptor.shard, descriptor.volume);
                    let beginning = Beginning::Founder(descriptor);
                    self.begin_replica(volume, shard, replica, beginning).await?;
                }
                Step::Join(descriptor, replica) => {
                    let (shard, volume) = (descriptor.shard, descriptor.volume);
                    let beginning = Beginning::Joiner(descriptor);
                    self.begin_replica(volume, shard, replica, beginning).await?;
                }
                Step::Destroy(shard, replica) => self.destroy(shard, replica)?,
                Step::Retire(shard, replica, loss) => self.retire(shard, replica, loss)?,
                Step::Report(shard, replica) => self.report(shard, replica),
                Step::Confirm(shard, replica) => self.confirm(shard, replica),
            }
        }
        Ok(())
    }

    /// Tells the catalog that a replica is gone; asked again with the next
    /// view until the record is.
    fn confirm(&self, shard: ShardId, replica: ReplicaId) {
        let command = CatalogCommand::ObserveDestroyed { shard, replica };
        self.arguments.reporter.tell(command);
    }

    /// Tells the catalog that a replica is lost; again after a while, until its
    /// record says so.
    fn report(&mut self, shard: ShardId, replica: ReplicaId) {
        let Some(LostHere { loss, .. }) = self.lost.get(&replica).copied() else { return };
        self.arguments.reporter.tell(CatalogCommand::ReportLost { shard, replica, loss });
        if !std::mem::replace(&mut self.alarm, true) {
            self.myself.send_after(REPORT_AGAIN, || VolumesMessage::LookAgain);
        }
    }

    fn retire(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        loss: Loss,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((volume, _)) = self.running.get(&shard)
            && let Some(actor) = self.volumes.get(volume)
        {
            actor.cast(VolumeMessage::Retire(replica, loss))?;
        }
        Ok(())
    }

    /// A replica takes no part any more: its place is free for another.
    pub(super) fn replica_lost(
        &mut self,
        (shard, replica, volume): (ShardId, ReplicaId, VolumeId),
        loss: Loss,
        cause: String,
    ) {
        self.lost.insert(replica, LostHere { shard, volume, loss });
        self.running.retain(|_, (_, running)| *running != replica);
        self.publish(|hosted| {
            hosted.by_shard.retain(|_, handle| handle.replica != replica);
            hosted.lost.insert(replica, (shard, cause));
        });
        self.look_again();
    }

    fn look_again(&self) {
        let _ = self.myself.cast(VolumesMessage::LookAgain);
    }

    async fn begin_replica(
        &mut self,
        volume: VolumeId,
        shard: ShardId,
        replica: ReplicaId,
        beginning: Beginning,
    ) -> Result<(), ActorProcessingErr> {
        if self.running.len() >= REPLICAS_PER_NODE_MAX {
            tracing::error!(%shard, limit = REPLICAS_PER_NODE_MAX, "no more replicas fit on this node");
            return Ok(());
        }
        let actor = self.volume(volume).await?;
        self.running.insert(shard, (volume, replica));
        actor.cast(VolumeMessage::Begin { shard, replica, beginning: Box::new(beginning) })?;
        Ok(())
    }

    /// The actor of a volume, started when first needed.
    async fn volume(
        &mut self,
        volume: VolumeId,
    ) -> Result<ActorRef<VolumeMessage>, ActorProcessingErr> {
        if let Some(actor) = self.volumes.get(&volume) {
            return Ok(actor.clone());
        }
        let shared = VolumeShared {
            world: self.arguments.world.clone(),
            outbox: self.arguments.outbox.clone(),
            stores: Arc::clone(&self.arguments.stores),
            budget: Arc::clone(&self.arguments.budget),
            space: self.arguments.space.clone(),
            partial: Arc::clone(&self.arguments.partial),
            volumes: self.myself.clone(),
        };
        let arguments = VolumeArguments { volume, kind: self.kind(volume), shared };
        let (actor, _) =
            Actor::spawn_linked(None, VolumeActor, arguments, self.myself.get_cell()).await?;
        self.volumes.insert(volume, actor.clone());
        Ok(actor)
    }

    /// How a volume's keys are spread. Only a founder's birth needs it, and a
    /// founder begins by a view that has the volume; a recovered replica reads
    /// its own root record.
    fn kind(&self, volume: VolumeId) -> VolumeKind {
        if volume == CATALOG_VOLUME {
            return VolumeKind::Single;
        }
        self.arguments
            .catalog
            .volume_by_id(volume)
            .map_or(VolumeKind::Hash, |record| record.policy.kind)
    }

    fn destroy(&mut self, shard: ShardId, replica: ReplicaId) -> Result<(), ActorProcessingErr> {
        let lost = self.lost.get(&replica).map(|lost| lost.volume);
        let volume = lost.or_else(|| self.running.get(&shard).map(|(volume, _)| *volume));
        if let Some(actor) = volume.and_then(|volume| self.volumes.get(&volume)) {
            actor.cast(VolumeMessage::Destroy(replica))?;
        }
        Ok(())
    }

    /// A replica runs. One that was lost at its birth said so before.
    pub(super) fn replica_up(&mut self, handle: ReplicaHandle) {
        if self.lost.contains_key(&handle.replica) {
            return;
        }
        self.publish(|hosted| {
            hosted.stopped.remove(&handle.replica);
            hosted.by_shard.insert(handle.shard, handle);
        });
    }

    /// A replica's actor failed. It still counts as running here: its data is
    /// there, so it must neither be begun anew nor be confirmed as gone.
    pub(super) fn replica_down(&self, replica: ReplicaId) {
        self.publish(|hosted| {
            hosted.by_shard.retain(|_, handle| handle.replica != replica);
        });
    }

    pub(super) fn replica_ended(&mut self, shard: ShardId, replica: ReplicaId) {
        self.running.retain(|at, (_, id)| *at != shard || *id != replica);
        let was_lost = self.lost.remove(&replica).is_some();
        self.publish(|hosted| {
            hosted.by_shard.retain(|_, handle| handle.replica != replica);
            hosted.stopped.remove(&replica);
            hosted.lost.remove(&replica);
        });
        let record = self.arguments.catalog.shard(shard);
        if was_lost && record.is_some_and(|record| !record.deleting) {
            let probe = &self.arguments.world.probe;
            probe.report(Report::ReplicaReplaced { shard, replica });
        }
        self.end_empty_volumes();
        // What ended may be wanted again under another id.
        self.look_again();
    }

    /// Volumes come and go; one without a replica here needs no actor.
    fn end_empty_volumes(&mut self) {
        let (running, lost) = (&self.running, &self.lost);
        let used = |id: &VolumeId| {
            running.values().any(|(volume, _)| volume == id)
                || lost.values().any(|lost| lost.volume == *id)
        };
        self.volumes.retain(|id, actor| {
            let used = used(id);
            if !used {
                actor.stop(None);
            }
            used
        });
    }

    /// Ends all volumes, each after its replicas.
    pub(super) async fn stop_all(&mut self) {
        let volumes = std::mem::take(&mut self.volumes);
        for actor in volumes.values() {
            actor.stop(None);
        }
        for actor in volumes.into_values() {
            let _ = actor.wait(Some(STOP_WAIT)).await;
        }
    }

    pub(super) fn replica_stopped(&mut self, shard: ShardId, replica: ReplicaId, cause: String) {
        self.publish(|hosted| {
            hosted.stopped.insert(replica, (shard, cause));
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Hosted)) {
        self.arguments.hosted.send_modify(|hosted| change(Arc::make_mut(hosted)));
    }
}
