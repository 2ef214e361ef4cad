//! The follower's view, and whom it asks.

use std::{sync::Arc, time::Duration};

use cluster::{
    catalog::view::CatalogView,
    ids::{CATALOG_SHARD, NodeId},
    mvcc::version::Version,
    ports::network::RequestClass,
    request::{Answer, Request},
    units::Instant,
};
use ractor::ActorRef;

use super::{FollowerArguments, FollowerMessage, RETRY, WAIT, cache};
use crate::{membership::MembershipMessage, volumes::VolumesMessage};

/// State of the follower.
#[derive(Debug)]
pub struct FollowerState {
    arguments: FollowerArguments,
    view: Arc<CatalogView>,
    /// Counts questions, to go round those who can be asked.
    turn: usize,
    failures: u32,
    /// When the question under way was asked.
    asked: Instant,
}

impl FollowerState {
    pub(super) fn new(arguments: FollowerArguments) -> Self {
        let view = Arc::clone(&arguments.view);
        Self { arguments, view, turn: 0, failures: 0, asked: Instant::ORIGIN }
    }

    /// Shows the view to everyone who follows it.
    pub(super) fn teach(&self) {
        self.arguments.shown.send_replace(Arc::clone(&self.view));
        let view = Arc::clone(&self.view);
        let _ = self.arguments.membership.cast(MembershipMessage::CatalogChanged(view));
        let view = Arc::clone(&self.view);
        let _ = self.arguments.volumes.cast(VolumesMessage::CatalogChanged(view));
    }

    /// Asks one catalog replica what changed since the view's version.
    pub(super) fn ask(&mut self, myself: &ActorRef<FollowerMessage>) {
        self.asked = self.arguments.world.clock.now();
        let after = self.view.version();
        let myself = myself.clone();
        let question = tokio::spawn(self.question(after));
        tokio::spawn(async move {
            // A question that panics is one that failed; the next is asked.
            let answer = question.await.unwrap_or_else(|error| Err(error.to_string()));
            let _ = myself.cast(FollowerMessage::Answered { after, answer });
        });
    }

    fn question(
        &mut self,
        after: Version,
    ) -> impl Future<Output = Result<Answer, String>> + Send + 'static {
        let router = self.arguments.router.clone();
        let network = Arc::clone(&self.arguments.world.network);
        let here = router.hosted().by_shard.contains_key(&CATALOG_SHARD)
            && self.failures.is_multiple_of(2);
        let node = if here { None } else { self.next_node() };
        async move {
            match node {
                None => Ok(router.catalog_changes(after, WAIT).await),
                Some(node) => {
                    let wait_ms = u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX);
                    let body = Request::CatalogChanges { after, wait_ms }.encode().into();
                    let timeout = WAIT + Duration::from_secs(2);
                    let bytes = network
                        .request(node, RequestClass::Admin, body, timeout)
                        .await
                        .map_err(|error| error.to_string())?;
                    Answer::decode(&bytes).map_err(|error| error.to_string())
                }
            }
        }
    }

    /// The next node to ask: catalog replicas in turn, seeds before any is known.
    fn next_node(&mut self) -> Option<NodeId> {
        let own = self.arguments.world.identity.node;
        let known = self.view.shard(CATALOG_SHARD).map(|record| {
            record.descriptor.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>()
        });
        let mut nodes = known.unwrap_or_else(|| self.arguments.seeds.clone());
        nodes.retain(|node| *node != own);
        self.turn = self.turn.wrapping_add(1);
        nodes.get(self.turn % nodes.len().max(1)).copied()
    }

    /// Takes an answer; returns when to ask again.
    pub(super) fn answered(&mut self, after: Version, answer: Result<Answer, String>) -> Duration {
        match answer {
            Ok(Answer::CatalogChanges { version, changes }) => {
                self.failures = 0;
                if version > after && after == self.view.version() {
                    self.advance(version, &changes);
                    let read = self.view.version() > after;
                    return if read { Duration::ZERO } else { RETRY };
                }
                // Nothing new, and at once: who answers cannot wait (its
                // replica ends). Asking again at once would ask for ever.
                let waited = self.arguments.world.clock.now().since(self.asked);
                RETRY.saturating_sub(waited)
            }
            Ok(other) => self.failed(&format!("{other:?}")),
            Err(cause) => self.failed(&cause),
        }
    }

    fn failed(&mut self, cause: &str) -> Duration {
        self.failures += 1;
        tracing::debug!(%cause, failures = self.failures, "catalog did not answer");
        RETRY
    }

    fn advance(&mut self, version: Version, changes: &[(String, Option<Vec<u8>>)]) {
        let changes = changes.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        match self.view.updated(version, changes) {
            Ok(view) => {
                self.view = Arc::new(view);
                self.teach();
                self.save();
            }
            Err(error) => tracing::error!(%error, "a catalog record cannot be read"),
        }
    }

    /// Keeps a copy on disk, on a worker; a failure costs only freshness at
    /// the next start.
    fn save(&self) {
        let world = self.arguments.world.clone();
        let view = Arc::clone(&self.view);
        self.arguments.world.workers.in_order(
            cluster::ids::ReplicaId(0),
            Box::new(move || {
                if let Err(error) = cache::save(&world, &view) {
                    tracing::warn!(%error, "the catalog could not be copied to disk");
                }
            }),
        );
    }
}
