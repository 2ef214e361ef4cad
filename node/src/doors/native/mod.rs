//! The native door: what clients ask by QUIC, on its way to the switchboard.
//!
//! It decides nothing. If the node tells who changed what, what a client asks is looked
//! at here: a change is told with the name in the client's certificate and with what it
//! came to. Requests of other nodes are not: they pass on what a client asked there,
//! which was told there, or what the cluster decided by itself. Where nothing is told,
//! requests pass unseen.
//!
//! A stranger can only ask to be let in. That is told once it was, or whoever has no
//! certificate could push everything else out of the log.

mod changes;

use std::{
    fmt,
    future::ready,
    sync::{Arc, Weak},
};

use actors::switchboard::Switchboard;
use bytes::Bytes;
use cluster::{
    catalog::view::CatalogView,
    ids::NodeId,
    mvcc::version::Version,
    ports::network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    request::{Answer, Fault, Request},
};
use tokio::sync::watch;

use self::changes::{came_of, change_of};
use crate::observe::audit::{Audit, Came, Change, Subject, Told};

/// The door's name in lines of the audit log.
const DOOR: &str = "native";

/// The door of one node.
#[derive(Clone, Debug)]
pub struct NativeDoor {
    switchboard: Switchboard,
    catalog: watch::Receiver<Arc<CatalogView>>,
    /// Not its own: the network that it serves is held by what it serves, and so never
    /// let go of, and a log ends with the last who holds it.
    audit: Option<Weak<Audit>>,
}

impl NativeDoor {
    /// In front of a switchboard; `catalog` knows the names of volumes.
    pub fn new(
        switchboard: Switchboard,
        catalog: watch::Receiver<Arc<CatalogView>>,
        audit: Option<&Arc<Audit>>,
    ) -> Self {
        Self { switchboard, catalog, audit: audit.map(Arc::downgrade) }
    }

    /// Serves a request, and tells of it if it is a change.
    async fn tell(self, audit: Weak<Audit>, from: Peer, class: RequestClass, body: Bytes) -> Bytes {
        let Some(audit) = audit.upgrade() else {
            // The node ends.
            return Answer::Fault(Fault::NotLeader { leader: None }).encode().into();
        };
        let Ok(request) = Request::decode(&body) else {
            return self.switchboard.request(from, class, body).await;
        };
        drop(body);
        let change = self.change(&from, &request);
        let joins = match &request {
            Request::Join(join) => Some(join.node),
            Request::Shard(_)
            | Request::CatalogChanges { .. }
            | Request::NodeStatus
            | Request::SnapshotPiece(_)
            | Request::NewToken { .. } => None,
        };
        let served = self.switchboard.serve(from, class, request);
        let answer = match change {
            Some(change) => Box::pin(told(&audit, change, served)).await,
            None => served.await,
        };
        if let (Answer::Joined(_), Some(node)) = (&answer, joins) {
            let joined = Change::new(DOOR, Told::nobody(), "join", vec![Subject::node(node)]);
            let _ = told(&audit, joined, ready(Answer::NodeStatus(String::new()))).await;
        }
        answer.encode().into()
    }

    /// What a request changes, if it does; that of a client.
    fn change(&self, from: &Peer, request: &Request) -> Option<Change> {
        let Peer::Client { principal, .. } = from else { return None };
        let (operation, of) = change_of(request)?;
        let name = Told::of(principal.as_bytes());
        Some(Change::new(DOOR, name, operation, of).within(self.volume_of(request)))
    }

    /// The volume that a request is for, as far as it is known here.
    fn volume_of(&self, request: &Request) -> Option<Told> {
        let Request::Shard(request) = request else { return None };
        let catalog = self.catalog.borrow();
        let volume = catalog.shard(request.shard)?.descriptor.volume;
        Some(Told::of(catalog.volume_by_id(volume)?.name.as_bytes()))
    }
}

impl Inbound for NativeDoor {
    fn message(&self, from: NodeId, lane: Lane, message: Bytes) {
        self.switchboard.message(from, lane, message);
    }

    fn request(&self, from: Peer, class: RequestClass, body: Bytes) -> BoxFuture<Bytes> {
        match (&self.audit, &from) {
            (Some(audit), Peer::Client { .. } | Peer::Anonymous) => {
                Box::pin(self.clone().tell(audit.clone(), from, class, body))
            }
            (Some(_), Peer::Node(_)) | (None, _) => self.switchboard.request(from, class, body),
        }
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.switchboard.link(peer, up);
    }
}

/// An answer that says why nothing was done.
struct Refused {
    answer: Answer,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Waits for the answer and tells what it says of a change.
async fn told(audit: &Audit, change: Change, served: impl Future<Output = Answer>) -> Answer {
    let done = async {
        let answer = served.await;
        match came_of(&answer) {
            Ok(revision) => Ok((answer, revision)),
            Err(why) => Err(Refused { answer, why }),
        }
    };
    let came = |(_, revision): &(Answer, Option<Version>)| Came { revision: *revision, of: None };
    match audit.watch(change, done, came).await {
        Ok((answer, _)) | Err(Refused { answer, .. }) => answer,
    }
}
