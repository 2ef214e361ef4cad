//! A replica and a plain model of it, driven by one seed over any engine.
//!
//! The model is a map from key to all versions the key ever had. Everything a
//! reader can be asked is asked of both: now, at old versions, through readers
//! that were kept while writes and flushes went on, after crashes and replays.
#![allow(clippy::unwrap_used, reason = "a model in tests fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{collections::BTreeMap, sync::Arc};

use cluster::{
    auth::Principal,
    ids::{Epoch, LogIndex, NodeId, ReplicaId, SessionId, ShardId, StoreId, Term, VolumeId},
    mvcc::{
        compaction::BatchLimits,
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{Engine, Store},
    raft::types::{Entry, Payload},
    shard::{
        command::{Action, Command, Op, Outcome, SessionRequest},
        descriptor::{Predicate, ReplicaDescriptor, ReplicaRole, ShardDescriptor},
        machine::{Applied, ShardMachine},
        reader::{ReadError, Reader},
        root::ShardRole,
    },
};

/// `SplitMix64`: small, and the same on every machine.
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

pub const REPLICA: ReplicaId = ReplicaId(7);
pub const STORE: StoreId = StoreId(3);

pub fn descriptor(predicate: Predicate) -> ShardDescriptor {
    ShardDescriptor {
        shard: ShardId(5),
        volume: VolumeId(4),
        epoch: Epoch(1),
        predicate,
        replicas: [7, 8, 9]
            .map(|id| ReplicaDescriptor {
                replica: ReplicaId(id),
                node: NodeId(u128::from(id)),
                role: ReplicaRole::Voter,
            })
            .to_vec(),
    }
}

pub fn entry(index: u64, command: &Command) -> Entry {
    Entry { index: LogIndex(index), term: Term(1), payload: Payload::Command(command.encode()) }
}

pub fn put(key: &[u8], value: &[u8]) -> Op {
    Op::Put { key: key.to_vec(), value: value.to_vec() }
}

pub fn delete(key: &[u8]) -> Op {
    Op::Delete { key: key.to_vec() }
}

/// A replica with its store and log.
pub struct Replica {
    pub store: Arc<dyn Store>,
    pub machine: ShardMachine,
    pub log: Vec<Entry>,
    pub wall_ms: u64,
}

impl Replica {
    pub fn born(engine: &dyn Engine, kind: VersionKind) -> Self {
        Self::born_as(engine, kind, ShardRole::Data, &Predicate::all())
    }

    pub fn born_as(
        engine: &dyn Engine,
        kind: VersionKind,
        role: ShardRole,
        predicate: &Predicate,
    ) -> Self {
        let store = engine.create(STORE).unwrap();
        let descriptor = descriptor(predicate.clone());
        store.commit(&ShardMachine::birth(REPLICA, &descriptor, kind, role)).unwrap();
        let machine = ShardMachine::open(REPLICA, &*store.view().unwrap()).unwrap();
        Self { store, machine, log: Vec::new(), wall_ms: 1_000_000 }
    }

    pub fn apply(&mut self, payload: Payload) -> Applied {
        let index = LogIndex(self.log.len() as u64 + 1);
        let entry = Entry { index, term: Term(1), payload };
        let view = self.store.view().unwrap();
        let applied = self.machine.apply(&*view, &entry).unwrap();
        drop(view);
        self.log.push(entry);
        applied
    }

    pub fn command(&mut self, shard_time_step_ms: u32, action: Action) -> Outcome {
        self.wall_ms += 1;
        let time = Hlc(self.wall_ms << 16);
        let command = Command { time, shard_time_step_ms, principal: Principal::Trusted, action };
        self.apply(Payload::Command(command.encode())).outcome.unwrap()
    }

    pub fn write(&mut self, ops: Vec<Op>) -> Outcome {
        self.command(0, Action::Write { request: None, ops })
    }

    pub fn ask(&mut self, session: SessionId, number: u64, answered: u64, op: Op) -> Outcome {
        let request = Some(SessionRequest { session, number, answered });
        self.command(0, Action::Write { request, ops: vec![op] })
    }

    pub fn flush(&mut self) {
        let flush = self.machine.flush();
        self.store.commit(&flush.writes()).unwrap();
        self.machine.flushed(&flush);
    }

    /// Forgets what was not flushed and applies the log again.
    pub fn reopen(&mut self, engine: &dyn Engine) {
        self.store = engine.open(STORE).unwrap();
        self.machine = ShardMachine::open(REPLICA, &*self.store.view().unwrap()).unwrap();
        let applied = usize::try_from(self.machine.applied().0.0).unwrap();
        for entry in &self.log[applied..] {
            self.machine.apply(&*self.store.view().unwrap(), entry).unwrap();
        }
    }

    /// Lets go of the history below `version`.
    pub fn compact(&mut self, version: Version) -> Version {
        let outcome = self.command(0, Action::Compact { version });
        let Outcome::Compacted { compacted, .. } = outcome else { panic!("{outcome:?}") };
        compacted
    }

    /// Writes once more, and lets go of all before that.
    pub fn compact_all(&mut self) -> Version {
        self.write(vec![put(b"~", b"the end")]);
        self.compact(self.machine.reader().now())
    }

    /// Sweeps one batch; whether there is more.
    pub fn sweep(&self, upto: Version, limits: BatchLimits) -> bool {
        let reader = self.machine.reader();
        let view = self.store.view().unwrap();
        let sweep = reader.sweep(&*view, upto, limits).unwrap();
        drop(view);
        assert_eq!(sweep.writes.is_empty(), sweep.entries == 0);
        if sweep.entries > 0 {
            self.store.commit(&sweep.writes).unwrap();
        }
        sweep.more
    }

    pub fn hash(&self) -> u128 {
        let reader = self.machine.reader();
        reader.state_hash(&*self.store.view().unwrap()).unwrap()
    }
}

/// One version of one key in the model.
#[derive(Clone, Debug)]
pub struct Past {
    pub version: Version,
    pub value: Option<Vec<u8>>,
    pub created: Version,
    pub changes: u64,
}

/// All versions of all keys.
#[derive(Clone, Default)]
pub struct Model {
    pub keys: BTreeMap<Vec<u8>, Vec<Past>>,
    pub changes: Vec<(Version, u32, Vec<u8>, bool)>,
    pub last: Version,
}

impl Model {
    pub fn at(&self, key: &[u8], version: Version) -> Option<&Past> {
        let past = self.keys.get(key)?;
        past.iter().rev().find(|p| p.version <= version).filter(|p| p.value.is_some())
    }

    /// Takes in what was applied, at the version the replica gave it.
    pub fn write(&mut self, ops: &[Op], version: Version) -> u32 {
        let (mut sub, mut deleted) = (0, 0);
        for op in ops {
            let old = self.at(op.key(), Version(u64::MAX)).cloned();
            let (value, created, changes) = match op {
                Op::Put { value, .. } => (
                    Some(value.clone()),
                    old.as_ref().map_or(version, |old| old.created),
                    old.as_ref().map_or(1, |old| old.changes + 1),
                ),
                Op::Delete { .. } if old.is_none() => continue,
                Op::Delete { .. } => {
                    deleted += 1;
                    (None, Version(0), 0)
                }
            };
            self.changes.push((version, sub, op.key().to_vec(), value.is_some()));
            let past = Past { version, value, created, changes };
            self.keys.entry(op.key().to_vec()).or_default().push(past);
            self.last = version;
            sub += 1;
        }
        deleted
    }
}

/// Keys that meet at awkward places: group borders, prefixes of each other,
/// bytes that sort last.
pub fn key(chance: &mut Chance) -> Vec<u8> {
    const STEMS: [&str; 9] =
        ["a", "a/b", "a/bc", "12345678", "123456789", "1234567", "z\u{10ffff}", "\u{0}", "a\u{0}"];
    let stem = STEMS[chance.index(STEMS.len())];
    let mut key = stem.as_bytes().to_vec();
    match chance.below(4) {
        0 => {}
        1 => key.push(u8::try_from(chance.below(4)).unwrap() * 85),
        2 => key.extend(chance.below(6).to_string().bytes()),
        _ => key.extend(std::iter::repeat_n(b'x', 3 + chance.index(12))),
    }
    key
}

fn value(chance: &mut Chance) -> Vec<u8> {
    let bytes = if chance.below(50) == 0 { 9_000 } else { chance.index(60) };
    vec![u8::try_from(chance.below(256)).unwrap(); bytes]
}

pub fn ops(chance: &mut Chance) -> Vec<Op> {
    (0..chance.below(4))
        .map(|_| {
            if chance.below(3) == 0 {
                Op::Delete { key: key(chance) }
            } else {
                Op::Put { key: key(chance), value: value(chance) }
            }
        })
        .collect()
}

/// Asks a reader and the model the same questions at version `at`.
pub fn compare(
    reader: &Reader,
    store: &dyn Store,
    model: &Model,
    at: Version,
    chance: &mut Chance,
) {
    let view = reader.view(store).unwrap();
    for _ in 0..3 {
        let key = key(chance);
        let found = reader.get(&*view, &key, Some(at), false).unwrap();
        let wanted = model.at(&key, at);
        assert_eq!(
            found.map(|item| (item.value, item.created, item.modified, item.changes)),
            wanted.map(|p| (p.value.clone().unwrap(), p.created, p.version, p.changes)),
            "key {key:?} at {at}"
        );
    }
    let prefix = if chance.below(2) == 0 {
        Vec::new()
    } else {
        let key = key(chance);
        key[..chance.index(key.len() + 1)].to_vec()
    };
    let limit = 1 + chance.index(12);
    let mut after: Option<Vec<u8>> = (chance.below(3) == 0).then(|| key(chance));
    let start = after.clone();
    let mut listed = Vec::new();
    loop {
        let page = reader.list(&*view, &prefix, after.as_deref(), limit, Some(at), true).unwrap();
        assert!(page.items.len() <= limit);
        assert!(!page.items.is_empty() || !page.more, "an empty page cannot be resumed");
        after = page.items.last().map(|item| item.key.clone());
        listed.extend(page.items.into_iter().map(|item| (item.key, item.value)));
        if !page.more {
            break;
        }
    }
    let wanted: Vec<_> = model
        .keys
        .keys()
        .filter(|key| key.starts_with(&prefix))
        .filter(|key| start.as_ref().is_none_or(|after| *key > after))
        .filter_map(|key| Some((key.clone(), model.at(key, at)?.value.clone()?)))
        .collect();
    assert_eq!(listed, wanted, "prefix {prefix:?} after {start:?} at {at} limit {limit}");
}

/// A sweep of a few entries: most end in the middle of what there is.
fn sweep_some(replica: &Replica, chance: &mut Chance) {
    let changes_max = 1 + chance.index(12);
    let limits = BatchLimits { changes_max, key_bytes_max: 100, entries_max: changes_max };
    // Hashing all of it is slow: the readers beside this notice most.
    let before = (chance.below(8) == 0).then(|| replica.hash());
    replica.sweep(Version(u64::MAX), limits);
    if let Some(before) = before {
        assert_eq!(replica.hash(), before, "a sweep changed the state");
    }
}

/// Asks a reader that was kept while its present was compacted away: it says
/// what was there, or that it cannot.
fn compare_overtaken(reader: &Reader, store: &dyn Store, model: &Model, chance: &mut Chance) {
    let view = reader.view(store).unwrap();
    let key = key(chance);
    match reader.get(&*view, &key, None, false) {
        Ok(found) => {
            let wanted = model.at(&key, reader.now()).and_then(|past| past.value.clone());
            assert_eq!(found.map(|item| item.value), wanted);
        }
        Err(ReadError::Overtaken { now, compacted }) => {
            assert!(now == reader.now() && now < compacted);
        }
        Err(other) => panic!("{other}"),
    }
}

/// `compacted` is what the replica has let go of by now.
fn compare_changes(
    reader: &Reader,
    store: &dyn Store,
    model: &Model,
    compacted: Version,
    chance: &mut Chance,
) {
    let view = reader.view(store).unwrap();
    let after = model
        .changes
        .get(chance.index(model.changes.len() + 1))
        .map_or(Version(0), |change| change.0);
    let mut found = Vec::new();
    let mut upto = after;
    loop {
        let changes = match reader.changes(&*view, upto, 1 + chance.index(20)) {
            Ok(changes) => changes,
            Err(ReadError::Compacted { at, .. }) => {
                assert!(at.0 == after.0 + 1 && at < compacted, "{after} {compacted}");
                return;
            }
            Err(ReadError::Overtaken { now, .. }) => {
                assert!(now == reader.now() && now < compacted);
                return;
            }
            Err(other) => panic!("{other}"),
        };
        assert!(after >= reader.floor(), "changes that may be gone were shown");
        upto = changes.upto;
        found.extend(changes.changes);
        if !changes.more {
            break;
        }
    }
    assert_eq!(upto, reader.now());
    let found: Vec<_> =
        found.into_iter().map(|c| (c.version, c.sub, c.key, c.kind.exists())).collect();
    let wanted: Vec<_> = model.changes.iter().filter(|change| change.0 > after).cloned().collect();
    assert_eq!(found, wanted);
}

/// Apply goes on while a batch is on its way.
fn flush_slowly(replica: &mut Replica, model: &mut Model, chance: &mut Chance) {
    let flush = replica.machine.flush();
    step_write(replica, model, chance);
    sweep_some(replica, chance);
    replica.store.commit(&flush.writes()).unwrap();
    sweep_some(replica, chance);
    step_write(replica, model, chance);
    if chance.below(2) == 0 {
        // Another begins before the first is known to have ended.
        let second = replica.machine.flush();
        replica.machine.flushed(&flush);
        let reader = replica.machine.reader();
        compare(&reader, &*replica.store, model, reader.now(), chance);
        replica.store.commit(&second.writes()).unwrap();
        replica.machine.flushed(&second);
    } else {
        replica.machine.flushed(&flush);
    }
}

/// Asks a reader that was kept while writes, flushes and sweeps went on.
fn ask_kept(reader: &Reader, replica: &Replica, model: &Model, chance: &mut Chance) {
    let compacted = replica.machine.compacted();
    if reader.now() < compacted {
        compare_overtaken(reader, &*replica.store, model, chance);
    } else {
        compare(reader, &*replica.store, model, reader.now(), chance);
    }
    compare_changes(reader, &*replica.store, model, compacted, chance);
}

/// Asks for an old version, and for the present.
fn ask_past(replica: &Replica, model: &Model, chance: &mut Chance) {
    let (reader, compacted) = (replica.machine.reader(), replica.machine.compacted());
    let at = model
        .changes
        .get(chance.index(model.changes.len() + 1))
        .map_or_else(|| reader.now(), |change| change.0);
    if at < compacted {
        let view = reader.view(&*replica.store).unwrap();
        let refused = reader.list(&*view, b"", None, 9, Some(at), true);
        assert_eq!(refused, Err(ReadError::Compacted { at, compacted }));
    } else {
        compare(&reader, &*replica.store, model, at, chance);
    }
    compare(&reader, &*replica.store, model, reader.now(), chance);
    compare_changes(&reader, &*replica.store, model, compacted, chance);
}

fn compact_some(replica: &mut Replica, model: &Model, chance: &mut Chance) {
    let before = replica.machine.compacted();
    let index = chance.index(model.changes.len() + 1);
    let now = replica.machine.reader().now();
    let version = model.changes.get(index).map_or(now, |change| change.0);
    assert_eq!(replica.compact(version), before.max(version));
    assert_eq!(replica.compact(Version(u64::MAX)), before.max(version), "the future is no version");
}

/// Runs `steps` random steps; returns how many entries were applied.
pub fn run(engine: &dyn Engine, kind: VersionKind, seed: u64, steps: usize) -> usize {
    let mut chance = Chance(seed);
    let mut replica = Replica::born(engine, kind);
    let mut model = Model { last: replica.machine.version(), ..Model::default() };
    let mut kept: Vec<(Reader, Model)> = Vec::new();
    for _ in 0..steps {
        match chance.below(24) {
            0 => replica.flush(),
            1 => {
                flush_slowly(&mut replica, &mut model, &mut chance);
            }
            2 => {
                // A batch that never arrived: the next carries it too.
                drop(replica.machine.flush());
                step_write(&mut replica, &mut model, &mut chance);
            }
            3 if chance.below(4) == 0 => {
                let before = replica.hash();
                kept.clear();
                replica.reopen(engine);
                assert_eq!(replica.hash(), before, "replay gave another state");
            }
            4 => {
                kept.push((replica.machine.reader(), model.clone()));
                if kept.len() > 3 {
                    kept.remove(0);
                }
            }
            5 | 6 => {
                for (reader, model) in &kept {
                    ask_kept(reader, &replica, model, &mut chance);
                }
            }
            7 | 8 => {
                ask_past(&replica, &model, &mut chance);
            }
            9 => {
                replica.command(10, Action::Close);
            }
            10 => {
                compact_some(&mut replica, &model, &mut chance);
            }
            11..=13 => sweep_some(&replica, &mut chance),
            _ => step_write(&mut replica, &mut model, &mut chance),
        }
    }
    replica.log.len()
}

fn step_write(replica: &mut Replica, model: &mut Model, chance: &mut Chance) {
    let ops = ops(chance);
    let before = model.last;
    let Outcome::Written { version, deleted } = replica.write(ops.clone()) else {
        panic!("a write was refused")
    };
    assert_eq!(model.write(&ops, version), deleted);
    assert_eq!(replica.machine.version(), model.last);
    assert!(model.last == before || model.last == version && version > before);
}
