//! etcd's service Election: whoever stands first in a queue leads, and says what.
//!
//! The revision that created a leader's key is its fencing token, as with locks.
//!
//! Source: etcd's v3election and the election of its concurrency package.

use std::sync::Arc;

use actors::client::{Client, ClientError, Happened, Queued};
use cluster::{
    auth::needs,
    ids::LeaseId,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::{Range, SortBy},
        transaction::{Compare, Keys, Put, Relation, Step, Target, Transaction, item_bytes},
        watch::{Event, EventKind, Watch},
    },
};
use tokio::{sync::mpsc, time::sleep};
use tonic::{Code, Request, Response, Status};

use super::{
    bodies::WhileWaitedFor,
    faults::EtcdFault,
    frames::{self, Unused},
    gateway::{Gateway, Telling, needs_leader},
    kv::reading,
    proto::v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse,
        ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse,
        election_server::Election,
    },
    queue::{PAUSE, TAKEN_OVER, queue_fault, standing, unknown, untouched},
    quotas::brought_by,
    translate::key_value,
    watch::{Gathering, NoRoom, Own, Sent, Told, told},
};
use crate::observe::audit::Subject;

/// Leaders of one stream that wait for its reader.
const LEADERS_WAITING_MAX: usize = 4;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ElectionService(pub(super) Arc<Gateway>);

/// Holds as long as this leader leads, or waits.
fn stands(leader: &LeaderKey) -> Compare {
    let token = Version(leader.rev.cast_unsigned());
    Compare::new(leader.key.clone(), Relation::Equal, Target::Created(token))
}

/// Says something new as a leader.
fn speech(leader: &LeaderKey, value: Vec<u8>) -> Transaction {
    let put = Put::new(leader.key.clone(), value).under(LeaseId(leader.lease.cast_unsigned()));
    Transaction::new().when(stands(leader)).then(Step::Put(put))
}

impl ElectionService {
    /// Says something new as a leader; the version, or why it was not said.
    async fn say(
        &self,
        client: &Client,
        key: &[u8],
        speech: Transaction,
        or: &'static str,
    ) -> Result<Version, Status> {
        let telling = self.0.telling(client, "proclaim", || vec![Subject::key(key)]);
        let said = async {
            let passes = self.0.within_quotas(|| brought_by(&speech)).await?;
            let said = client.transact(self.0.volume(), speech).await.map_err(EtcdFault::from)?;
            let not = || EtcdFault::Other(Code::Unknown, or.to_owned());
            if !said.succeeded {
                return Err(not());
            }
            passes.written(said.version);
            Ok(said.version)
        };
        telling.watch(said, |version| *version).await.map_err(queue_fault)
    }

    /// Lets pass who may look at a name.
    async fn let_look(&self, client: &Client, name: &[u8]) -> Result<(), Status> {
        let (needs, keys) = (|| reading(&Queued::places(name)), || vec![Queued::places(name)]);
        self.0.pass(client, Telling::nothing, needs, keys).await.map_err(queue_fault)
    }

    /// Who leads, if anybody does, and the newest version. What stands below the name
    /// may be much, so it is looked at without values.
    async fn first(
        &self,
        client: &Client,
        name: &[u8],
    ) -> Result<(Option<Item>, Version), ClientError> {
        let oldest = Range::of(Queued::places(name)).sorted(SortBy::Created, false);
        loop {
            let (first, now) = self.0.look(client, oldest.clone()).await?;
            let Some(first) = first else { return Ok((None, now)) };
            let whole = Range::of(first.key);
            let found = client.range(self.0.volume(), whole, ReadLevel::Strong).await?;
            // Whoever was the oldest is so for as long as it stands.
            let leads = |item: &Item| item.created == first.created;
            if let Some(leader) = found.result.items.into_iter().find(leads) {
                return Ok((Some(leader), found.now));
            }
        }
    }

    /// Tells of every leader, and of what it says, as long as somebody listens; over
    /// changes of the leader of the volume too.
    async fn tell(
        &self,
        client: &Client,
        name: &[u8],
        listener: &mut Listener,
    ) -> Result<(), EtcdFault> {
        loop {
            match self.tell_on(client, name, listener).await {
                Ok(()) => return Ok(()),
                Err(Over::Store(error)) if error.is_retryable() => sleep(PAUSE).await,
                Err(Over::Store(error)) => return Err(error.into()),
                Err(Over::NoRoom) => return Err(EtcdFault::TooManyRequests),
            }
        }
    }

    /// The same until something fails.
    async fn tell_on(
        &self,
        client: &Client,
        name: &[u8],
        listener: &mut Listener,
    ) -> Result<(), Over> {
        loop {
            let (leader, now) = self.first(client, name).await?;
            let keys = leader.as_ref().map(|leader| leader.key.clone());
            // Without a leader any key under the name is news.
            let keys = keys.map_or_else(|| Queued::places(name), Keys::One);
            let leads = leader.is_some();
            let leader = leader.into_iter().map(|leader| (now, leader)).collect();
            if !listener.pass(leader).await? {
                continue;
            }
            let from = Some(Version(now.0 + 1));
            let mut watching = client.watch(self.0.volume(), Watch::of(keys), from).await?;
            loop {
                let (said, over) = said_of(watching.next().await?, leads);
                if !listener.pass(said).await? || over {
                    break;
                }
            }
        }
    }
}

/// What a leader said, and whether it leads no more. If none led, somebody may now.
fn said_of(happened: Happened, leads: bool) -> (Vec<(Version, Item)>, bool) {
    let events = happened.events.len();
    let said = happened.events.into_iter();
    let said = said.take_while(|event| leads && event.kind == EventKind::Put);
    let said: Vec<_> = said.map(|Event { item, .. }| (item.modified, item)).collect();
    let over = said.len() < events;
    (said, over)
}

/// Whoever listens to an election. As with watches, what gets no room is dropped; then
/// only the newest is told, in its turn.
struct Listener {
    gateway: Arc<Gateway>,
    told: mpsc::Sender<Sent<LeaderResponse>>,
    gathering: Gathering,
    /// Whom it was told of last, and when that was said: it is not said twice.
    last: Option<(Vec<u8>, Version)>,
}

/// Why a listener hears no more.
enum Over {
    Store(ClientError),
    /// What is to be told is more than there is room for at all.
    NoRoom,
}

impl From<ClientError> for Over {
    fn from(error: ClientError) -> Self {
        Self::Store(error)
    }
}

impl Listener {
    /// Tells of leaders in their order; whether there was room. Without it they are
    /// dropped, and the turn has come when this returns.
    async fn pass(&mut self, mut leaders: Vec<(Version, Item)>) -> Result<bool, Over> {
        let is_last = |leader: &Item| {
            self.last
                .as_ref()
                .is_some_and(|(key, said)| *key == leader.key && *said == leader.modified)
        };
        leaders.retain(|(_, leader)| !is_last(leader));
        let bytes = leaders.iter().map(|(_, leader)| item_bytes(leader)).sum();
        match self.gathering.take(bytes).await {
            Ok(()) => {}
            Err(NoRoom::Now) => {
                drop(leaders);
                // Nobody's turn is spent on waiting for a reader.
                drop(self.told.reserve().await);
                self.gathering.begin_anew().await;
                return Ok(false);
            }
            Err(NoRoom::Ever(_)) => return Err(Over::NoRoom),
        }
        for (version, leader) in leaders {
            let header = Some(self.gateway.header(version));
            self.last = Some((leader.key.clone(), leader.modified));
            let response = LeaderResponse { header, kv: Some(key_value(leader)) };
            let told = Told { response, rooms: self.gathering.rooms() };
            // Once nobody listens, this is ended.
            drop(self.told.send(Ok(told)).await);
        }
        self.gathering.end();
        Ok(true)
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
        let telling = || self.0.telling(&client, "campaign", || vec![Subject::name(&name)]);
        let (needs, keys) = (|| standing(&name, lease), || vec![Queued::places(&name)]);
        self.0.pass(&client, telling, needs, keys).await.map_err(queue_fault)?;
        let joined = self.0.join_queue(&client, "campaign", &name, lease, &value);
        let (mut waiting, lease) = Box::pin(joined).await?;
        // However long it waits, it does not hold what stood there.
        let found = waiting.queued.found.take();
        let queued = waiting.queued.clone();
        let rev = queued.token.0.cast_signed();
        let (key, lease) = (queued.key.clone(), lease.0.cast_signed());
        let leader = LeaderKey { name: name.clone(), key, rev, lease };
        if found.is_some_and(|found| found != value) {
            // What comes late of a request that was given up must not say it.
            let speech = speech(&leader, value).when(untouched(&queued));
            let said = self.say(&client, &leader.key, speech, TAKEN_OVER);
            waiting.queued.version = Box::pin(said).await?;
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
        let speech = speech(&leader, value);
        let telling = || self.0.telling(&client, "proclaim", || vec![Subject::key(&leader.key)]);
        let keys = || vec![Keys::One(leader.key.clone())];
        let passed = self.0.pass(&client, telling, || needs::of_transaction(&speech), keys);
        passed.await.map_err(queue_fault)?;
        let said = self.say(&client, &leader.key, speech, "election: not leader");
        let version = Box::pin(said).await?;
        Ok(Response::new(ProclaimResponse { header: Some(self.0.header(version)) }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (client, LeaderRequest { name }) = self.0.admit(request).await?;
        self.let_look(&client, &name).await?;
        let (leader, now) = Box::pin(self.first(&client, &name)).await.map_err(queue_fault)?;
        let leader = leader.ok_or_else(|| unknown("election: no leader"))?;
        let header = Some(self.0.header(now));
        Ok(self.0.with_room(LeaderResponse { header, kv: Some(key_value(leader)) })?)
    }

    type ObserveStream = Unused<LeaderResponse>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let needs_leader = needs_leader(request.metadata());
        let (client, LeaderRequest { name }) = self.0.admit(request).await?;
        self.let_look(&client, &name).await?;
        let (sender, leaders) = mpsc::channel(LEADERS_WAITING_MAX);
        let gathering = Gathering::new(self.0.watched.clone(), Own::default());
        let service = self.clone();
        tokio::spawn(Box::pin(async move {
            let told = sender.clone();
            let gateway = service.0.clone();
            let mut listener = Listener { gateway, told, gathering, last: None };
            let over = tokio::select! {
                () = sender.closed() => return,
                over = service.tell(&client, &name, &mut listener) => over.map_err(queue_fault),
                fault = service.0.leaderless(needs_leader) => Err(fault.into()),
            };
            if let Err(status) = over {
                drop(sender.send(Err(status)).await);
            }
        }));
        let mut response = frames::stream(told(leaders));
        response.extensions_mut().insert(WhileWaitedFor(self.0.watched.turn.clone()));
        Ok(response)
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (client, ResignRequest { leader }) = self.0.admit(request).await?;
        let leader = named(leader)?;
        let leave = Step::delete(leader.key.clone());
        let resign = Transaction::new().when(stands(&leader)).then(leave);
        let telling = self.0.telling(&client, "resign", || vec![Subject::key(&leader.key)]);
        let done = client.transact(self.0.volume(), resign);
        let done = telling.watch(done, |done| done.version).await.map_err(queue_fault)?;
        Ok(Response::new(ResignResponse { header: Some(self.0.header(done.version)) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{super::tests::Door, *};

    /// A put of a campaign that was given up, which comes after its retry took the
    /// place over, wrote there, and the retry was told that its lease is over.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_campaign_that_was_given_up_says_late_is_not_said() {
        let door = Door::open().await;
        let (gateway, lease) = (&door.gateway, door.lease().await);
        let client = &gateway.client;
        let stand = || gateway.queue_up(client, "campaign", b"e", lease, b"one");
        let given_up = stand().await.unwrap();
        let retry = stand().await.unwrap();
        let leader = LeaderKey {
            name: b"e".to_vec(),
            key: given_up.queued.key.clone(),
            rev: given_up.queued.token.0.cast_signed(),
            lease: lease.0.cast_signed(),
        };
        let service = ElectionService(gateway.clone());
        let late = speech(&leader, b"late".to_vec()).when(untouched(&given_up.queued));
        let late = service.say(client, &leader.key, late, TAKEN_OVER).await.unwrap_err();
        assert_eq!(late.message(), TAKEN_OVER);
        retry.take_turn(b"e").await.unwrap();
        let proclaim = ProclaimRequest { leader: Some(leader), value: b"new".to_vec() };
        service.proclaim(Request::new(proclaim)).await.unwrap();
        let asked = LeaderRequest { name: b"e".to_vec() };
        let told = service.leader(Request::new(asked)).await.unwrap().into_inner();
        assert_eq!(told.kv.unwrap().value, b"new");
    }

    /// Anybody may have put keys below a name, and a name may be empty.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_stands_below_a_name_is_looked_at_within_the_room_of_the_door() {
        const MIB: usize = 1 << 20;
        let door = Door::open().await;
        let gateway = &door.gateway;
        // Of 16 MiB answers have half.
        for number in 0..12 {
            let put = Put::new(format!("/{number}"), vec![7; MIB]);
            gateway.client.put_as(gateway.volume(), put).await.unwrap();
        }
        let service = ElectionService(gateway.clone());
        let leader = || service.leader(Request::new(LeaderRequest { name: Vec::new() }));
        let told = leader().await.unwrap();
        assert_eq!(told.get_ref().kv.as_ref().unwrap().key, b"/0");

        let all = gateway.room();
        assert!(!all.set(8 * MIB), "the answer holds its own");
        drop(told);
        assert!(all.set(8 * MIB));
        assert_eq!(leader().await.unwrap_err().code(), Code::ResourceExhausted);
        let lease = door.lease().await;
        let waits = gateway.queue_up(&gateway.client, "lock", b"l", lease, b"").await.unwrap();
        let mut turn = Box::pin(waits.take_turn(b"l"));
        assert!(timeout(Duration::from_secs(1), &mut turn).await.is_err());
        drop(all);
        timeout(Duration::from_secs(10), turn).await.unwrap().unwrap();
    }
}
