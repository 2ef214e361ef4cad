//! A few replicas with disks that forget what is not synced, stores that are
//! flushed now and then, and a network of messages in flight. No time passes
//! but by ticks; nothing happens that a test did not ask for.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    ids::{Epoch, LogIndex, NodeId, ReplicaId, ShardId, Term},
    raft::{
        Effect, Effects, Group, GroupConfig, GroupStart, GroupStatus, Input, Ticket,
        types::{
            Configuration, ConfigurationChange, ConfigurationStep, Entry, HardState, Message,
            Payload, SnapshotOffer,
        },
    },
    request::WriteLevel,
    units::Instant,
};

/// The state machine: which entries it applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) applied: LogIndex,
    pub(super) term: Term,
    pub(super) configuration: Configuration,
    pub(super) epoch: Epoch,
    pub(super) entries: BTreeMap<LogIndex, (Term, Payload)>,
}

impl Store {
    fn apply(&mut self, entry: Entry) {
        assert_eq!(entry.index.0, self.applied.0 + 1, "apply jumped");
        if let Payload::Configuration(change) = &entry.payload
            && let Ok(next) = self.configuration.after(change)
        {
            self.configuration = next;
            self.epoch = self.epoch.max(change.epoch);
        }
        self.applied = entry.index;
        self.term = entry.term;
        self.entries.insert(entry.index, (entry.term, entry.payload));
    }
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) base: (LogIndex, Term),
    pub(super) entries: BTreeMap<LogIndex, Entry>,
    pub(super) store: Store,
}

impl Disk {
    /// Whether it durably has this entry, as a record or inside its store.
    pub(super) fn has(&self, index: LogIndex, term: Term) -> bool {
        index <= self.base.0 || self.entries.get(&index).is_some_and(|entry| entry.term == term)
    }

    fn write(&mut self, record: Record) {
        match record {
            Record::Ready(hard_state, entries) => {
                self.hard_state = hard_state.unwrap_or(self.hard_state);
                if let Some(first) = entries.first() {
                    self.entries.split_off(&first.index);
                }
                self.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
            }
            Record::Install(hard_state, base, store) => {
                self.hard_state = hard_state;
                self.base = base;
                self.entries.clear();
                self.store = store;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Record {
    Ready(Option<HardState>, Vec<Entry>),
    Install(HardState, (LogIndex, Term), Store),
}

/// A replica and everything around its core.
pub(super) struct Replica {
    pub(super) config: GroupConfig,
    /// None while down.
    pub(super) group: Option<Group>,
    pub(super) disk: Disk,
    records: VecDeque<(u64, Record)>,
    pub(super) store: Store,
    to_apply: VecDeque<Entry>,
    pins: BTreeMap<u64, Store>,
    fetches: VecDeque<(u64, LogIndex, LogIndex)>,
    pub(super) downloads: VecDeque<(ReplicaId, SnapshotOffer)>,
    downloaded: BTreeMap<(ReplicaId, u64), Store>,
}

/// A message in flight.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) message: Message,
}

/// All replicas and what flies between them.
#[derive(Default)]
pub(super) struct World {
    pub(super) replicas: BTreeMap<ReplicaId, Replica>,
    pub(super) flying: VecDeque<Envelope>,
    /// Every effect since the last look, with its replica.
    pub(super) seen: Vec<(ReplicaId, Effect)>,
    pub(super) tickets: u64,
    pub(super) now: u64,
}

pub(super) fn id(number: u64) -> ReplicaId {
    ReplicaId(number)
}

pub(super) fn config(replica: ReplicaId) -> GroupConfig {
    GroupConfig {
        hibernate_after_ticks: None,
        ..GroupConfig::new(ShardId(7), replica, 100 + replica.0)
    }
}

impl World {
    /// Replicas 1 to `count`, all voters.
    pub(super) fn with(count: u64, tune: impl Fn(&mut GroupConfig)) -> Self {
        let mut world = Self::default();
        let configuration = Configuration::of_voters((1..=count).map(ReplicaId));
        for number in 1..=count {
            let mut config = config(id(number));
            tune(&mut config);
            world.add(config, configuration.clone());
        }
        world
    }

    pub(super) fn add(&mut self, config: GroupConfig, configuration: Configuration) {
        let store = Store { configuration, ..Store::default() };
        let replica = config.replica;
        let disk = Disk { store: store.clone(), ..Disk::default() };
        let made = Replica {
            config,
            group: None,
            disk,
            records: VecDeque::new(),
            store,
            to_apply: VecDeque::new(),
            pins: BTreeMap::new(),
            fetches: VecDeque::new(),
            downloads: VecDeque::new(),
            downloaded: BTreeMap::new(),
        };
        self.replicas.insert(replica, made);
        self.start(replica);
    }

    pub(super) fn at(&mut self, replica: ReplicaId) -> &mut Replica {
        self.replicas.get_mut(&replica).expect("a replica of the world")
    }

    pub(super) fn status(&self, replica: ReplicaId) -> GroupStatus {
        self.replicas[&replica].group.as_ref().expect("a replica that is up").status()
    }

    pub(super) fn ids(&self) -> Vec<ReplicaId> {
        self.replicas.keys().copied().collect()
    }

    pub(super) fn up(&self, replica: ReplicaId) -> bool {
        self.replicas[&replica].group.is_some()
    }

    /// The replica that leads in the highest term, if any does.
    pub(super) fn leader(&self) -> Option<ReplicaId> {
        let up = self.replicas.iter().filter_map(|(id, r)| Some((*id, r.group.as_ref()?.status())));
        up.filter(|(_, status)| status.leading)
            .max_by_key(|(_, status)| status.term)
            .map(|(id, _)| id)
    }

    /// Loses power: only what was durable is left.
    pub(super) fn crash(&mut self, replica: ReplicaId) {
        let replica = self.at(replica);
        replica.group = None;
        replica.records.clear();
        replica.to_apply.clear();
        replica.pins.clear();
        replica.fetches.clear();
        replica.downloads.clear();
        replica.downloaded.clear();
        replica.store = replica.disk.store.clone();
    }

    pub(super) fn start(&mut self, replica: ReplicaId) {
        let replica = self.at(replica);
        let disk = &replica.disk;
        let start = GroupStart {
            hard_state: disk.hard_state,
            base_index: disk.base.0,
            base_term: disk.base.1,
            entries: disk.entries.values().cloned().collect(),
            configuration: disk.store.configuration.clone(),
            epoch: disk.store.epoch,
            applied: disk.store.applied,
        };
        replica.group = Some(Group::new(replica.config.clone(), start).expect("a disk that fits"));
    }

    /// Feeds one input and carries the effects out.
    pub(super) fn step(&mut self, replica: ReplicaId, input: Input) {
        self.now += 1;
        let now = Instant::from_nanos(self.now);
        let Some(group) = self.at(replica).group.as_mut() else { return };
        let mut out = Effects::new();
        group.step(now, input, &mut out);
        for effect in out {
            self.seen.push((replica, effect.clone()));
            self.carry_out(replica, effect);
        }
    }

    pub(super) fn ready(&mut self, replica: ReplicaId) {
        self.step(replica, Input::Ready);
    }

    /// One input and a `Ready`.
    pub(super) fn feed(&mut self, replica: ReplicaId, input: Input) {
        self.step(replica, input);
        self.ready(replica);
    }

    fn carry_out(&mut self, from: ReplicaId, effect: Effect) {
        let replica = self.at(from);
        match effect {
            Effect::Send { to, message } => {
                self.flying.push_back(Envelope { from, to, message });
            }
            Effect::Persist { number, hard_state, entries } => {
                replica.records.push_back((number, Record::Ready(hard_state, entries)));
            }
            Effect::InstallSnapshot { number, from, id, hard_state, index, term, .. } => {
                let store = replica.downloaded.remove(&(from, id)).expect("fetched before");
                let record = Record::Install(hard_state, (index, term), store);
                replica.records.push_back((number, record));
            }
            Effect::Apply { entries } => replica.to_apply.extend(entries),
            Effect::Fetch { id, from, to, .. } => replica.fetches.push_back((id, from, to)),
            Effect::PinSnapshot { id, .. } => {
                let store = replica.store.clone();
                let configuration = store.configuration.clone();
                let (index, term) = (store.applied, store.term);
                replica.pins.insert(id, store);
                self.step(from, Input::SnapshotPinned { id, index, term, configuration });
            }
            Effect::UnpinSnapshot { id } => drop(replica.pins.remove(&id)),
            Effect::FetchSnapshot { from, offer } => replica.downloads.push_back((from, offer)),
            Effect::DiscardSnapshot { from, id } => drop(replica.downloaded.remove(&(from, id))),
            Effect::Broken { what } => panic!("{from} broke: {what}"),
            Effect::Proposed { .. }
            | Effect::Dropped { .. }
            | Effect::Refused { .. }
            | Effect::Held { .. }
            | Effect::ReadReady { .. }
            | Effect::ReadFailed { .. }
            | Effect::RoleChanged { .. }
            | Effect::Configured { .. }
            | Effect::Hibernated
            | Effect::Woke
            | Effect::PeerFault { .. } => {}
        }
    }

    pub(super) fn propose(
        &mut self,
        replica: ReplicaId,
        command: &str,
        level: WriteLevel,
    ) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(replica, Input::Propose { ticket, command: command.into(), level });
        ticket
    }

    pub(super) fn read(&mut self, replica: ReplicaId) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(replica, Input::Read { ticket });
        ticket
    }

    /// Steps like `v4 l5 r1`; nothing leaves a joint configuration.
    pub(super) fn configure(&mut self, replica: ReplicaId, steps: &str) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let step = |word: &str| {
            let who = id(word[1..].parse().expect("a number"));
            match &word[..1] {
                "v" => ConfigurationStep::Voter(who, NodeId(u128::from(who.0))),
                "l" => ConfigurationStep::Learner(who, NodeId(u128::from(who.0))),
                "r" => ConfigurationStep::Remove(who),
                other => panic!("no step {other}"),
            }
        };
        let epoch = Epoch(self.status(replica).epoch.0 + 1);
        let change =
            ConfigurationChange { epoch, steps: steps.split_whitespace().map(step).collect() };
        self.step(replica, Input::Configure { ticket, change });
        ticket
    }

    /// Delivers a message that was taken out of flight.
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        if self.replicas.contains_key(&to) {
            self.step(to, Input::Message { from, message });
        }
    }

    pub(super) fn records_waiting(&self, replica: ReplicaId) -> usize {
        self.replicas[&replica].records.len()
    }

    /// Makes the oldest `count` records durable and reports the last of them.
    pub(super) fn persist(&mut self, replica: ReplicaId, count: usize) {
        let it = self.at(replica);
        let mut last = None;
        for _ in 0..count {
            let Some((number, record)) = it.records.pop_front() else { break };
            if let Record::Install(_, _, store) = &record {
                it.store = store.clone();
                it.to_apply.clear();
            }
            it.disk.write(record);
            last = Some(number);
        }
        if let Some(number) = last {
            self.step(replica, Input::Persisted { number });
        }
    }

    /// Applies up to `count` entries; gives what was applied.
    pub(super) fn apply(&mut self, replica: ReplicaId, count: usize) -> Vec<Entry> {
        let it = self.at(replica);
        let count = count.min(it.to_apply.len());
        let entries: Vec<_> = it.to_apply.drain(..count).collect();
        for entry in &entries {
            it.store.apply(entry.clone());
        }
        let index = it.store.applied;
        if count > 0 {
            self.step(replica, Input::Applied { index });
        }
        entries
    }

    /// Writes the store out; what it holds survives a crash from now on.
    pub(super) fn flush(&mut self, replica: ReplicaId) {
        let it = self.at(replica);
        it.disk.store = it.store.clone();
    }

    /// Trims the log up to a flushed position.
    pub(super) fn trim(&mut self, replica: ReplicaId, index: LogIndex) {
        let it = self.at(replica);
        assert!(index <= it.disk.store.applied, "trims what is not flushed");
        let Some(entry) = it.disk.entries.get(&index) else { return };
        it.disk.base = (index, entry.term);
        it.disk.entries = it.disk.entries.split_off(&LogIndex(index.0 + 1));
        self.step(replica, Input::Trimmed { index });
    }

    /// Answers what the core wants read back.
    pub(super) fn read_back(&mut self, replica: ReplicaId) -> bool {
        let it = self.at(replica);
        let Some((fetch, from, to)) = it.fetches.pop_front() else { return false };
        let entries: Vec<_> = it.disk.entries.range(from..to).map(|(_, e)| e.clone()).collect();
        let whole = entries.first().is_some_and(|entry| entry.index == from);
        let input = if whole {
            Input::Fetched { id: fetch, entries }
        } else {
            Input::FetchFailed { id: fetch }
        };
        self.step(replica, input);
        true
    }

    /// Ends a download: well if its source still has the pin.
    pub(super) fn download(&mut self, replica: ReplicaId) -> bool {
        let Some((from, offer)) = self.at(replica).downloads.pop_front() else { return false };
        let source = self.replicas.get(&from).filter(|source| source.group.is_some());
        let Some(pin) = source.and_then(|source| source.pins.get(&offer.id)).cloned() else {
            self.step(replica, Input::SnapshotFailed { from, id: offer.id });
            return true;
        };
        let epoch = pin.epoch;
        self.at(replica).downloaded.insert((from, offer.id), pin);
        self.step(replica, Input::SnapshotFetched { from, id: offer.id, epoch });
        true
    }

    /// Everything that can happen without time passing, until nothing can.
    pub(super) fn settle(&mut self) {
        loop {
            let mut busy = false;
            while let Some(envelope) = self.flying.pop_front() {
                self.deliver(envelope);
                busy = true;
            }
            for replica in self.ids() {
                if !self.up(replica) {
                    continue;
                }
                self.ready(replica);
                busy |= self.records_waiting(replica) > 0;
                self.persist(replica, usize::MAX);
                self.ready(replica);
                busy |= !self.apply(replica, usize::MAX).is_empty();
                busy |= self.read_back(replica) | self.download(replica);
                self.ready(replica);
            }
            if !busy && self.flying.is_empty() {
                break;
            }
        }
    }

    /// Ticks everybody once and settles.
    pub(super) fn tick(&mut self, times: u32) {
        for _ in 0..times {
            for replica in self.ids() {
                self.feed(replica, Input::Tick);
            }
            self.settle();
        }
    }

    /// Runs until somebody leads and everybody settled.
    pub(super) fn elect(&mut self) -> ReplicaId {
        for _ in 0..60 {
            self.tick(1);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("nobody was elected in 60 ticks");
    }

    /// Lets `replica` win: it alone hears its clock.
    pub(super) fn make_leader(&mut self, replica: ReplicaId) {
        self.make_leader_within(replica, 40);
    }

    /// The same, for long election timeouts.
    pub(super) fn make_leader_within(&mut self, replica: ReplicaId, ticks: u32) {
        for _ in 0..ticks {
            if self.leader() == Some(replica) {
                return;
            }
            self.feed(replica, Input::Tick);
            self.settle();
        }
        panic!("{replica} was not elected in {ticks} ticks");
    }

    /// Effects since the last look.
    pub(super) fn look(&mut self) -> Vec<(ReplicaId, Effect)> {
        std::mem::take(&mut self.seen)
    }

    /// Whether an effect since the last look satisfies `is`.
    pub(super) fn saw(&self, is: impl Fn(&Effect) -> bool) -> bool {
        self.seen.iter().any(|(_, effect)| is(effect))
    }
}
