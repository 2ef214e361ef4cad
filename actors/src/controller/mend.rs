//! The shards led here: their logs' steps towards the catalog's intent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cluster::{
    auth::Principal,
    catalog::{
        command::{CatalogCommand, CatalogOutcome},
        controller::{ShardStep, needs_look, next_step},
        view::CatalogView,
    },
    ids::{CATALOG_SHARD, Epoch, NodeId, ShardId},
    request::{ShardBody, ShardRequest, ShardResult},
    shard::command::Outcome,
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    ControllerArguments, MENDING_MAX,
    state::{STEP_TIMEOUT_MS, change},
};
use crate::replica::messages::{ReplicaHandle, ReplicaMessage};

/// Steps under way, one a shard.
#[derive(Debug, Default)]
pub(super) struct Mending(BTreeMap<ShardId, JoinHandle<()>>);

impl Mending {
    /// Takes the next step of each shard led here that may need one.
    pub(super) fn round(&mut self, arguments: &ControllerArguments) {
        self.0.retain(|_, step| !step.is_finished());
        let (view, hosted) = (arguments.router.catalog(), arguments.router.hosted());
        let due = hosted.by_shard.values().filter(|handle| is_due(&view, handle));
        for handle in due {
            if self.0.len() >= MENDING_MAX {
                return;
            }
            self.0.entry(handle.shard).or_insert_with(|| {
                let step = Step {
                    arguments: arguments.clone(),
                    handle: handle.clone(),
                    view: Arc::clone(&view),
                    live: arguments.live.borrow().nodes(),
                };
                tokio::spawn(step.run())
            });
        }
    }
}

impl Drop for Mending {
    /// Steps do not outlive the controller: a second one would take others.
    fn drop(&mut self) {
        self.0.values().for_each(JoinHandle::abort);
    }
}

/// Whether the shard is led here, is no catalog, and its log or its record
/// shows something to do.
fn is_due(view: &CatalogView, handle: &ReplicaHandle) -> bool {
    let Some(record) = view.shard(handle.shard).filter(|_| handle.shard != CATALOG_SHARD) else {
        return false;
    };
    let published = handle.published.borrow();
    let led = published.status.as_ref().filter(|status| status.leading);
    led.is_some_and(|status| {
        status.descriptor.epoch > record.descriptor.epoch || needs_look(view, record)
    })
}

/// One step of one shard.
struct Step {
    arguments: ControllerArguments,
    handle: ReplicaHandle,
    view: Arc<CatalogView>,
    live: BTreeSet<NodeId>,
}

impl Step {
    async fn run(self) {
        let shard = self.handle.shard;
        if let Err(cause) = self.take().await {
            tracing::debug!(%shard, %cause, "a step of a shard was not taken");
        }
    }

    async fn take(self) -> Result<(), String> {
        let (reply, seen) = oneshot::channel();
        self.handle.actor.cast(ReplicaMessage::Examine(reply)).map_err(|e| e.to_string())?;
        let timeout = Duration::from_millis(u64::from(STEP_TIMEOUT_MS));
        let seen = tokio::time::timeout(timeout, seen).await;
        let Ok(Ok(Some(seen))) = seen else { return Ok(()) };
        match next_step(&self.view, &seen, &self.live) {
            Some(ShardStep::Observe(descriptor)) => {
                self.observe(CatalogCommand::ObserveShard(descriptor)).await
            }
            Some(ShardStep::Change(wanted)) => {
                tracing::info!(shard = %self.handle.shard, change = ?wanted.steps, "replicas of a shard change");
                change(&self.handle, wanted).await
            }
            None => Ok(()),
        }
    }

    async fn observe(&self, command: CatalogCommand) -> Result<(), String> {
        let request = ShardRequest {
            shard: CATALOG_SHARD,
            epoch: Epoch(0),
            clock: self.arguments.world.hybrid.last(),
            timeout_ms: STEP_TIMEOUT_MS,
            forwarded: false,
            principal: Principal::Trusted,
            body: ShardBody::Catalog { request: None, command },
        };
        match self.arguments.router.shard(request).await.result {
            Ok(ShardResult::Outcome(Outcome::Catalog(CatalogOutcome::Refused(refusal)))) => {
                Err(refusal.to_string())
            }
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.to_string()),
        }
    }
}
