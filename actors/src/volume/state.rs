//! The replicas of one volume on this node.

use std::collections::BTreeMap;

use cluster::{
    catalog::record::VolumeKind,
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
        ReplicaActor, ReplicaArguments,
        apply::{OverlayGauge, Published},
        messages::{Beginning, ReplicaMessage},
    },
    supervision::{Failures, Verdict},
    volumes::VolumesMessage,
};

#[derive(Debug)]
struct Child {
    shard: ShardId,
    actor: ActorRef<ReplicaMessage>,
    failures: Failures,
}

/// State of a volume.
#[derive(Debug)]
pub struct VolumeState {
    myself: ActorRef<VolumeMessage>,
    arguments: VolumeArguments,
    children: BTreeMap<ReplicaId, Child>,
}

impl VolumeState {
    pub(super) fn new(myself: ActorRef<VolumeMessage>, arguments: VolumeArguments) -> Self {
        Self { myself, arguments, children: BTreeMap::new() }
    }

    /// Starts a replica unless it runs already.
    pub(super) async fn begin(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        beginning: Beginning,
    ) -> Result<(), ActorProcessingErr> {
        if self.children.contains_key(&replica) {
            return Ok(());
        }
        let failures = Failures::new(REPLICA_RESTARTS);
        self.spawn(shard, replica, beginning, failures).await
    }

    async fn spawn(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        beginning: Beginning,
        failures: Failures,
    ) -> Result<(), ActorProcessingErr> {
        let common = &self.arguments.shared;
        let volume = self.arguments.volume;
        let (published, shown) = watch::channel(Published::default());
        let arguments = ReplicaArguments {
            world: common.world.clone(),
            shard,
            volume,
            replica,
            versions: self.versions(),
            role: self.role(),
            beginning,
            outbox: common.outbox.clone(),
            stores: std::sync::Arc::clone(&common.stores),
            overlay: OverlayGauge::new(std::sync::Arc::clone(&common.overlay)),
            space: common.space.clone(),
            partial: common.partial.get(&replica).cloned().unwrap_or_default(),
            published,
        };
        let overlay = std::sync::Arc::clone(&arguments.overlay.own);
        let (actor, _) =
            Actor::spawn_linked(None, ReplicaActor, arguments, self.myself.get_cell()).await?;
        let handle = ReplicaActor::handle((replica, shard, volume), actor.clone(), shown, overlay);
        self.children.insert(replica, Child { shard, actor, failures });
        common.volumes.cast(VolumesMessage::ReplicaUp(Box::new(handle)))?;
        Ok(())
    }

    fn versions(&self) -> VersionKind {
        match self.arguments.kind {
            VolumeKind::Single => VersionKind::Dense,
            VolumeKind::Hash | VolumeKind::Ordered => VersionKind::Hybrid,
        }
    }

    fn role(&self) -> ShardRole {
        if self.arguments.volume == CATALOG_VOLUME { ShardRole::Catalog } else { ShardRole::Data }
    }

    /// Tells a replica to destroy itself; its end arrives as an event.
    pub(super) fn destroy(&mut self, replica: ReplicaId) {
        if let Some(child) = self.children.get(&replica) {
            let _ = child.actor.cast(ReplicaMessage::Destroy);
        }
    }

    /// Starts a failed replica again, from its log.
    pub(super) async fn restart(&mut self, replica: ReplicaId) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.children.remove(&replica) else { return Ok(()) };
        self.spawn(child.shard, replica, Beginning::Restarted, child.failures).await
    }

    /// A replica's actor failed: a panic or a broken invariant in its Raft half.
    pub(super) fn failed(&mut self, actor: ActorId, cause: &str) {
        let now = self.arguments.shared.world.clock.now();
        let Some((replica, child)) = self.find(actor) else { return };
        let (shard, verdict) = (child.shard, child.failures.record(now));
        let world = &self.arguments.shared.world;
        let volumes = &self.arguments.shared.volumes;
        match verdict {
            Verdict::RestartAfter(wait) => {
                metrics::counter!(crate::metrics::RESTARTS).increment(1);
                let cause = cause.to_owned();
                world.probe.report(Report::Restarted { actor: "replica", cause });
                self.myself.send_after(wait, move || VolumeMessage::Restart(replica));
            }
            Verdict::GiveUp => {
                metrics::counter!(crate::metrics::STOPPED).increment(1);
                let cause = format!("failed too often: {cause}");
                world.probe.report(Report::ReplicaStopped { shard, replica, cause: cause.clone() });
                let _ = volumes.cast(VolumesMessage::ReplicaStopped { shard, replica, cause });
            }
        }
        let _ = volumes.cast(VolumesMessage::ReplicaDown { shard, replica });
    }

    /// A replica ended in order: it was destroyed.
    pub(super) fn ended(&mut self, actor: ActorId) {
        let Some((replica, child)) = self.find(actor) else { return };
        let shard = child.shard;
        self.children.remove(&replica);
        let down = VolumesMessage::ReplicaDown { shard, replica };
        let _ = self.arguments.shared.volumes.cast(down);
    }

    fn find(&mut self, actor: ActorId) -> Option<(ReplicaId, &mut Child)> {
        self.children
            .iter_mut()
            .find(|(_, child)| child.actor.get_id() == actor)
            .map(|(replica, child)| (*replica, child))
    }
}
