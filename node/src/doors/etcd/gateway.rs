//! What all services of the door share: the way to the volume, who may pass,
//! and what every answer says about its member.
//!
//! Every request passes [`Gateway::admit`] first and gets a client that asks as
//! whoever sent it; no service reaches the volume in another way, so accounts are
//! judged below for all of them.

use std::{
    convert::Infallible,
    fmt,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::{
    client::{Client, ClientError, Ranged, Room},
    router::Router,
    world::Space,
};
use cluster::{
    auth::{AuthQuery, Need, Principal},
    ids::{FIRST_TENANT, NodeId, ShardId},
    mvcc::version::Version,
    request::{ReadLevel, ReplicaStatus},
    shard::{range::Range, transaction::Keys},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, timeout_at},
};
use tonic::{Extensions, Request, metadata::MetadataMap};

use super::{
    caller::{Caller, common_name},
    faults::EtcdFault,
    health::Serving,
    known::Heard,
    metrics::Counts,
    proto::etcdserverpb::ResponseHeader,
    quotas::{Brought, Passes, Quotas},
    rates::Rates,
    watch::Watched,
};
use crate::{
    config::EtcdConfig,
    doors::accounts::Accounts,
    observe::{
        audit::{Audit, Came, Change, Subject},
        health::Lines,
    },
};

/// Longest a request takes, as etcd's: five seconds and two elections.
pub(super) const DEADLINE: Duration = Duration::from_secs(7);
/// Longest a large range waits for its turn and for room: whoever reads nothing for
/// as long has been given up by then (`bodies`).
const TURN_MAX: Duration = Duration::from_secs(30);
/// How long a compaction waits for its sweep, if it is to: at 32,000 changes a second
/// that is twenty million, unless a snapshot that is being sent keeps them.
const SWEPT_WITHIN: Duration = Duration::from_mins(10);
/// Metadata by which a client asks to be refused where no leader is known.
const REQUIRE_LEADER: &str = "hasleader";

/// What the services share.
pub struct Gateway {
    /// The way to the volume, as the node itself: for what tells of the member,
    /// and for what only who runs the volume may ask.
    pub(super) client: Client,
    pub(super) router: Router,
    pub(super) node: NodeId,
    pub(super) config: EtcdConfig,
    /// Room on this node's disk.
    pub(super) space: watch::Receiver<Space>,
    /// Who is who.
    pub(super) accounts: Arc<Accounts>,
    /// Where changes are told.
    audit: Option<Audit>,
    /// Bytes that requests under way may hold.
    pub(super) asked: Arc<Semaphore>,
    /// Bytes that answers may hold: of their own, so that whoever reads none of them
    /// keeps nobody from asking.
    answers: Arc<Semaphore>,
    /// All of them.
    answers_most: usize,
    /// What responses of watches may hold.
    pub(super) watched: Arc<Watched>,
    /// Held by the one who waits for room although it holds some.
    turn: Semaphore,
    /// How often keys may be asked for.
    pub(super) rates: Rates,
    /// How much may lie below a prefix.
    pub(super) quotas: Quotas,
    /// The newest revision and term this door has told of, for answers that
    /// touch no key.
    revision: AtomicU64,
    term: AtomicU64,
    /// What others say of the shard.
    pub(super) heard: Heard,
    /// Whether it serves, for those who watch that.
    pub(super) serving: Serving,
    /// What the door counts by itself.
    pub(super) counts: Counts,
    /// The node's own page of metrics, if it has one.
    pub(super) own_page: Option<Lines>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gateway {
    /// The services' common part.
    pub fn new(
        client: &Client,
        router: Router,
        space: watch::Receiver<Space>,
        node: NodeId,
        config: EtcdConfig,
        accounts: Arc<Accounts>,
    ) -> Self {
        let client = client.with_deadline(DEADLINE);
        let (revision, term) = (AtomicU64::new(0), AtomicU64::new(0));
        let half = usize::try_from(config.memory.bytes() / 2).unwrap_or(usize::MAX);
        let answers_most = half.min(Semaphore::MAX_PERMITS);
        let bound = || Arc::new(Semaphore::new(answers_most));
        let (asked, answers) = (bound(), bound());
        let watched = Arc::new(Watched::new(answers_most));
        let (turn, rates) = (Semaphore::new(1), Rates::new(&config.rates));
        let quotas = Quotas::new(&config.quotas);
        let (audit, heard, serving) = (None, Heard::default(), Serving::default());
        let (counts, own_page) = (Counts::default(), None);
        Self {
            client,
            router,
            node,
            config,
            space,
            accounts,
            audit,
            asked,
            answers,
            answers_most,
            watched,
            turn,
            rates,
            quotas,
            revision,
            term,
            heard,
            serving,
            counts,
            own_page,
        }
    }

    /// The same, telling of changes.
    #[must_use]
    pub fn with_audit(self, audit: Option<Audit>) -> Self {
        Self { audit, ..self }
    }

    /// The same, showing under etcd's names some of what is on this page.
    #[must_use]
    pub fn with_metrics(self, page: Lines) -> Self {
        Self { own_page: Some(page), ..self }
    }

    /// The volume served.
    pub(super) fn volume(&self) -> &str {
        &self.config.volume
    }

    /// Lets a request in, with a client that asks as whoever sent it. The one
    /// place all requests pass.
    pub(super) async fn admit<T>(&self, request: Request<T>) -> Result<(Client, T), EtcdFault> {
        let (metadata, extensions, message) = request.into_parts();
        Ok((self.admit_stream(&metadata, &extensions).await?, message))
    }

    /// The same for a stream, by what came with its beginning.
    pub(super) async fn admit_stream(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Client, EtcdFault> {
        // Nothing was told yet.
        if self.term.load(Ordering::Relaxed) == 0 {
            self.await_term().await;
        }
        if needs_leader(metadata) && !self.has_leader() {
            self.await_first_leader().await;
            if !self.has_leader() {
                return Err(EtcdFault::NoLeader);
            }
        }
        let Caller { token, certificate } = Caller::of(metadata, extensions);
        let certified = certificate.as_deref().and_then(common_name);
        let principal = self.accounts.principal(token.as_deref(), certified.as_deref()).await?;
        Ok(self.client.acting_as(principal))
    }

    /// Lets a request in that touches no key, and that only who runs the volume
    /// may make.
    pub(super) async fn admit_root<T>(&self, request: Request<T>) -> Result<T, EtcdFault> {
        let (client, message) = self.admit(request).await?;
        self.check_root(&client).await?;
        Ok(message)
    }

    /// Refuses who is not root where accounts are in force.
    pub(super) async fn check_root(&self, client: &Client) -> Result<(), ClientError> {
        client.ask_accounts(self.volume(), AuthQuery::Users).await.map(drop)
    }

    /// Lets a request in that touches no key, of anybody with a name where
    /// accounts are in force.
    pub(super) async fn admit_named<T>(&self, request: Request<T>) -> Result<T, EtcdFault> {
        let (client, message) = self.admit(request).await?;
        client.ask_accounts(self.volume(), AuthQuery::Named).await?;
        Ok(message)
    }

    /// Lets pass what accounts permit, and then what keys may be asked for. Where anything
    /// is counted accounts are asked first: whoever is denied uses up nothing that others
    /// have, and does not learn how much that is. It is told of like one whom the store
    /// denied.
    pub(super) async fn pass<'a>(
        &'a self,
        client: &Client,
        telling: impl FnOnce() -> Telling<'a>,
        needs: impl FnOnce() -> Vec<Need>,
        touched: impl FnOnce() -> Vec<Keys>,
    ) -> Result<(), EtcdFault> {
        if self.rates.is_empty() && self.quotas.is_empty() {
            return Ok(());
        }
        let permitted = Box::pin(self.permit(client, needs())).await;
        if permitted.is_err() {
            return telling().watch(ready(permitted), |()| Version(0)).await;
        }
        self.rates.take(touched)
    }

    /// Asks accounts. That this member's copy of them permits it is enough, for it is
    /// judged once more where it takes effect; what it denies may be permitted by now.
    async fn permit(&self, client: &Client, needs: Vec<Need>) -> Result<(), EtcdFault> {
        if self.permits(client.principal(), &needs) {
            return Ok(());
        }
        Ok(client.ask_accounts(self.volume(), AuthQuery::May(needs)).await.map(drop)?)
    }

    fn permits(&self, principal: &Principal, needs: &[Need]) -> bool {
        let hosted = self.router.hosted();
        let half = self
            .shard()
            .and_then(|shard| hosted.by_shard.get(&shard)?.published.borrow().half.clone());
        // What hangs on a lease is not looked at.
        let none = |_, _: &mut dyn FnMut(&[u8]) -> bool| Ok::<_, Infallible>(());
        half.is_some_and(|half| half.reader.accounts().check(principal, needs, none).is_ok())
    }

    /// Lets pass what a request may bring below a prefix that has a quota.
    pub(super) async fn within_quotas(
        &self,
        brings: impl FnOnce() -> Vec<Brought>,
    ) -> Result<Passes<'_>, EtcdFault> {
        self.quotas.admit(&self.client, self.volume(), brings).await
    }

    /// What is to be told of a change that somebody asks for, if that is wanted.
    pub(super) fn telling(
        &self,
        client: &Client,
        operation: &'static str,
        of: impl FnOnce() -> Vec<Subject>,
    ) -> Telling<'_> {
        let change = || Change::new("etcd", client.principal(), operation, of());
        Telling(self.audit.as_ref().map(|audit| (audit, change())))
    }

    /// Room for what a request gathers; nothing yet.
    pub(super) fn room(&self) -> Arc<Room> {
        Arc::new(self.room_of_answers())
    }

    fn room_of_answers(&self) -> Room {
        Room::of(self.answers.clone()).at_most(self.answers_most)
    }

    /// The same for a request that can begin anew: it waits for no more while it
    /// holds some, or all that are large would wait for each other.
    pub(super) fn modest_room(&self) -> Arc<Room> {
        Arc::new(self.room_of_answers().modest())
    }

    /// The same for such a request that had to give back what it held, once those
    /// before it have what they need: it waits as long as there is hope.
    pub(super) async fn room_in_turn(&self) -> Result<(Arc<Room>, SemaphorePermit<'_>), EtcdFault> {
        let until = Instant::now() + TURN_MAX;
        match timeout_at(until, self.turn.acquire()).await {
            Ok(Ok(turn)) => Ok((Arc::new(self.room_of_answers().until(until)), turn)),
            Ok(Err(_)) | Err(_) => Err(EtcdFault::TooManyRequests),
        }
    }

    /// What an answer says of its member, at a version.
    pub(super) fn header(&self, version: Version) -> ResponseHeader {
        self.revision.fetch_max(version.0, Ordering::Relaxed);
        let term = self.known().map_or(0, |known| known.term);
        let term = self.term.fetch_max(term, Ordering::Relaxed).max(term);
        ResponseHeader {
            cluster_id: self.cluster_id(),
            member_id: member_id(self.node),
            revision: revision(version),
            raft_term: term,
        }
    }

    /// The same for what touches no key: at the newest version known here.
    pub(super) fn header_now(&self) -> ResponseHeader {
        let applied = self.known().map_or(0, |known| known.version.0);
        self.header(Version(applied.max(self.revision.load(Ordering::Relaxed))))
    }

    fn cluster_id(&self) -> u64 {
        let catalog = self.router.catalog();
        catalog.cluster().map_or(0, |cluster| fold(cluster.cluster.0))
    }

    /// The volume's one shard.
    pub(super) fn shard(&self) -> Option<ShardId> {
        let catalog = self.router.catalog();
        catalog.volume(FIRST_TENANT, self.volume())?.shards.first().copied()
    }

    /// The state of this node's replica of it, if there is one.
    pub(super) fn status(&self) -> Option<ReplicaStatus> {
        let hosted = self.router.hosted();
        hosted.by_shard.get(&self.shard()?)?.status()
    }

    /// Whether puts are refused here for want of room: of the disk, or of the store
    /// below its limit.
    pub(super) fn is_full(&self) -> bool {
        let hosted = self.router.hosted();
        let own = self.shard().and_then(|shard| hosted.by_shard.get(&shard));
        self.space.borrow().is_full() || own.is_some_and(|own| own.limit().is_full())
    }

    /// Leaders that this node's replica saw come, if there is one.
    pub(super) fn leaders_seen(&self) -> Option<u64> {
        let hosted = self.router.hosted();
        Some(hosted.by_shard.get(&self.shard()?)?.published.borrow().leaders)
    }

    /// Waits until this member's store holds nothing any more of what was let go of
    /// below a version. A member without a copy has nothing to wait for.
    pub(super) async fn swept(&self, below: Version) -> Result<(), EtcdFault> {
        let hosted = self.router.hosted();
        let replica = self.shard().and_then(|shard| hosted.by_shard.get(&shard));
        let Some(mut published) = replica.map(|replica| replica.published.clone()) else {
            return Ok(());
        };
        // What is watched from a version needs what it replaced: one more stays.
        let floor = Version(below.0.saturating_sub(1));
        let gone = published
            .wait_for(|published| published.half.as_ref().is_some_and(|half| half.swept >= floor));
        match timeout_at(Instant::now() + SWEPT_WITHIN, gone).await {
            Err(_) => Err(EtcdFault::Timeout),
            // A replica that was taken away has swept all of it.
            Ok(Ok(_) | Err(_)) => Ok(()),
        }
    }

    /// The newest version, confirmed by a majority; without one, what this
    /// member has, as etcd's members tell.
    pub(super) async fn newest_or_own(&self) -> Version {
        let range = Range::of(Keys::One(vec![0])).heads().limit(1);
        match self.client.range(self.volume(), range, ReadLevel::Strong).await {
            Ok(Ranged { now, .. }) => now,
            Err(_) => self.known().map_or(Version(0), |known| known.version),
        }
    }
}

/// A change that is told of, if that is wanted.
pub(super) struct Telling<'a>(Option<(&'a Audit, Change)>);

impl Telling<'_> {
    /// Of what is no change.
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// Does it, and tells what it came to.
    pub(super) fn watch<T, E: fmt::Display, C: Into<Came>>(
        self,
        change: impl Future<Output = Result<T, E>>,
        came: impl FnOnce(&T) -> C,
    ) -> impl Future<Output = Result<T, E>> {
        // Boxed before it is handed on: each hand would make room for it anew.
        let change = Box::pin(change);
        async move {
            match self.0 {
                Some((audit, told)) => Box::pin(audit.watch(told, change, came)).await,
                None => change.await,
            }
        }
    }
}

/// Whether a client asked to be refused without a leader.
pub(super) fn needs_leader(metadata: &MetadataMap) -> bool {
    metadata.get(REQUIRE_LEADER).is_some_and(|value| value == "true")
}

/// A version as etcd's signed number.
pub(super) fn revision(version: Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

/// A member's number: etcd's have 64 bits, ours 128. Ids are random, so half of
/// one is as good.
pub(super) fn member_id(node: NodeId) -> u64 {
    fold(node.0)
}

fn fold(id: u128) -> u64 {
    (id >> 64) as u64
}
