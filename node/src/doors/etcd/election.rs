//! etcd's service Election: whoever stands first in a queue leads, and says what.
//!
//! The revision that created a leader's key is its fencing token, as with locks.
//!
//! Source: etcd's v3election and the election of its concurrency package.

use std::{pin::Pin, sync::Arc};

use actors::client::{Client, ClientError};
use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::{Range, SortBy},
        transaction::{Compare, Keys, Put, Relation, Step, Target, Transaction},
        watch::{EventKind, Watch},
    },
};
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};

use super::{
    faults::EtcdFault,
    gateway::Gateway,
    lock::{Waiting, lease_of, places, queue_fault},
    proto::v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse,
        ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse,
        election_server::Election,
    },
    translate::key_value,
};

use crate::observe::audit::text;

/// Leaders of one stream that wait for its reader.
const LEADERS_WAITING_MAX: usize = 4;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ElectionService(pub(super) Arc<Gateway>);

fn fault(error: ClientError) -> Status {
    EtcdFault::from(error).into()
}

fn unknown(text: &str) -> Status {
    Status::new(Code::Unknown, text)
}

/// Holds as long as this leader leads, or waits.
fn stands(leader: &LeaderKey) -> Compare {
    let token = Version(leader.rev.cast_unsigned());
    Compare::new(leader.key.clone(), Relation::Equal, Target::Created(token))
}

impl ElectionService {
    /// Says something new as a leader; the version.
    async fn say(
        &self,
        client: &Client,
        leader: &LeaderKey,
        value: Vec<u8>,
    ) -> Result<Version, Status> {
        let put = Put::new(leader.key.clone(), value).under(LeaseId(leader.lease.cast_unsigned()));
        let say = Transaction::new().when(stands(leader)).then(Step::Put(put));
        let said = client.transact(self.0.volume(), say);
        let told = || vec![text(&leader.key)];
        let said = self.0.audited(client, "proclaim", told, said, |done| done.version);
        let said = said.await.map_err(fault)?;
        if said.succeeded { Ok(said.version) } else { Err(unknown("election: not leader")) }
    }

    /// Who leads, if anybody does, and the newest version.
    async fn first(
        &self,
        client: &Client,
        name: &[u8],
    ) -> Result<(Option<Item>, Version), ClientError> {
        let all = Range::of(places(name)).sorted(SortBy::Created, false).limit(1);
        let found = client.range(self.0.volume(), all, ReadLevel::Strong).await?;
        Ok((found.result.items.into_iter().next(), found.now))
    }

    /// Tells of every leader, and of what it says, as long as somebody listens.
    async fn tell(
        &self,
        client: &Client,
        name: &[u8],
        told: &mpsc::Sender<Result<LeaderResponse, Status>>,
    ) -> Result<(), ClientError> {
        loop {
            let (leader, now) = self.first(client, name).await?;
            let keys = leader.as_ref().map(|leader| leader.key.clone());
            // Without a leader any key under the name is news.
            let keys = keys.map_or_else(|| places(name), Keys::One);
            let leads = leader.is_some();
            if let Some(leader) = leader
                && !self.pass(leader, now, told).await
            {
                return Ok(());
            }
            let from = Some(Version(now.0 + 1));
            let mut watching = client.watch(self.0.volume(), Watch::of(keys), from).await?;
            'leader: loop {
                let happened = watching.next().await?;
                for event in happened.events {
                    if !leads || event.kind == EventKind::Delete {
                        break 'leader;
                    }
                    let version = event.item.modified;
                    if !self.pass(event.item, version, told).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether somebody still listens.
    async fn pass(
        &self,
        leader: Item,
        version: Version,
        told: &mpsc::Sender<Result<LeaderResponse, Status>>,
    ) -> bool {
        let header = Some(self.0.header(version));
        told.send(Ok(LeaderResponse { header, kv: Some(key_value(leader)) })).await.is_ok()
    }
}

/// etcd's words for a request that names no leader.
fn named(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| unknown("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (client, CampaignRequest { name, lease, value }) = self.0.admit(request).await?;
        self.0.rates.take(|| vec![places(&name)])?;
        let volume = self.0.volume();
        let lease = lease_of(&client, volume, lease).await.map_err(queue_fault)?;
        let queued = client.queue_up(volume, &name, lease, &value);
        let told = || vec![text(&name)];
        let queued = self.0.audited(&client, "campaign", told, queued, |queued| queued.version);
        let queued = queued.await.map_err(queue_fault)?;
        let mut waiting = Waiting::new(&client, volume, &queued);
        let rev = queued.token.0.cast_signed();
        let (key, lease) = (queued.key.clone(), lease.0.cast_signed());
        let leader = LeaderKey { name: name.clone(), key, rev, lease };
        if queued.found.as_ref().is_some_and(|found| *found != value) {
            waiting.said(self.say(&client, &leader, value).await?);
        }
        Box::pin(waiting.take_turn(&name)).await?;
        let header = Some(self.0.header(queued.version));
        Ok(Response::new(CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (client, ProclaimRequest { leader, value }) = self.0.admit(request).await?;
        let leader = named(leader)?;
        self.0.rates.take(|| vec![Keys::One(leader.key.clone())])?;
        let version = self.say(&client, &leader, value).await?;
        Ok(Response::new(ProclaimResponse { header: Some(self.0.header(version)) }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (client, LeaderRequest { name }) = self.0.admit(request).await?;
        self.0.rates.take(|| vec![places(&name)])?;
        let (leader, now) = self.first(&client, &name).await.map_err(fault)?;
        let leader = leader.ok_or_else(|| unknown("election: no leader"))?;
        let header = Some(self.0.header(now));
        Ok(Response::new(LeaderResponse { header, kv: Some(key_value(leader)) }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (client, LeaderRequest { name }) = self.0.admit(request).await?;
        self.0.rates.take(|| vec![places(&name)])?;
        let (sender, mut leaders) = mpsc::channel(LEADERS_WAITING_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            let told = tokio::select! {
                () = sender.closed() => return,
                told = Box::pin(service.tell(&client, &name, &sender)) => told,
            };
            if let Err(error) = told {
                drop(sender.send(Err(fault(error))).await);
            }
        });
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| leaders.poll_recv(context)))))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (client, ResignRequest { leader }) = self.0.admit(request).await?;
        let leader = named(leader)?;
        let leave = Step::delete(leader.key.clone());
        let resign = Transaction::new().when(stands(&leader)).then(leave);
        let done = client.transact(self.0.volume(), resign);
        let told = || vec![text(&leader.key)];
        let done = self.0.audited(&client, "resign", told, done, |done| done.version);
        let done = done.await.map_err(fault)?;
        Ok(Response::new(ResignResponse { header: Some(self.0.header(done.version)) }))
    }
}
