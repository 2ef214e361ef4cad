//! A small true cluster in memory: three nodes, one leader per shard, sessions
//! that keep replies, versions that can be read again. What it lacks is
//! failure of its own: tests script each fault.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{
    catalog::{
        command::{CatalogCommand, CatalogOutcome, CatalogRefusal},
        encoding::{encode_record, node_key, shard_key, volume_key},
        record::{
            NodeRecord, NodeState, ShardRecord, VolumeKind, VolumePolicy, VolumeRecord, VolumeState,
        },
    },
    ids::{
        CATALOG_SHARD, CATALOG_VOLUME, Epoch, FIRST_TENANT, LeaseId, LogIndex, NodeId, ReplicaId,
        SessionId, ShardId, VolumeId,
    },
    limits::SESSION_IN_FLIGHT_MAX,
    mvcc::{
        tally::Tally,
        version::{Hlc, Version},
    },
    ports::{
        clock::Clock,
        entropy::Entropy,
        network::{BoxFuture, RequestClass},
    },
    request::{
        Answer, Fault, Item, ReplicaStatus, Request, ShardAnswer, ShardBody, ShardRequest,
        ShardResult,
    },
    shard::{
        command::{Op, Outcome, Refusal, SessionRequest},
        descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
        range::{Range, RangeResult},
        transaction::{Compare, Keys, Put, Step, StepResult, Transacted, Transaction},
    },
    units::{Instant, WallTime},
};
use tokio::time::Instant as TokioInstant;

use crate::client::{Client, Door, DoorError};

/// What befalls the next write.
#[derive(Clone, Debug)]
pub(super) enum Mishap {
    /// Refused before it is executed.
    Before(Fault),
    /// Executed, then answered with a fault.
    After(Fault),
    /// Executed; the answer never comes.
    Silence,
    /// Executed; the connection ends.
    Lost,
    /// Executed; the connection ends, and others crowd out what was read.
    Crowded,
    /// The session is forgotten first.
    Expire,
}

#[derive(Debug, Default)]
struct Session {
    answered: u64,
    replies: BTreeMap<u64, Outcome>,
}

type Versions = Vec<(Version, Option<Vec<u8>>)>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) shards: BTreeMap<ShardId, ShardDescriptor>,
    pub(super) volumes: BTreeMap<String, VolumeRecord>,
    pub(super) leaders: BTreeMap<ShardId, NodeId>,
    pub(super) leaderless_until: Option<TokioInstant>,
    pub(super) dead: BTreeSet<NodeId>,
    /// Who knows no leader.
    pub(super) unaware: BTreeSet<NodeId>,
    pub(super) mishaps: VecDeque<Mishap>,
    pub(super) executed: BTreeMap<Vec<u8>, u32>,
    pub(super) sessions_opened: u32,
    pub(super) calls: Vec<Option<NodeId>>,
    pub(super) show_to: Version,
    /// What hears who asks for the first of a range in another order.
    pub(super) sorted: Option<Fault>,
    /// Keys of one answer to a range; zero for all.
    pub(super) page_keys: usize,
    /// How many who name a version of a range hear that it was let go of.
    pub(super) let_go: u32,
    sessions: BTreeMap<(ShardId, SessionId), Session>,
    data: BTreeMap<ShardId, BTreeMap<Vec<u8>, Versions>>,
    changes: Vec<(String, Option<Vec<u8>>)>,
    pub(super) last: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Model(Arc<Mutex<State>>);

pub(super) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }
    fn wall(&self) -> WallTime {
        WallTime(1_000)
    }
}

/// A generator with a seed.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let seed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

impl Model {
    pub(super) fn new() -> Self {
        let state = State {
            shards: BTreeMap::new(),
            volumes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            leaderless_until: None,
            dead: BTreeSet::new(),
            unaware: BTreeSet::new(),
            mishaps: VecDeque::new(),
            executed: BTreeMap::new(),
            sessions_opened: 0,
            calls: Vec::new(),
            show_to: Version(u64::MAX),
            sorted: None,
            page_keys: 0,
            let_go: 0,
            sessions: BTreeMap::new(),
            data: BTreeMap::new(),
            changes: Vec::new(),
            last: Hlc::at(WallTime(1_000)).0,
        };
        let model = Self(Arc::new(Mutex::new(state)));
        {
            let mut state = model.state();
            for (number, node) in (1..).zip(NODES) {
                state.publish_node(number, node);
            }
            state.place(CATALOG_SHARD, CATALOG_VOLUME, Predicate::all());
        }
        model
    }

    pub(super) fn client(&self) -> Client {
        let dice = Arc::new(Dice::new(7));
        Client::new(Arc::new(self.clone()), Arc::new(FixedClock), dice)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn with_volume(name: &str, kind: VolumeKind, shards: u32) -> Self {
        let model = Self::new();
        model.state().create(name, VolumePolicy::new(kind, 3, shards)).unwrap();
        model
    }

    fn answer(
        &self,
        to: Option<NodeId>,
        request: Request,
        timeout: Duration,
    ) -> Result<Answer, Option<DoorError>> {
        let mut state = self.state();
        state.calls.push(to);
        let node = to.or_else(|| NODES.into_iter().find(|node| !state.dead.contains(node)));
        let Some(node) = node.filter(|node| !state.dead.contains(node)) else {
            let node = to.map_or_else(|| "the cluster".into(), |node| node.to_string());
            return Err(Some(DoorError::Unreachable { node, cause: "refused".into() }));
        };
        match request {
            Request::Shard(request) => state.shard(node, to.is_none(), request, timeout),
            Request::CatalogChanges { after, .. } => Ok(state.changes_after(after)),
            Request::NodeStatus => Ok(Answer::NodeStatus(format!("{{\"node\":\"{node}\"}}"))),
            Request::NewToken { .. } => Ok(Answer::Token("token".into())),
            Request::SnapshotPiece(_) | Request::Join(_) => {
                Ok(Answer::Fault(Fault::NotAllowed("nodes only".into())))
            }
        }
    }
}

impl Door for Model {
    fn call(
        &self,
        to: Option<NodeId>,
        _class: RequestClass,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<Result<Answer, DoorError>> {
        let model = self.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            match model.answer(to, request, timeout) {
                Ok(answer) => Ok(answer),
                Err(Some(error)) => Err(error),
                Err(None) => std::future::pending().await,
            }
        })
    }

    fn learn(&self, _nodes: Vec<(NodeId, Vec<String>)>) {}
}

/// What a replica says of itself.
fn status(descriptor: ShardDescriptor, node: NodeId, leader: Option<NodeId>) -> ReplicaStatus {
    let own = descriptor.replicas.iter().find(|replica| replica.node == node);
    ReplicaStatus {
        replica: own.map_or(ReplicaId(0), |own| own.replica),
        descriptor,
        leading: leader == Some(node),
        leader,
        term: 3,
        committed: LogIndex(5),
        applied: LogIndex(5),
        last: LogIndex(5),
        hibernating: false,
        version: Version(4),
        compacted: Version(0),
        tally: Tally::default(),
        restoring: false,
        stopped: None,
    }
}

impl State {
    fn publish_node(&mut self, number: u64, node: NodeId) {
        let record = NodeRecord {
            node,
            number,
            addresses: vec![format!("127.0.0.1:{number}")],
            http_address: String::new(),
            zone: "a".into(),
            capacity_bytes: 1,
            state: NodeState::Active,
            boot: cluster::membership::Boot::default(),
        };
        self.changes.push((node_key(node), Some(encode_record(&record))));
    }

    pub(super) fn publish_shard(&mut self, descriptor: &ShardDescriptor) {
        let record = ShardRecord::new(descriptor.clone());
        let key = shard_key(descriptor.shard);
        self.changes.push((key, Some(encode_record(&record))));
    }

    fn place(&mut self, shard: ShardId, volume: VolumeId, predicate: Predicate) {
        let replica = |(place, node): (u64, NodeId)| ReplicaDescriptor {
            replica: ReplicaId(shard.0 * 10 + place),
            node,
            role: ReplicaRole::Voter,
        };
        let replicas = (1..).zip(NODES).map(replica).collect();
        let descriptor = ShardDescriptor { shard, volume, epoch: Epoch(1), predicate, replicas };
        self.publish_shard(&descriptor);
        self.shards.insert(shard, descriptor);
        let leader = NODES[usize::try_from(shard.0).unwrap() % 3];
        self.leaders.insert(shard, leader);
    }

    pub(super) fn create(
        &mut self,
        name: &str,
        policy: VolumePolicy,
    ) -> Result<VolumeRecord, CatalogRefusal> {
        if self.volumes.contains_key(name) {
            return Err(CatalogRefusal::VolumeExists(name.into()));
        }
        let first = self.shards.len() as u64 + 10;
        let parts = match policy.kind {
            VolumeKind::Hash => Predicate::hash_parts(policy.shards),
            VolumeKind::Ordered | VolumeKind::Single => vec![Predicate::all()],
        };
        let volume = VolumeId(first);
        let ids: Vec<ShardId> = (first..).map(ShardId).take(parts.len()).collect();
        for (shard, part) in ids.iter().zip(parts) {
            self.place(*shard, volume, part);
        }
        let record = VolumeRecord {
            volume,
            tenant: FIRST_TENANT,
            name: name.into(),
            policy,
            shards: ids,
            state: VolumeState::Ready,
        };
        self.changes.push((volume_key(FIRST_TENANT, name), Some(encode_record(&record))));
        self.volumes.insert(name.into(), record.clone());
        Ok(record)
    }

    fn changes_after(&self, after: Version) -> Answer {
        let shown = usize::try_from(self.show_to.0).unwrap_or(usize::MAX).min(self.changes.len());
        let from = usize::try_from(after.0).unwrap().min(shown);
        let version = Version(shown as u64);
        Answer::CatalogChanges { version, changes: self.changes[from..shown].to_vec() }
    }

    fn shard(
        &mut self,
        node: NodeId,
        forward: bool,
        request: ShardRequest,
        _timeout: Duration,
    ) -> Result<Answer, Option<DoorError>> {
        let shard = request.shard;
        let writes = matches!(
            request.body,
            ShardBody::Write { .. } | ShardBody::Transact { .. } | ShardBody::Catalog { .. }
        );
        let leads = forward || self.leaders.get(&shard) == Some(&node);
        let mishap = if writes && leads { self.mishaps.pop_front() } else { None };
        if let Some(Mishap::Before(fault)) = mishap {
            return Ok(self.reply(shard, Err(fault)));
        }
        if let Some(Mishap::Expire) = mishap {
            self.sessions.clear();
        }
        let result = self.serve(node, forward, request);
        if let Some(Mishap::Crowded) = mishap {
            self.drop_reads();
        }
        match mishap {
            None | Some(Mishap::Expire | Mishap::Before(_)) => Ok(self.reply(shard, result)),
            Some(Mishap::After(fault)) => Ok(self.reply(shard, Err(fault))),
            Some(Mishap::Silence) => Err(None),
            Some(Mishap::Lost | Mishap::Crowded) => {
                Err(Some(DoorError::Lost { node: node.to_string(), cause: "reset".into() }))
            }
        }
    }

    fn reply(&self, shard: ShardId, result: Result<ShardResult, Fault>) -> Answer {
        let leader = self.leaders.get(&shard).copied().filter(|_| result.is_ok());
        Answer::Shard(ShardAnswer { clock: Hlc(self.last), leader, result })
    }

    fn serve(
        &mut self,
        node: NodeId,
        forward: bool,
        request: ShardRequest,
    ) -> Result<ShardResult, Fault> {
        let shard = request.shard;
        let descriptor = self.shards.get(&shard).ok_or(Fault::NoReplica(shard))?.clone();
        let anyone = match &request.body {
            ShardBody::Get { level, .. }
            | ShardBody::List { level, .. }
            | ShardBody::Look { level, .. } => *level != cluster::request::ReadLevel::Strong,
            ShardBody::OpenSession
            | ShardBody::CloseSession(_)
            | ShardBody::Write { .. }
            | ShardBody::Transact { .. }
            | ShardBody::Catalog { .. }
            | ShardBody::Compact { .. }
            | ShardBody::Restore { .. }
            | ShardBody::Advance { .. }
            | ShardBody::Lease { .. }
            | ShardBody::ShowLease { .. }
            | ShardBody::ListLeases { .. }
            | ShardBody::Auth { .. }
            | ShardBody::ShowAuth(_)
            | ShardBody::Range { .. }
            | ShardBody::Watch { .. }
            | ShardBody::Inspect => false,
        };
        let leader = self.leaders[&shard];
        if request.body == ShardBody::Inspect {
            let leader = Some(leader).filter(|_| !self.unaware.contains(&node));
            return Ok(ShardResult::Replica(status(descriptor, node, leader)));
        }
        if self.leaderless_until.is_some_and(|until| TokioInstant::now() < until) && !anyone {
            return Err(Fault::NotLeader { leader: None });
        }
        if self.dead.contains(&leader) && !anyone {
            return Err(Fault::NotLeader { leader: Some(leader) });
        }
        if node != leader && !forward && !anyone {
            return Err(Fault::NotLeader { leader: Some(leader) });
        }
        if request.epoch < descriptor.epoch {
            return Err(Fault::StaleEpoch(descriptor));
        }
        self.run(&descriptor, request.body)
    }

    fn run(&mut self, shard: &ShardDescriptor, body: ShardBody) -> Result<ShardResult, Fault> {
        let id = shard.shard;
        Ok(match body {
            ShardBody::OpenSession => {
                self.last += 1;
                self.sessions_opened += 1;
                let session = SessionId(self.last);
                self.sessions.insert((id, session), Session::default());
                ShardResult::Outcome(Outcome::Session(session))
            }
            ShardBody::CloseSession(session) => {
                self.sessions.remove(&(id, session));
                ShardResult::Outcome(Outcome::Session(session))
            }
            ShardBody::Write { request: None, ops, .. } => {
                self.write(shard, &ops);
                ShardResult::Accepted
            }
            ShardBody::Write { request: Some(request), ops, .. } => {
                ShardResult::Outcome(self.once(id, request, |state| state.write(shard, &ops)))
            }
            ShardBody::Transact { request, transaction } => {
                ShardResult::Outcome(
                    self.once(id, request, |state| state.transact(shard, &transaction)),
                )
            }
            ShardBody::Look { transaction, .. } => {
                ShardResult::Outcome(self.transact(shard, &transaction))
            }
            ShardBody::Catalog { request, command } => {
                let request = request.expect("catalog changes go by session");
                ShardResult::Outcome(self.once(id, request, |state| state.change(command)))
            }
            ShardBody::Get { key, at, .. } => {
                ShardResult::Value(self.item(id, &key, at.unwrap_or(Version(u64::MAX))))
            }
            ShardBody::List { prefix, after, limit, at, .. } => {
                let at = at.unwrap_or(Version(self.last));
                // A later write gets a later version: the cut is closed.
                self.last = self.last.max(at.0);
                let keys: Vec<Vec<u8>> =
                    self.data.get(&id).into_iter().flat_map(|data| data.keys().cloned()).collect();
                let mut items = keys
                    .into_iter()
                    .filter(|key| key.starts_with(&prefix))
                    .filter(|key| after.as_ref().is_none_or(|after| key > after))
                    .filter_map(|key| self.item(id, &key, at));
                let limit = usize::try_from(limit).unwrap();
                let page: Vec<Item> = items.by_ref().take(limit).collect();
                let more = items.next().is_some();
                ShardResult::Page { items: page, more, at }
            }
            ShardBody::Range { range, .. } => self.page(id, &range)?,
            ShardBody::Compact { .. }
            | ShardBody::Restore { .. }
            | ShardBody::Advance { .. }
            | ShardBody::Lease { .. }
            | ShardBody::ShowLease { .. }
            | ShardBody::ListLeases { .. }
            | ShardBody::Auth { .. }
            | ShardBody::ShowAuth(_)
            | ShardBody::Watch { .. }
            | ShardBody::Inspect => {
                return Err(Fault::Invalid("not in the model".into()));
            }
        })
    }

    /// The dedupe of a real shard, in short.
    fn once(
        &mut self,
        shard: ShardId,
        request: SessionRequest,
        execute: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let Some(session) = self.sessions.get_mut(&(shard, request.session)) else {
            return Outcome::Refused(Refusal::UnknownOutcome(request.session));
        };
        session.answered = session.answered.max(request.answered);
        if let Some(kept) = session.replies.get(&request.number) {
            return kept.clone();
        }
        assert!(request.number > session.answered, "an answered number is asked again");
        let in_flight_max = SESSION_IN_FLIGHT_MAX as u64;
        if request.number > session.answered + in_flight_max {
            let in_flight_max = u32::try_from(in_flight_max).unwrap();
            return Outcome::Refused(Refusal::TooManyInFlight {
                session: request.session,
                in_flight_max,
            });
        }
        let outcome = execute(self);
        let session = self.sessions.get_mut(&(shard, request.session)).unwrap();
        session.replies.retain(|number, _| *number > session.answered);
        session.replies.insert(request.number, outcome.clone());
        outcome
    }

    fn write(&mut self, shard: &ShardDescriptor, ops: &[Op]) -> Outcome {
        if ops.iter().any(|op| !shard.predicate.owns(op.key())) {
            return Outcome::Refused(Refusal::WrongShard);
        }
        self.last += 1;
        let version = Version(self.last);
        let mut deleted = 0;
        for op in ops {
            *self.executed.entry(op.key().to_vec()).or_default() += 1;
            let data = self.data.entry(shard.shard).or_default();
            let versions = data.entry(op.key().to_vec()).or_default();
            let value = match op {
                Op::Put { value, .. } => Some(value.clone()),
                Op::Delete { .. } => {
                    deleted += u32::from(versions.last().is_some_and(|(_, v)| v.is_some()));
                    None
                }
            };
            versions.push((version, value));
        }
        Outcome::Written { version, deleted }
    }

    /// The few transactions that tests here make: keys that are absent, puts, gets.
    fn transact(&mut self, shard: &ShardDescriptor, transaction: &Transaction) -> Outcome {
        if !transaction.lies_in(&shard.predicate) {
            return Outcome::Refused(Refusal::WrongShard);
        }
        let root = &transaction.blocks[0];
        let succeeded = root.compares.iter().all(|compare| {
            let Keys::One(key) = &compare.keys else { panic!("not in the model") };
            assert_eq!(*compare, Compare::absent(key.clone()), "not in the model");
            self.item(shard.shard, key, Version(u64::MAX)).is_none()
        });
        let (mut results, mut changed) = (Vec::new(), false);
        for step in root.branch(succeeded) {
            results.push(match step {
                Step::Put(Put { key, value: Some(value), .. }) => {
                    self.write(shard, &[Op::Put { key: key.clone(), value: value.clone() }]);
                    changed = true;
                    StepResult::Put { previous: None }
                }
                Step::Read(Range { keys: Keys::One(key), .. }) => {
                    let items =
                        self.item(shard.shard, key, Version(u64::MAX)).into_iter().collect();
                    StepResult::Read(RangeResult { items, ..RangeResult::default() })
                }
                Step::Put(_) | Step::Read(_) | Step::Delete { .. } | Step::Nested(_) => {
                    panic!("not in the model")
                }
            });
        }
        let results = Some(results);
        Outcome::Transacted(Transacted { version: Version(self.last), succeeded, changed, results })
    }

    fn drop_reads(&mut self) {
        for reply in self.sessions.values_mut().flat_map(|session| session.replies.values_mut()) {
            if let Outcome::Transacted(done) = reply {
                done.results = None;
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the model knows two commands")]
    fn change(&mut self, command: CatalogCommand) -> Outcome {
        let outcome = match command {
            CatalogCommand::CreateVolume { name, policy, .. } => match self.create(&name, policy) {
                Ok(record) => CatalogOutcome::Volume(record),
                Err(refusal) => CatalogOutcome::Refused(refusal),
            },
            CatalogCommand::DeleteVolume { name, .. } => match self.volumes.remove(&name) {
                Some(record) => {
                    self.changes.push((volume_key(FIRST_TENANT, &name), None));
                    CatalogOutcome::Volume(record)
                }
                None => CatalogOutcome::Refused(CatalogRefusal::UnknownVolume(name)),
            },
            other => CatalogOutcome::Refused(CatalogRefusal::Invalid(format!("{other:?}"))),
        };
        Outcome::Catalog(outcome)
    }

    /// An answer to a range, with what is scripted for it.
    fn page(&mut self, shard: ShardId, range: &Range) -> Result<ShardResult, Fault> {
        if let Some(fault) = self.sorted.clone().filter(|_| range.is_sorted_and_cut()) {
            return Err(fault);
        }
        if let Some(at) = range.at.filter(|_| self.let_go > 0) {
            self.let_go -= 1;
            return Err(Fault::Compacted { at, compacted: Version(self.last) });
        }
        Ok(self.range(shard, range))
    }

    /// All of it, in its order.
    fn range(&self, shard: ShardId, range: &Range) -> ShardResult {
        let now = Version(self.last);
        let at = range.at.unwrap_or(now);
        let keys = self.data.get(&shard).into_iter().flat_map(BTreeMap::keys);
        let items = keys.filter(|key| range.keys.contain(key));
        let items = items.filter_map(|key| self.item(shard, key, at)).collect();
        let mut result = RangeResult { items, ..RangeResult::default() };
        range.arrange(&mut result);
        if self.page_keys > 0 && result.items.len() > self.page_keys {
            result.items.truncate(self.page_keys);
            result.more = true;
        }
        ShardResult::Range { result, at, now }
    }

    fn item(&self, shard: ShardId, key: &[u8], at: Version) -> Option<Item> {
        let versions = self.data.get(&shard)?.get(key)?;
        let (version, value) = versions.iter().rev().find(|(version, _)| *version <= at)?;
        let value = value.clone()?;
        Some(Item {
            key: key.to_vec(),
            value_bytes: value.len() as u64,
            value,
            created: versions[0].0,
            modified: *version,
            changes: versions.len() as u64,
            modified_ms: 0,
            lease: LeaseId(0),
        })
    }
}
