//! The switchboard: what comes in from the network, and to whom it goes.
//!
//! Implements the receiving half of the network port. It authorises each
//! request class by the peer's certificate, refuses nodes whose disk is an
//! old image, and passes messages on through admission. It never waits: a
//! request becomes a future of the router.

mod authorise;
mod tenancy;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    formats,
    ids::NodeId,
    membership::{
        Boot,
        identity::{BootLedger, BootVerdict, judge_boot},
    },
    ports::network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    raft::types::RaftBatch,
    request::{Answer, Fault, JoinRequest, Request},
};
use tokio::sync::watch;

pub use authorise::authorise;

use crate::{
    membership::MembershipDoor,
    probe::Report,
    replica::messages::{ReplicaMessage, refused},
    router::{Hosted, Router},
    world::World,
};

/// What only the node itself can do: identities and its own status.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Admits a new node.
    fn join(&self, request: JoinRequest) -> BoxFuture<Answer>;
    /// Makes a join token that lives so long.
    fn new_token(&self, lifetime_ms: u32) -> BoxFuture<Answer>;
    /// The node's status as JSON.
    fn status(&self) -> BoxFuture<Answer>;
}

/// The receiving half of a node's network.
#[derive(Clone, Debug)]
pub struct Switchboard {
    world: World,
    router: Router,
    hosted: watch::Receiver<Arc<Hosted>>,
    membership: MembershipDoor,
    gate: Arc<dyn Gate>,
    /// The highest start seen of each peer. Behind a lock, not in an actor:
    /// the network's threads must judge a batch before they pass it on, and
    /// the lock is held for one map look-up.
    boots: Arc<Mutex<BootLedger>>,
}

impl Switchboard {
    /// Connects the parts.
    pub fn new(
        world: World,
        router: Router,
        hosted: watch::Receiver<Arc<Hosted>>,
        membership: MembershipDoor,
        gate: Arc<dyn Gate>,
    ) -> Self {
        Self { world, router, hosted, membership, gate, boots: Arc::default() }
    }

    /// Serves one request of one peer: the native door.
    pub async fn serve(&self, from: Peer, class: RequestClass, request: Request) -> Answer {
        if let Err(fault) = authorise(&from, class, &request) {
            return Answer::Fault(fault);
        }
        let tenant = match &from {
            Peer::Client { tenant, .. } => Some(*tenant),
            Peer::Node(_) | Peer::Anonymous => None,
        };
        match request {
            Request::Shard(request) => {
                let allowed = tenant.map_or(Ok(()), |tenant| {
                    tenancy::check_shard(&self.router.catalog(), tenant, request.shard)
                });
                Answer::Shard(match allowed {
                    Ok(()) => self.router.shard(request).await,
                    Err(fault) => refused(self.world.hybrid.last(), fault),
                })
            }
            // All that is rare waits in a box of its own: every request to a shard would
            // carry its room.
            Request::CatalogChanges { after, wait_ms } => {
                let wait = Duration::from_millis(u64::from(wait_ms));
                let answer = match tenant {
                    Some(_) => Box::pin(self.router.catalog_news(after, wait)).await,
                    None => Box::pin(self.router.catalog_changes(after, wait)).await,
                };
                match (answer, tenant) {
                    (Answer::CatalogChanges { version, changes }, Some(tenant)) => {
                        let view = self.router.catalog();
                        let changes = tenancy::visible(&view, tenant, changes);
                        Answer::CatalogChanges { version, changes }
                    }
                    (answer, _) => answer,
                }
            }
            Request::SnapshotPiece(request) => Box::pin(self.router.snapshot_piece(request)).await,
            Request::NodeStatus => self.gate.status().await,
            Request::Join(request) => self.gate.join(request).await,
            Request::NewToken { lifetime_ms } => self.gate.new_token(lifetime_ms).await,
        }
    }

    fn raft_batch(&self, from: NodeId, bytes: &Bytes) {
        let batch: RaftBatch = match formats::from_bytes(bytes) {
            Ok(batch) => batch,
            Err(error) => return self.refuse(from, error.to_string()),
        };
        match self.judge(from, batch.boot) {
            BootVerdict::Accept => {}
            BootVerdict::OldImage => {
                return self.refuse(from, "it showed an older or different start".to_owned());
            }
        }
        let hosted = self.hosted.borrow();
        let share = bytes.len() / batch.messages.len().max(1);
        for addressed in batch.messages {
            // A replica we do not have (yet, or any more) is no fault: the
            // catalog's intent alone creates replicas.
            if let Some(handle) = hosted.by_shard.get(&addressed.shard)
                && handle.replica == addressed.to
            {
                handle.deliver(addressed.from, from, addressed.message, share);
            }
        }
    }

    /// Judges a peer's start by what it showed here and what the catalog knows.
    fn judge(&self, peer: NodeId, shown: Boot) -> BootVerdict {
        let registered = self.router.catalog().node(peer).map(|record| record.boot);
        if registered.is_some_and(|seen| judge_boot(seen, shown) == BootVerdict::OldImage) {
            return BootVerdict::OldImage;
        }
        self.boots.lock().unwrap_or_else(PoisonError::into_inner).judge(peer, shown)
    }

    fn refuse(&self, peer: NodeId, cause: String) {
        self.world.probe.report(Report::PeerRefused { peer, cause });
    }
}

impl Inbound for Switchboard {
    fn message(&self, from: NodeId, lane: Lane, message: Bytes) {
        match lane {
            Lane::Raft => self.raft_batch(from, &message),
            Lane::Gossip => {
                self.membership.datagram(from, message);
            }
        }
    }

    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        let switchboard = self.clone();
        Box::pin(async move {
            let answer = match Request::decode(&body) {
                Ok(request) => switchboard.serve(from, class, request).await,
                Err(error) => Answer::Fault(Fault::Invalid(error.to_string())),
            };
            answer.encode().into()
        })
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.membership.link(peer, up);
        if up {
            return;
        }
        for handle in self.hosted.borrow().by_shard.values() {
            let _ = handle.actor.cast(ReplicaMessage::LinkLost(peer));
        }
    }
}

/// The fault of a request nobody may make.
pub(crate) fn not_allowed(what: &str, who: &Peer) -> Fault {
    let who = match who {
        Peer::Node(node) => format!("node {node}"),
        Peer::Client { principal, .. } => format!("client {principal}"),
        Peer::Anonymous => "a peer without a certificate".to_owned(),
    };
    Fault::NotAllowed(format!("{who} may not {what}"))
}
