//! One plan at a time, carried out in order.

use std::{collections::BTreeSet, time::Duration};

use cluster::{
    auth::Principal,
    catalog::{
        command::{CatalogCommand, CatalogOutcome},
        controller::{ControllerStep, ObservedShard, plan},
    },
    ids::{CATALOG_SHARD, Epoch},
    raft::types::ConfigurationChange,
    request::{ShardBody, ShardRequest, ShardResult},
    shard::command::Outcome,
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{ControllerArguments, STEPS_MAX, mend::Mending};
use crate::{
    failpoint::FailPoint,
    replica::messages::{ReplicaHandle, ReplicaMessage},
};

/// Time for one step.
pub(super) const STEP_TIMEOUT_MS: u32 = 5_000;
/// Entries a learner may lack and still count as caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// State of the controller.
#[derive(Debug)]
pub struct ControllerState {
    arguments: ControllerArguments,
    /// The steps being taken. However they end, they are over then.
    steps: Option<JoinHandle<()>>,
    mending: Mending,
}

impl ControllerState {
    pub(super) fn new(arguments: ControllerArguments) -> Self {
        Self { arguments, steps: None, mending: Mending::default() }
    }

    /// Looks after the shards led here, the catalog among them.
    pub(super) fn round(&mut self) {
        self.mending.round(&self.arguments);
        self.plan_catalog();
    }

    /// Plans and begins the steps, if this node's catalog replica leads.
    fn plan_catalog(&mut self) {
        if self.steps.as_ref().is_some_and(|steps| !steps.is_finished()) {
            return;
        }
        let hosted = self.arguments.router.hosted();
        let Some(handle) = hosted.by_shard.get(&CATALOG_SHARD) else { return };
        let Some(catalog) = observe(handle) else { return };
        let view = self.arguments.router.catalog();
        let live = self.arguments.live.borrow().nodes();
        let plan = plan(&view, &catalog, &live);
        for (shard, cause) in &plan.waiting {
            tracing::debug!(%shard, %cause, "a shard waits for nodes");
        }
        if plan.steps.is_empty() {
            return;
        }
        let steps = Steps { arguments: self.arguments.clone(), handle: handle.clone() };
        self.steps = Some(tokio::spawn(steps.run(plan.steps)));
    }
}

impl Drop for ControllerState {
    /// Steps do not outlive the controller: a second one would take others.
    fn drop(&mut self) {
        if let Some(steps) = &self.steps {
            steps.abort();
        }
    }
}

/// The catalog as its leading replica sees it; none if it does not lead here.
fn observe(handle: &ReplicaHandle) -> Option<ObservedShard> {
    let published = handle.published.borrow();
    let status = published.status.as_ref().filter(|status| status.leading)?;
    let group = published.group.as_ref()?;
    let caught_up: BTreeSet<_> = group
        .peers
        .iter()
        .filter(|peer| !peer.snapshot && peer.matched.0 + CAUGHT_UP_ENTRIES >= group.last.0)
        .map(|peer| peer.replica)
        .collect();
    let joint = !group.configuration.outgoing.is_empty();
    let applying = group.epoch != status.descriptor.epoch;
    Some(ObservedShard {
        descriptor: status.descriptor.clone(),
        changing: joint || applying,
        caught_up,
    })
}

/// The steps of one plan.
struct Steps {
    arguments: ControllerArguments,
    handle: ReplicaHandle,
}

impl Steps {
    /// Takes steps until one fails: the next round plans anew.
    async fn run(self, steps: Vec<ControllerStep>) {
        for step in steps.into_iter().take(STEPS_MAX) {
            self.arguments.world.reach(FailPoint::ControllerStep);
            let done = match step {
                ControllerStep::Propose(command) => self.propose(command).await,
                ControllerStep::ChangeCatalog(wanted) => change(&self.handle, wanted).await,
            };
            if let Err(cause) = done {
                tracing::debug!(%cause, "a controller step was not taken");
                return;
            }
            self.arguments.world.reach(FailPoint::ControllerStepped);
        }
    }

    async fn propose(&self, command: CatalogCommand) -> Result<(), String> {
        let request = ShardRequest {
            shard: CATALOG_SHARD,
            epoch: Epoch(0),
            clock: self.arguments.world.hybrid.last(),
            timeout_ms: STEP_TIMEOUT_MS,
            // Only here: another leader has a controller of its own.
            forwarded: true,
            principal: Principal::Trusted,
            body: ShardBody::Catalog { request: None, command },
        };
        match self.handle.call(request).await.result {
            Ok(ShardResult::Outcome(Outcome::Catalog(CatalogOutcome::Refused(refusal)))) => {
                Err(refusal.to_string())
            }
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

/// Has a leader change its shard's replicas, and waits until it has.
pub(super) async fn change(
    handle: &ReplicaHandle,
    change: ConfigurationChange,
) -> Result<(), String> {
    let (reply, done) = oneshot::channel();
    let configure = ReplicaMessage::Configure { change, reply };
    handle.actor.cast(configure).map_err(|error| error.to_string())?;
    let timeout = Duration::from_millis(u64::from(STEP_TIMEOUT_MS));
    let done = tokio::time::timeout(timeout, done).await;
    done.map_err(|_| "the change was not applied in time".to_owned())?
        .map_err(|error| error.to_string())?
        .map_err(|fault| fault.to_string())
}
