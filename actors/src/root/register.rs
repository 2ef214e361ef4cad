//! What a node says to the catalog when it starts: that it founds the cluster,
//! or that it is here again.

use std::time::Duration;

use cluster::{
    catalog::{
        command::{CatalogCommand, CatalogOutcome, CatalogRefusal},
        record::{ClusterRecord, NodeRecord},
    },
    ids::{CATALOG_SHARD, CATALOG_VOLUME, Epoch, NodeId, ReplicaId},
    request::{ShardBody, ShardRequest, ShardResult},
    shard::{
        command::Outcome,
        descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    },
};

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

/// Tells the catalog of this start until it has heard. Returns why it refused,
/// if it did: then this node must not take part.
pub(super) async fn register(
    world: World,
    router: Router,
    record: NodeRecord,
    founding: Option<ClusterRecord>,
) -> Option<String> {
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
        CatalogOutcome::Refused(refusal) => match refusal {
            CatalogRefusal::OldBoot { .. }
            | CatalogRefusal::RemovedNode(_)
            | CatalogRefusal::UnknownNode(_) => Some(refusal.to_string()),
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
                None
            }
        },
        CatalogOutcome::Done
        | CatalogOutcome::Node(_)
        | CatalogOutcome::Volume(_)
        | CatalogOutcome::Shard(_)
        | CatalogOutcome::Replica(_) => None,
    }
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
