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

/// Questions to which the replica on this node may tell nothing before another
/// is asked once: half a minute. More often would make the news wait for peers
/// that have just died; never would leave a replica that is no member of its
/// group any more believed for good.
const SILENT_HERE_MAX: u32 = 6;

/// State of the follower.
#[derive(Debug)]
pub struct FollowerState {
    arguments: FollowerArguments,
    view: Arc<CatalogView>,
    /// Counts questions, to go round those who can be asked.
    turn: usize,
    failures: u32,
    /// Questions in a row to which the replica on this node told nothing. It may
    /// be one that nobody counts any more: see [`SILENT_HERE_MAX`].
    silent_here: u32,
    /// When the question under way was asked.
    asked: Instant,
}

impl FollowerState {
    pub(super) fn new(arguments: FollowerArguments) -> Self {
        let view = Arc::clone(&arguments.view);
        let asked = Instant::ORIGIN;
        Self { arguments, view, turn: 0, failures: 0, silent_here: 0, asked }
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
        // One that waits for its first snapshot is not asked at all.
        let here = router.holds_catalog() && self.silent_here < SILENT_HERE_MAX;
        self.silent_here = if here { self.silent_here + 1 } else { 0 };
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

    /// The next node to ask, in turn.
    fn next_node(&mut self) -> Option<NodeId> {
        let mut nodes = whom_to_ask(&self.view, &self.arguments.seeds, self.failures);
        nodes.retain(|node| *node != self.arguments.world.identity.node);
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
                    if read {
                        self.silent_here = 0;
                    }
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

/// Who may know the catalog: the nodes that the view says hold it, and seeds
/// before it names any. When those do not answer, every member: the catalog
/// may have moved since, and a view that is not told of it names only the dead.
fn whom_to_ask(view: &CatalogView, seeds: &[NodeId], failures: u32) -> Vec<NodeId> {
    let Some(record) = view.shard(CATALOG_SHARD) else { return seeds.to_vec() };
    let replicas = &record.descriptor.replicas;
    let mut nodes: Vec<NodeId> = replicas.iter().map(|replica| replica.node).collect();
    if usize::try_from(failures).unwrap_or(usize::MAX) > nodes.len() {
        let others: Vec<NodeId> = view.active_nodes().map(|member| member.node).collect();
        nodes.extend(others.into_iter().chain(seeds.iter().copied()));
        nodes.sort_unstable();
        nodes.dedup();
    }
    nodes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use cluster::{
        catalog::{
            encoding::{encode_record, node_key, shard_key},
            record::{NodeRecord, NodeState, ShardRecord},
        },
        ids::{BootNonce, CATALOG_VOLUME, Epoch, Incarnation, ReplicaId},
        membership::Boot,
        shard::descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
    };

    use super::*;

    fn member(number: u64) -> NodeRecord {
        NodeRecord {
            node: NodeId(number.into()),
            number,
            addresses: Vec::new(),
            http_address: String::new(),
            zone: String::new(),
            capacity_bytes: 1,
            state: NodeState::Active,
            boot: Boot { incarnation: Incarnation(1), nonce: BootNonce(1) },
        }
    }

    /// Four members, of which the first holds the catalog.
    fn view() -> CatalogView {
        let holder =
            ReplicaDescriptor { replica: ReplicaId(1), node: NodeId(1), role: ReplicaRole::Voter };
        let catalog = ShardRecord::new(ShardDescriptor {
            shard: CATALOG_SHARD,
            volume: CATALOG_VOLUME,
            epoch: Epoch(1),
            predicate: Predicate::all(),
            replicas: vec![holder],
        });
        let nodes = (1..=4).map(member).map(|node| (node_key(node.node), encode_record(&node)));
        let mut records: Vec<_> = nodes.collect();
        records.push((shard_key(CATALOG_SHARD), encode_record(&catalog)));
        let changes = records.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice())));
        CatalogView::default().updated(Version(1), changes).unwrap()
    }

    #[test]
    fn who_hears_nothing_from_the_catalogs_nodes_asks_every_member() {
        let seeds = [NodeId(9)];
        assert_eq!(whom_to_ask(&CatalogView::default(), &seeds, 5), seeds);
        assert_eq!(whom_to_ask(&view(), &seeds, 0), [NodeId(1)]);
        assert_eq!(whom_to_ask(&view(), &seeds, 1), [NodeId(1)]);
        assert_eq!(whom_to_ask(&view(), &seeds, 2), [1, 2, 3, 4, 9].map(NodeId));
    }
}
