//! What a node says to the catalog when it starts: that it founds the cluster,
//! or that it is here again.

use std::{sync::Arc, time::Duration};

use cluster::{
    auth::Principal,
    catalog::{
        command::{CatalogCommand, CatalogOutcome, CatalogRefusal},
        record::{ClusterRecord, NodeRecord},
        view::CatalogView,
    },
    ids::{CATALOG_SHARD, CATALOG_VOLUME, Epoch, NodeId, ReplicaId},
    membership::{
        Boot,
        identity::{BootVerdict, judge_boot},
    },
    request::{ShardBody, ShardRequest, ShardResult},
    shard::{
        command::Outcome,
        descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    },
};

use tokio::sync::watch;

use super::image::OldImage;
use crate::{failpoint::FailPoint, router::Router, world::World};

/// Pause between tries; the catalog may need an election first.
const PAUSE: Duration = Duration::from_millis(250);
/// Time for one try.
const TIMEOUT_MS: u32 = 5_000;

/// The catalog shard of a new cluster: one voter, on its first node.
pub(super) fn founding_catalog(node: NodeId) -> ShardDescriptor {
    let first = ReplicaDescriptor { replica: ReplicaId(1), node, role: ReplicaRole::Voter };
    ShardDescriptor {
        shard: CATALOG_SHARD,
        volume: CATALOG_VOLUME,
        epoch: Epoch(1),
        predicate: Predicate::all(),
        replicas: vec![first],
    }
}

/// What the catalog said to a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    /// It knows it now.
    Done,
    /// It has seen a later one.
    OldImage(OldImage),
    /// This node must not take part.
    Refused(String),
}

/// Tells the catalog of this start until it has heard.
pub(super) async fn register(
    world: World,
    router: Router,
    record: NodeRecord,
    founding: Option<ClusterRecord>,
) -> Registered {
    if let Some(cluster) = founding {
        let catalog = founding_catalog(record.node);
        let bootstrap = CatalogCommand::Bootstrap { cluster, node: record.clone(), catalog };
        // A repetition after a crash is refused as already done.
        let _ = propose(&world, &router, bootstrap).await;
    }
    let boot = CatalogCommand::RegisterBoot {
        node: record.node,
        boot: record.boot,
        addresses: record.addresses,
        http_address: record.http_address,
        zone: record.zone,
        capacity_bytes: record.capacity_bytes,
    };
    world.reach(FailPoint::StartAsked);
    let outcome = propose(&world, &router, boot).await;
    world.reach(FailPoint::StartKnown);
    match outcome {
        CatalogOutcome::Refused(refusal) => judge(&refusal),
        CatalogOutcome::Done
        | CatalogOutcome::Node(_)
        | CatalogOutcome::Volume(_)
        | CatalogOutcome::Shard(_)
        | CatalogOutcome::Replica(_) => Registered::Done,
    }
}

fn judge(refusal: &CatalogRefusal) -> Registered {
    match refusal {
        CatalogRefusal::OldBoot { seen, born_up_to, .. } => {
            Registered::OldImage(OldImage { seen: *seen, born_up_to: *born_up_to })
        }
        CatalogRefusal::RemovedNode(_) | CatalogRefusal::UnknownNode(_) => {
            Registered::Refused(refusal.to_string())
        }
        CatalogRefusal::AlreadyBootstrapped
        | CatalogRefusal::UnknownToken
        | CatalogRefusal::ExpiredToken
        | CatalogRefusal::UsedToken
        | CatalogRefusal::VolumeExists(_)
        | CatalogRefusal::UnknownVolume(_)
        | CatalogRefusal::UnknownShard(_)
        | CatalogRefusal::AlreadyPlaced
        | CatalogRefusal::Invalid(_) => {
            tracing::error!(%refusal, "the catalog refused to register this start");
            Registered::Done
        }
    }
}

/// Waits until the catalog has taken a later start of this node than `own`:
/// another process runs with a copy of this disk, and only one may.
pub(super) async fn superseded(
    mut catalog: watch::Receiver<Arc<CatalogView>>,
    node: NodeId,
    own: Boot,
) -> String {
    let later = |view: &Arc<CatalogView>| {
        view.node(node).is_some_and(|seen| judge_boot(seen.boot, own) == BootVerdict::OldImage)
    };
    if catalog.wait_for(later).await.is_err() {
        // The node is ending anyway.
        std::future::pending::<()>().await;
    }
    "another process has started as this node, from a copy of its disk".to_owned()
}

/// Proposes a command until the catalog has answered it.
async fn propose(world: &World, router: &Router, command: CatalogCommand) -> CatalogOutcome {
    loop {
        let request = ShardRequest {
            shard: CATALOG_SHARD,
            epoch: Epoch(0),
            clock: world.hybrid.last(),
            timeout_ms: TIMEOUT_MS,
            forwarded: false,
            principal: Principal::Trusted,
            body: ShardBody::Catalog { request: None, command: command.clone() },
        };
        match router.shard(request).await.result {
            Ok(ShardResult::Outcome(Outcome::Catalog(outcome))) => return outcome,
            Ok(other) => tracing::debug!(?other, "the catalog answered something else"),
            Err(fault) => tracing::debug!(%fault, "the catalog did not answer"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
