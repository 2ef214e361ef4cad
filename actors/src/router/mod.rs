//! Routing at a node: every node serves every request.
//!
//! Not an actor: requests of the doors run through it as futures, each with
//! its deadline. A request goes to the replica on this node if that can serve
//! it, else once to the node that can; the asker repeats with what it learnt.
//! It reads snapshots that their owners publish and keeps no state.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    auth::Principal,
    catalog::view::CatalogView,
    ids::{CATALOG_SHARD, Epoch, NodeId, ReplicaId, ShardId},
    mvcc::version::Version,
    request::{
        Answer, Fault, ReadLevel, Request, ShardAnswer, ShardBody, ShardRequest, ShardResult,
        SnapshotPieceRequest,
    },
    shard::reader::ReadError,
};
use tokio::sync::{oneshot, watch};

use crate::{
    replica::{
        apply::Published,
        halt::read_halt,
        messages::{ReplicaHandle, ReplicaMessage, refused, request_bytes},
    },
    world::World,
};

/// Longest a catalog question may wait for news.
const CATALOG_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest a client's question to the catalog waits for this node to catch up.
const CATALOG_SETTLE_MAX: Duration = Duration::from_millis(500);
/// Catalog changes in one answer; more follow at once.
const CATALOG_CHANGES_MAX: usize = 1_000;
/// Bytes of a request that is kept to be forwarded after all.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// Longest a leader's successor may take: an election timeout after which raft
/// gives a transfer up, and one to be heard of.
const MOVE_MAX: Duration = Duration::from_secs(5);
/// Time kept back from a forwarded request, so that the forwarder still
/// answers when the other node does not.
const FORWARD_MARGIN: Duration = Duration::from_millis(50);

/// The replicas on this node, as their owner publishes them.
#[derive(Clone, Debug, Default)]
pub struct Hosted {
    /// By shard; the routing key.
    pub by_shard: BTreeMap<ShardId, ReplicaHandle>,
    /// Replicas that stopped for good, with the cause.
    pub stopped: BTreeMap<ReplicaId, (ShardId, String)>,
    /// Replicas that are lost, with the cause, until the last of them is gone.
    pub lost: BTreeMap<ReplicaId, (ShardId, String)>,
}

/// Routes requests.
#[derive(Clone, Debug)]
pub struct Router {
    world: World,
    hosted: watch::Receiver<Arc<Hosted>>,
    catalog: watch::Receiver<Arc<CatalogView>>,
}

impl Router {
    /// A router over what is published.
    pub fn new(
        world: World,
        hosted: watch::Receiver<Arc<Hosted>>,
        catalog: watch::Receiver<Arc<CatalogView>>,
    ) -> Self {
        Self { world, hosted, catalog }
    }

    /// The replicas on this node now.
    pub fn hosted(&self) -> Arc<Hosted> {
        Arc::clone(&self.hosted.borrow())
    }

    /// The catalog as last seen.
    pub fn catalog(&self) -> Arc<CatalogView> {
        Arc::clone(&self.catalog.borrow())
    }

    /// Serves a request to a shard, here or at the node that can.
    pub async fn shard(&self, request: ShardRequest) -> ShardAnswer {
        let wall = self.world.clock.wall();
        if let Err(ahead) = self.world.hybrid.observe(request.clock, wall) {
            return refused(self.world.hybrid.last(), Fault::ClockAhead(ahead.to_string()));
        }
        metrics::counter!(crate::metrics::REQUESTS).increment(1);
        let begun = self.world.clock.now();
        // How long nothing happens says nothing about this node.
        let waits = matches!(request.body, ShardBody::Watch { .. });
        let answer = self.route(request).await;
        if !waits {
            metrics::histogram!(crate::metrics::REQUEST_SECONDS)
                .record(self.world.clock.now().since(begun).as_secs_f64());
        }
        answer
    }

    async fn route(&self, request: ShardRequest) -> ShardAnswer {
        let handle = self.hosted.borrow().by_shard.get(&request.shard).cloned();
        let Some(handle) = handle else {
            return Box::pin(self.forward_blind(request)).await;
        };
        if request.forwarded {
            return handle.call(request).await;
        }
        if let Some(leader) = self.leads_elsewhere(&handle, &request) {
            let answer = self.forward_while_leading(&handle, leader, request).await;
            if matches!(&answer.result, Err(Fault::NotLeader { leader: None } | Fault::Interrupted))
            {
                handle.doubt(leader);
            }
            return answer;
        }
        // Large requests are not copied for the rare case that leadership
        // moved this moment: their asker repeats them.
        let again =
            (request_bytes(&request) <= COPIED_BYTES_MAX).then(|| Box::new(request.clone()));
        let answer = handle.call(request).await;
        match (&answer.result, again) {
            (Err(Fault::NotLeader { leader: Some(leader) }), Some(again))
                if *leader != self.world.identity.node =>
            {
                self.forward(*leader, *again).await
            }
            // A replica of the catalog that has fallen out of its group (by an old
            // image of its disk, say) must not keep its node from the catalog.
            (Err(Fault::NotLeader { leader: None }), Some(again))
                if again.shard == CATALOG_SHARD =>
            {
                Box::pin(self.forward_blind(*again)).await
            }
            (Err(Fault::Stopped(_)), Some(again)) if again.body != ShardBody::Inspect => {
                Box::pin(self.forward_blind(*again)).await
            }
            (Ok(_) | Err(_), _) => answer,
        }
    }

    /// Forwards to the leader, and gives up as soon as the replica here knows
    /// its successor: whoever asked must not wait for a dead node once there is
    /// somebody to ask.
    fn forward_while_leading(
        &self,
        handle: &ReplicaHandle,
        leader: NodeId,
        request: ShardRequest,
    ) -> impl Future<Output = ShardAnswer> + Send + use<> {
        let (clock, executes) = (request.clock, request.body.changes());
        let successor = successor(handle.published.clone(), leader);
        let forwarded = self.forward(leader, request);
        async move {
            let next = tokio::select! {
                biased;
                answer = forwarded => return answer,
                next = successor => next,
            };
            // The old leader may have executed it: a retry keeps its number.
            let fault =
                if executes { Fault::Interrupted } else { Fault::NotLeader { leader: Some(next) } };
            ShardAnswer { leader: Some(next), ..refused(clock, fault) }
        }
    }

    /// The node to ask when only the leader may answer and it is not here.
    fn leads_elsewhere(&self, handle: &ReplicaHandle, request: &ShardRequest) -> Option<NodeId> {
        let published = handle.published.borrow();
        let status = published.status.as_ref().filter(|_| needs_leader(&request.body))?;
        let current = request.epoch >= status.descriptor.epoch || request.shard == CATALOG_SHARD;
        status.leader.filter(|leader| current && *leader != self.world.identity.node)
    }

    /// Forwards to some node of the shard when this one has no replica of it.
    async fn forward_blind(&self, request: ShardRequest) -> ShardAnswer {
        if request.forwarded {
            return refused(request.clock, Fault::NoReplica(request.shard));
        }
        let Some(node) = self.pick(request.shard) else {
            return refused(request.clock, Fault::NoReplica(request.shard));
        };
        self.forward(node, request).await
    }

    /// A node that should have a replica of the shard, drawn at random so
    /// that a dead one does not stand in the way for ever.
    fn pick(&self, shard: ShardId) -> Option<NodeId> {
        let catalog = self.catalog.borrow();
        let replicas = &catalog.shard(shard)?.descriptor.replicas;
        let others: Vec<_> = replicas
            .iter()
            .map(|replica| replica.node)
            .filter(|n| *n != self.world.identity.node)
            .collect();
        let draw = usize::try_from(self.world.entropy.next_u64() >> 33).unwrap_or(0);
        others.get(draw % others.len().max(1)).copied()
    }

    fn forward(
        &self,
        node: NodeId,
        request: ShardRequest,
    ) -> impl Future<Output = ShardAnswer> + Send + use<> {
        let clock = request.clock;
        let timeout = Duration::from_millis(u64::from(request.timeout_ms))
            .saturating_sub(FORWARD_MARGIN)
            .max(Duration::from_millis(1));
        let executes = request.body.changes();
        let request = Request::Shard(ShardRequest { forwarded: true, ..request });
        // Encoded before anybody waits: whoever waits need not hold the request.
        let (class, body) = (request.class(), request.encode().into());
        let reply = self.world.network.request(node, class, body, timeout);
        async move {
            match reply.await.map(|bytes| Answer::decode(&bytes)) {
                Ok(Ok(Answer::Shard(answer))) => answer,
                Ok(Ok(Answer::Fault(fault))) => refused(clock, fault),
                Ok(Ok(_) | Err(_)) => {
                    refused(clock, Fault::Invalid(format!("node {node} answered something else")))
                }
                Err(error) if error.not_sent() || !executes => {
                    refused(clock, Fault::NotLeader { leader: None })
                }
                Err(_) => refused(clock, Fault::Interrupted),
            }
        }
    }

    /// Waits until the catalog replica on this node has what the catalog's
    /// leader had when this was asked, so that a client is never told that
    /// something is not there which it just made through another node. Without
    /// a leader to ask, what is here must do.
    pub async fn catalog_settled(&self) {
        let shard = CATALOG_SHARD;
        let Some(handle) = self.hosted.borrow().by_shard.get(&shard).cloned() else { return };
        let body = ShardBody::List {
            prefix: cluster::catalog::encoding::IDS_KEY.into(),
            after: None,
            limit: 1,
            level: ReadLevel::Strong,
            at: None,
            values: false,
        };
        let timeout_ms = u32::try_from(CATALOG_SETTLE_MAX.as_millis()).unwrap_or(u32::MAX);
        let clock = self.world.hybrid.last();
        let request = ShardRequest {
            shard,
            epoch: Epoch(0),
            clock,
            timeout_ms,
            forwarded: false,
            principal: Principal::Trusted,
            body,
        };
        let settled = async {
            let Ok(ShardResult::Page { at, .. }) = self.shard(request).await.result else { return };
            let mut published = handle.published;
            let has = |published: &Published| {
                published.half.as_ref().is_some_and(|half| half.reader.version() >= at)
            };
            // An actor that ends meanwhile publishes nothing more.
            drop(published.wait_for(has).await);
        };
        // Whoever is cut off from the catalog's leader answers what it has.
        let _ = tokio::time::timeout(CATALOG_SETTLE_MAX, settled).await;
    }

    /// What a client is told beyond `after`: by the catalog replica here, or by
    /// one elsewhere where this node has none. (The catalog has five voters; a
    /// larger cluster's other nodes serve clients all the same.)
    pub async fn catalog_news(&self, after: Version, wait: Duration) -> Answer {
        if self.hosted.borrow().by_shard.contains_key(&CATALOG_SHARD) {
            self.catalog_settled().await;
            let answer = self.catalog_changes(after, wait).await;
            // One that waits for its first snapshot knows nothing yet, and one
            // whose bytes are damaged nothing any more.
            if matches!(answer, Answer::CatalogChanges { .. }) {
                return answer;
            }
        }
        let view = self.catalog();
        let holders =
            view.shard(CATALOG_SHARD).map_or(&[][..], |record| &record.descriptor.replicas);
        let wait_ms = u32::try_from(wait.min(CATALOG_WAIT_MAX).as_millis()).unwrap_or(u32::MAX);
        let request = Request::CatalogChanges { after, wait_ms };
        let (class, body) = (request.class(), bytes::Bytes::from(request.encode()));
        let first = usize::try_from(self.world.entropy.next_u64() >> 33).unwrap_or(0);
        for holder in holders.iter().cycle().skip(first % holders.len().max(1)).take(holders.len())
        {
            let network = &self.world.network;
            // The holder may take the first of them whole; the way takes time too.
            let timeout = wait + CATALOG_SETTLE_MAX * 2;
            let answer = network.request(holder.node, class, body.clone(), timeout).await;
            let answer = answer.ok().and_then(|bytes| Answer::decode(&bytes).ok());
            if let Some(answer @ Answer::CatalogChanges { .. }) = answer {
                return answer;
            }
        }
        Answer::Fault(Fault::NoReplica(CATALOG_SHARD))
    }

    /// Whether a catalog replica on this node has anything to tell: one that
    /// waits for its first snapshot has not.
    pub fn holds_catalog(&self) -> bool {
        let hosted = self.hosted.borrow();
        let handle = hosted.by_shard.get(&CATALOG_SHARD);
        handle.is_some_and(|handle| handle.published.borrow().half.is_some())
    }

    /// What the catalog replica on this node has beyond `after`; waits for news.
    pub async fn catalog_changes(&self, after: Version, wait: Duration) -> Answer {
        let shard = CATALOG_SHARD;
        let Some(handle) = self.hosted.borrow().by_shard.get(&shard).cloned() else {
            return Answer::Fault(Fault::NoReplica(shard));
        };
        let (mut published, actor) = (handle.published, handle.actor);
        let newer = published.wait_for(|published| {
            published.half.as_ref().is_some_and(|half| half.reader.version() > after)
        });
        let _ = tokio::time::timeout(wait.min(CATALOG_WAIT_MAX), newer).await;
        let Some(half) = published.borrow().half.clone() else {
            return Answer::Fault(Fault::NoReplica(shard));
        };
        let (reply, answer) = oneshot::channel();
        self.world.workers.beside(Box::new(move || {
            let changes = half.store.view().map_err(ReadError::Engine).and_then(|view| {
                half.reader.changed_items(view.as_ref(), after, CATALOG_CHANGES_MAX)
            });
            if let Some(halt) = changes.as_ref().err().and_then(read_halt) {
                let _ = actor.cast(ReplicaMessage::Halted(halt));
            }
            let _ = reply.send(changes.map_err(|error| error.to_string()));
        }));
        match answer.await {
            Ok(Ok((version, items))) => {
                let changes = items
                    .into_iter()
                    .map(|(key, item)| {
                        (String::from_utf8_lossy(&key).into_owned(), item.map(|item| item.value))
                    })
                    .collect();
                Answer::CatalogChanges { version, changes }
            }
            Ok(Err(cause)) => Answer::Fault(Fault::Stopped(cause)),
            Err(_) => Answer::Fault(Fault::Interrupted),
        }
    }

    /// A piece of a snapshot pinned by a replica of this node.
    pub async fn snapshot_piece(&self, request: SnapshotPieceRequest) -> Answer {
        let handle = self.hosted.borrow().by_shard.get(&request.shard).cloned();
        let Some(handle) = handle else {
            return Answer::Fault(Fault::NoReplica(request.shard));
        };
        let (reply, answer) = oneshot::channel();
        if handle.actor.cast(ReplicaMessage::SnapshotPiece { request, reply }).is_err() {
            return Answer::Fault(Fault::NoReplica(handle.shard));
        }
        match answer.await {
            Ok(Ok(piece)) => Answer::SnapshotPiece(piece),
            Ok(Err(fault)) => Answer::Fault(fault),
            Err(_) => Answer::Fault(Fault::Interrupted),
        }
    }

    /// Gives the leadership of a shard to another of its replicas, and waits until
    /// this one leads no more.
    ///
    /// # Errors
    /// [`Fault::NotLeader`] if the replica here does not lead; [`Fault::Timeout`]
    /// if it still does after the time a move may take: the other one may be far behind.
    pub async fn move_leader(&self, shard: ShardId, to: ReplicaId) -> Result<(), Fault> {
        let handle = self.hosted.borrow().by_shard.get(&shard).cloned();
        let Some(handle) = handle else { return Err(Fault::NoReplica(shard)) };
        if handle.replica == to {
            return Ok(());
        }
        if handle.actor.cast(ReplicaMessage::TransferLeader(Some(to))).is_err() {
            return Err(Fault::NoReplica(shard));
        }
        let mut published = handle.published;
        let moved = published.wait_for(|shown| {
            shown.status.as_ref().is_none_or(|status| !status.leading && status.leader.is_some())
        });
        match tokio::time::timeout(MOVE_MAX, moved).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::Timeout),
        }
    }

    /// The node that leads a shard, as far as this node knows.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.hosted.borrow().by_shard.get(&shard)?.status()?.leader
    }
}

/// Waits until a replica knows a leader other than `old`.
async fn successor(mut published: watch::Receiver<Published>, old: NodeId) -> NodeId {
    let other = |shown: &Published| shown.status.as_ref()?.leader.filter(|now| *now != old);
    match published.wait_for(|shown| other(shown).is_some()).await.map(|shown| other(&shown)) {
        Ok(Some(next)) => next,
        // A replica that ended learns of nobody.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Whether any replica may answer this request.
pub fn needs_leader(body: &ShardBody) -> bool {
    match body {
        ShardBody::Get { level, .. }
        | ShardBody::List { level, .. }
        | ShardBody::Look { level, .. }
        | ShardBody::Range { level, .. } => match level {
            ReadLevel::Strong => true,
            ReadLevel::Bounded { .. } | ReadLevel::Eventual => false,
        },
        ShardBody::Watch { .. } | ShardBody::Inspect => false,
        ShardBody::OpenSession
        | ShardBody::CloseSession(_)
        | ShardBody::Write { .. }
        | ShardBody::Transact { .. }
        | ShardBody::Lease { .. }
        | ShardBody::ShowLease { .. }
        | ShardBody::ListLeases { .. }
        | ShardBody::Auth { .. }
        | ShardBody::ShowAuth(_)
        | ShardBody::Compact { .. }
        | ShardBody::Restore { .. }
        | ShardBody::Advance { .. }
        | ShardBody::Catalog { .. } => true,
    }
}
