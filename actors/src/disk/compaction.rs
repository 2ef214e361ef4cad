//! When this node asks shards to let go of history, and replicas to sweep.
//!
//! One walk over the node's replicas instead of a timer for each: a shard where
//! nothing happened since its last compaction is passed by and sleeps on. The
//! leader's node asks when the policy of the volume and the retention say so; a
//! node whose disk is tight, or whose store is near its limit, asks also for shards it only
//! follows, because only their log can give it room. Both take the router's way to
//! the leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use cluster::{
    auth::Principal,
    catalog::view::CatalogView,
    ids::{CATALOG_SHARD, ShardId},
    mvcc::{
        compaction::{HistoryPolicy, Standing},
        version::{Hlc, Version, VersionKind},
    },
    request::{ShardBody, ShardRequest},
    units::{Instant, WallTime},
};
use ractor::ActorRef;
use tokio::sync::oneshot;

use super::{DiskMessage, DiskState};
use crate::{
    replica::{
        apply::ReadHalf,
        messages::{ReplicaHandle, ReplicaMessage},
    },
    world::World,
};

/// Compactions under way at once. With one look a second, 4,096 shards that are
/// written all the time have their turn within the minute they take as a step.
const COMPACTIONS_MAX: usize = 64;
/// Replicas told to sweep in one round: each keeps one engine thread busy for
/// as long as its batches take.
const SWEEPS_PER_ROUND: usize = 2;
/// Time for one compaction; it is asked again at a later look.
const TIMEOUT_MS: u32 = 5_000;

/// Whose turn it is, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Compactions {
    under_way: BTreeSet<ShardId>,
    /// The shard asked last.
    asked: ShardId,
    /// The shard swept last.
    swept: ShardId,
    /// When shards that count their versions were last looked into. Their store
    /// must be asked which version a point of time is, so a look has the step
    /// that others find in their versions. One entry for each such replica.
    looked: BTreeMap<ShardId, Instant>,
}

/// What a shard should let go of.
enum Wanted {
    /// All below a version.
    Version(Version),
    /// All below what was written by a point of time; the store knows which
    /// version that is.
    Time(Hlc, Arc<ReadHalf>),
}

impl DiskState {
    /// Tells replicas to sweep whose store may hold what nobody can read.
    pub(super) fn sweep(&mut self) {
        let hosted = Arc::clone(&self.arguments.hosted.borrow());
        let unswept = |handle: &ReplicaHandle| {
            handle.published.borrow().half.as_ref().is_some_and(|half| half.is_unswept())
        };
        let in_turn = in_turn(&hosted.by_shard, self.compactions.swept);
        let unswept: Vec<_> = in_turn.filter(|(_, handle)| unswept(handle)).collect();
        metrics::gauge!(crate::metrics::UNSWEPT)
            .set(f64::from(u32::try_from(unswept.len()).unwrap_or(u32::MAX)));
        for (shard, handle) in unswept.into_iter().take(SWEEPS_PER_ROUND) {
            self.compactions.swept = *shard;
            let _ = handle.actor.cast(ReplicaMessage::Sweep);
        }
    }

    /// Asks shards to let go of history that is old enough.
    pub(super) fn compact(&mut self, myself: &ActorRef<DiskMessage>) {
        let (now, wall) = (self.arguments.world.clock.now(), self.arguments.world.clock.wall());
        let hosted = Arc::clone(&self.arguments.hosted.borrow());
        let catalog = self.arguments.router.catalog();
        self.compactions.looked.retain(|shard, _| hosted.by_shard.contains_key(shard));
        for (shard, handle) in in_turn(&hosted.by_shard, self.compactions.asked) {
            if self.compactions.under_way.len() >= COMPACTIONS_MAX {
                return;
            }
            if *shard == CATALOG_SHARD || self.compactions.under_way.contains(shard) {
                continue;
            }
            if let Some(wanted) = self.wanted(handle, &catalog, (now, wall)) {
                if let Wanted::Time(..) = wanted {
                    self.compactions.looked.insert(*shard, now);
                }
                self.compactions.asked = *shard;
                self.compactions.under_way.insert(*shard);
                self.ask(handle, wanted, myself);
            }
        }
    }

    /// A compaction ended, one way or the other.
    pub(super) fn compacted(&mut self, shard: ShardId) {
        self.compactions.under_way.remove(&shard);
    }

    fn wanted(
        &self,
        handle: &ReplicaHandle,
        catalog: &CatalogView,
        (now, wall): (Instant, WallTime),
    ) -> Option<Wanted> {
        let tight = self.arguments.space.borrow().is_tight() || handle.limit().is_near();
        let published = handle.published.borrow();
        let leading = published.status.as_ref().is_some_and(|status| status.leading);
        let half = published.half.as_ref().filter(|_| leading || tight)?;
        let (version, compacted) = (half.reader.version(), half.reader.compacted());
        let standing = Standing { version, compacted };
        let history = catalog.volume_by_id(handle.volume).map(|volume| volume.policy.history);
        let history = history.unwrap_or_default();
        let retention = self.arguments.budget.retentions().of(half.reader.versions()).told(history);
        let (horizon, step) = (retention.horizon(wall, tight), retention.step(tight));
        match half.reader.versions() {
            VersionKind::Hybrid => standing.due(horizon?, step).map(Wanted::Version),
            VersionKind::Dense => {
                if let HistoryPolicy::Versions(kept) = history
                    && let Some(version) = standing.beyond(kept)
                {
                    return Some(Wanted::Version(version));
                }
                let looked = self.compactions.looked.get(&handle.shard);
                let again = looked.is_none_or(|looked| now.since(*looked) >= step);
                let time = horizon.filter(|_| again && standing.has_news())?;
                Some(Wanted::Time(time, Arc::clone(half)))
            }
        }
    }

    fn ask(&self, handle: &ReplicaHandle, wanted: Wanted, myself: &ActorRef<DiskMessage>) {
        let (world, router) = (self.arguments.world.clone(), self.arguments.router.clone());
        let (myself, shard) = (myself.clone(), handle.shard);
        let epoch = handle.status().map(|status| status.descriptor.epoch).unwrap_or_default();
        tokio::spawn(async move {
            if let Some(version) = resolve(&world, wanted).await {
                metrics::counter!(crate::metrics::COMPACTIONS).increment(1);
                let clock = world.hybrid.last();
                let body = ShardBody::Compact { version };
                let (timeout_ms, forwarded) = (TIMEOUT_MS, false);
                let request = ShardRequest {
                    shard,
                    epoch,
                    clock,
                    timeout_ms,
                    forwarded,
                    principal: Principal::Trusted,
                    body,
                };
                if let Err(fault) = router.shard(request).await.result {
                    // Asked again at a later look, here or where it is led then.
                    tracing::debug!(%shard, %fault, "a compaction was not taken");
                }
            }
            let _ = myself.cast(DiskMessage::Compacted(shard));
        });
    }
}

/// The version to compact to, if there is anything to let go of.
async fn resolve(world: &World, wanted: Wanted) -> Option<Version> {
    let (time, half) = match wanted {
        Wanted::Version(version) => return Some(version),
        Wanted::Time(time, half) => (time, half),
    };
    let (reply, found) = oneshot::channel();
    world.workers.beside(Box::new(move || {
        let view = half.reader.view(half.store.as_ref()).ok();
        let version = view.and_then(|view| half.reader.version_at(view.as_ref(), time).ok());
        let _ = reply.send(version.filter(|version| *version > half.reader.compacted()));
    }));
    found.await.ok().flatten()
}

/// All replicas, beginning after the one that had the last turn.
fn in_turn(
    all: &BTreeMap<ShardId, ReplicaHandle>,
    last: ShardId,
) -> impl Iterator<Item = (&ShardId, &ReplicaHandle)> {
    all.range((Bound::Excluded(last), Bound::Unbounded)).chain(all.range(..=last))
}
