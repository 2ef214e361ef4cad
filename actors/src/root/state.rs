//! The root's children, and the order in which they begin and end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::membership::{Boot, swim::Roster};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    CHILD_RESTARTS, Ended, RootArguments, RootMessage, STATE_FILES,
    children::Child,
    image::{self, OldImage},
    register::{Registered, founding_catalog, register, superseded},
};
use crate::{
    budget::NodeBudget,
    catalog::{FollowerActor, FollowerArguments, Reporter},
    controller::{ControllerActor, ControllerArguments},
    disk::{DiskActor, DiskArguments, StoreIds},
    membership::{Membership, MembershipConfig, MembershipDoor, MembershipMessage},
    outbox::{Outbox, OutboxActor},
    probe::Report,
    queue::Queue,
    supervision::{Failures, Verdict},
    volumes::{VolumesActor, VolumesArguments, VolumesMessage},
};

/// Longest wait for one actor's end.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// State of the root.
#[derive(Debug)]
pub struct RootState {
    myself: ActorRef<RootMessage>,
    arguments: RootArguments,
    budget: Arc<NodeBudget>,
    membership: ActorRef<MembershipMessage>,
    door: MembershipDoor,
    outbox: ActorCell,
    volumes: ActorRef<VolumesMessage>,
    restartable: BTreeMap<Child, (ActorCell, Failures)>,
    registering: JoinHandle<()>,
}

impl RootState {
    pub(super) async fn begin(
        myself: ActorRef<RootMessage>,
        mut arguments: RootArguments,
    ) -> Result<Self, ActorProcessingErr> {
        let world = arguments.parts.world.clone();
        for (node, addresses) in &arguments.parts.seeds {
            world.network.learn(*node, addresses.clone());
        }
        let membership = spawn_membership(&myself, &arguments).await?;
        let queue = Arc::<Queue>::default();
        let sent = (world.clone(), Arc::clone(&queue));
        let (outbox, _) = Actor::spawn_linked(None, OutboxActor, sent, myself.get_cell()).await?;
        let budget = Arc::clone(&arguments.budget);
        let way_out = Outbox::new(outbox.clone(), queue, arguments.parts.limits.outbox_bytes_max);
        let volumes = spawn_volumes(&myself, &mut arguments, &way_out, &budget).await?;
        let registering = tokio::spawn(announce(myself.clone(), &arguments));
        let mut state = Self {
            myself,
            budget,
            door: MembershipDoor::new(membership.clone()),
            membership,
            outbox: outbox.get_cell(),
            volumes,
            restartable: BTreeMap::new(),
            registering,
            arguments,
        };
        for child in [Child::Disk, Child::Follower, Child::Controller] {
            state.spawn(child, Failures::new(CHILD_RESTARTS)).await?;
        }
        Ok(state)
    }

    pub(super) fn membership_door(&self) -> MembershipDoor {
        self.door.clone()
    }

    async fn spawn(&mut self, child: Child, failures: Failures) -> Result<(), ActorProcessingErr> {
        let me = self.myself.get_cell();
        let parts = &self.arguments.parts;
        let world = parts.world.clone();
        let cell = match child {
            Child::Disk => {
                let arguments = DiskArguments {
                    world,
                    hosted: self.arguments.hosted.subscribe(),
                    budget: Arc::clone(&self.budget),
                    router: self.arguments.router.clone(),
                    space: self.arguments.space.clone(),
                };
                Actor::spawn_linked(None, DiskActor, arguments, me).await?.0.get_cell()
            }
            Child::Follower => {
                let arguments = FollowerArguments {
                    world,
                    router: self.arguments.router.clone(),
                    seeds: parts.seeds.iter().map(|(node, _)| *node).collect(),
                    view: Arc::clone(&self.arguments.catalog.borrow()),
                    shown: self.arguments.catalog.clone(),
                    volumes: self.volumes.clone(),
                    membership: self.membership.clone(),
                };
                Actor::spawn_linked(None, FollowerActor, arguments, me).await?.0.get_cell()
            }
            Child::Controller => {
                let arguments = ControllerArguments {
                    world,
                    router: self.arguments.router.clone(),
                    live: self.arguments.live.subscribe(),
                };
                Actor::spawn_linked(None, ControllerActor, arguments, me).await?.0.get_cell()
            }
        };
        self.restartable.insert(child, (cell, failures));
        Ok(())
    }

    /// Starts a failed child again.
    pub(super) async fn restart(&mut self, child: Child) -> Result<(), ActorProcessingErr> {
        match self.restartable.remove(&child) {
            Some((_, failures)) => self.spawn(child, failures).await,
            None => Ok(()),
        }
    }

    /// An actor failed. Says how the node ends, if it must.
    pub(super) fn failed(&mut self, actor: ActorId, cause: &str) -> Option<Ended> {
        let world = &self.arguments.parts.world;
        let found = self.restartable.iter_mut().find(|(_, (cell, _))| cell.get_id() == actor);
        let Some((child, (_, failures))) = found else {
            let actor = if actor == self.volumes.get_id() {
                "volumes"
            } else if actor == self.outbox.get_id() {
                "outbox"
            } else {
                "membership"
            };
            return Some(Ended::Failed { actor, cause: cause.to_owned() });
        };
        let child = *child;
        match failures.record(world.clock.now()) {
            Verdict::RestartAfter(wait) => {
                metrics::counter!(crate::metrics::RESTARTS).increment(1);
                world
                    .probe
                    .report(Report::Restarted { actor: child.name(), cause: cause.to_owned() });
                self.myself.send_after(wait, move || RootMessage::Restart(child));
                None
            }
            Verdict::GiveUp => Some(Ended::Failed { actor: child.name(), cause: cause.to_owned() }),
        }
    }

    /// Notes that the disk is an old image; how the node ends.
    pub(super) fn note_old_image(&self, image: OldImage) -> Ended {
        let files = &self.arguments.parts.world.state_files;
        match image::save(files, &image) {
            Ok(()) => Ended::OldImage(image),
            // The next start hears it again.
            Err(error) => Ended::Failed {
                actor: STATE_FILES,
                cause: format!("the disk is an old image, and that cannot be noted: {error}"),
            },
        }
    }

    /// Ends every child, users before what they use: ractor would kill them in
    /// no order and without a farewell.
    pub(super) async fn end(&mut self, ended: Ended) {
        self.registering.abort();
        for (cell, _) in self.restartable.values() {
            stop(cell).await;
        }
        let (reply, left) = oneshot::channel();
        if self.membership.cast(MembershipMessage::Leave { reply }).is_ok() {
            let _ = tokio::time::timeout(STOP_WAIT, left).await;
        }
        stop(&self.membership.get_cell()).await;
        stop(&self.volumes.get_cell()).await;
        stop(&self.outbox).await;
        self.arguments.ended.send_replace(Some(ended));
    }
}

async fn stop(cell: &ActorCell) {
    let _ = cell.stop_and_wait(None, Some(STOP_WAIT)).await;
}

async fn spawn_membership(
    myself: &ActorRef<RootMessage>,
    arguments: &RootArguments,
) -> Result<ActorRef<MembershipMessage>, ActorProcessingErr> {
    let world = &arguments.parts.world;
    let config = MembershipConfig {
        node: world.identity.node,
        incarnation: world.identity.boot.incarnation,
        seed: world.entropy.next_u64(),
        roster: Roster::of(&arguments.parts.catalog),
        clock: Arc::clone(&world.clock),
        network: Arc::clone(&world.network),
        live: arguments.live.clone(),
    };
    let (actor, _) = Actor::spawn_linked(None, Membership, config, myself.get_cell()).await?;
    Ok(actor)
}

async fn spawn_volumes(
    myself: &ActorRef<RootMessage>,
    arguments: &mut RootArguments,
    outbox: &Outbox,
    budget: &Arc<NodeBudget>,
) -> Result<ActorRef<VolumesMessage>, ActorProcessingErr> {
    let parts = &mut arguments.parts;
    let world = parts.world.clone();
    let founding = parts.founding.as_ref().map(|_| founding_catalog(world.identity.node));
    let volumes = VolumesArguments {
        outbox: outbox.clone(),
        stores: StoreIds::after(parts.highest_store),
        budget: Arc::clone(budget),
        space: arguments.space.subscribe(),
        partial: Arc::new(std::mem::take(&mut parts.partial)),
        reporter: Reporter::new(world.clone(), arguments.router.clone()),
        recovered: std::mem::take(&mut parts.recovered),
        founding,
        catalog: Arc::clone(&parts.catalog),
        hosted: arguments.hosted.clone(),
        world,
    };
    let (actor, _) = Actor::spawn_linked(None, VolumesActor, volumes, myself.get_cell()).await?;
    Ok(actor)
}

/// Tells the catalog of this start, and the root if it was refused, now or
/// later by the start of another process.
fn announce(
    myself: ActorRef<RootMessage>,
    arguments: &RootArguments,
) -> impl Future<Output = ()> + Send + 'static {
    let parts = &arguments.parts;
    let (world, router) = (parts.world.clone(), arguments.router.clone());
    let (mut record, founding) = (parts.record.clone(), parts.founding.clone());
    let (own, catalog) = (record.boot, arguments.catalog.subscribe());
    if parts.forgetful {
        // As good as an old image: it asks as one, and learns which replicas
        // may have lived here.
        record.boot = Boot::default();
    }
    async move {
        let node = record.node;
        let message = match register(world, router, record, founding).await {
            Registered::Refused(cause) => RootMessage::Refused(cause),
            Registered::OldImage(image) => RootMessage::OldImage(image),
            Registered::Done => RootMessage::Refused(superseded(catalog, node, own).await),
        };
        let _ = myself.cast(message);
    }
}
