//! Tells the catalog what was observed on this node.
//!
//! Observations may be repeated and may come late: the catalog moves forward
//! only. So one try with a few repetitions is enough, and whoever observes
//! says it again when the catalog's view shows that it was not heard.

use std::time::Duration;

use cluster::{
    auth::Principal,
    catalog::command::CatalogCommand,
    ids::{CATALOG_SHARD, Epoch},
    request::{ShardBody, ShardRequest},
};

use crate::{admission::Admission, router::Router, world::World};
use std::sync::Arc;

/// Observations under way at a time; more are dropped and said again later.
const UNDER_WAY_MAX: usize = 64;
/// Time for one try.
const TIMEOUT_MS: u32 = 5_000;
/// Tries of one observation.
const TRIES: u32 = 5;
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The way to the catalog's log for observations.
#[derive(Clone, Debug)]
pub struct Reporter {
    world: World,
    router: Router,
    under_way: Arc<Admission>,
}

impl Reporter {
    /// Reports through `router`.
    pub fn new(world: World, router: Router) -> Self {
        Self { world, router, under_way: Admission::new(UNDER_WAY_MAX, usize::MAX) }
    }

    /// Says something to the catalog, in the background.
    pub fn tell(&self, command: CatalogCommand) {
        let Some(permit) = self.under_way.try_enter(0) else { return };
        let reporter = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            for _ in 0..TRIES {
                let answer = reporter.router.shard(reporter.request(command.clone())).await;
                match answer.result {
                    Ok(_) => return,
                    Err(fault) => {
                        tracing::debug!(%fault, "the catalog did not take an observation");
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    fn request(&self, command: CatalogCommand) -> ShardRequest {
        ShardRequest {
            shard: CATALOG_SHARD,
            // The catalog never splits: any epoch will do.
            epoch: Epoch(0),
            clock: self.world.hybrid.last(),
            timeout_ms: TIMEOUT_MS,
            forwarded: false,
            principal: Principal::Trusted,
            body: ShardBody::Catalog { request: None, command },
        }
    }
}
