//! What one entry does to a replica.

mod model;

use cluster::{
    auth::Principal,
    catalog::command::CatalogCommand,
    ids::{Epoch, LogIndex, NodeId, ReplicaId, Term, VolumeId},
    memory::MemoryEngine,
    mvcc::{
        tally::Tally,
        version::{Hlc, Version, VersionKind},
    },
    ports::engine::{EngineError, Tree},
    raft::types::{ConfigurationChange, ConfigurationStep, Entry, Payload},
    shard::{
        command::{Action, Command, CommandError, Outcome, Refusal},
        descriptor::{Predicate, ReplicaRole},
        machine::{ApplyError, ShardMachine},
        range::Range,
        reader::ReadError,
        root::ShardRole,
        transaction::Keys,
    },
};
use model::{Chance, REPLICA, Replica, STORE, delete, entry, ops, put};

fn dense() -> Replica {
    Replica::born(&MemoryEngine::default(), VersionKind::Dense)
}

fn written(version: u64, deleted: u32) -> Outcome {
    Outcome::Written { version: Version(version), deleted }
}

#[test]
fn the_dense_counter_moves_only_with_changes_of_keys() {
    let mut replica = dense();
    replica.command(0, Action::Close);
    assert_eq!(replica.write(vec![put(b"a", b"1")]), written(2, 0));
    assert_eq!(replica.write(vec![delete(b"nothing")]), written(2, 0));
    assert_eq!(replica.write(vec![]), written(2, 0));
    assert_eq!(replica.write(vec![put(b"a", b"1"), delete(b"a"), delete(b"a")]), written(3, 1));
    assert_eq!(replica.machine.closed(), Hlc(replica.wall_ms << 16));
}

#[test]
fn the_hybrid_clock_rises_even_when_the_leader_proposes_an_old_time() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Hybrid);
    let first = replica.wall_ms + 1;
    assert_eq!(replica.write(vec![put(b"a", b"1")]), written(first << 16, 0));
    replica.wall_ms -= 500;
    assert_eq!(replica.write(vec![put(b"a", b"2")]), written((first << 16) + 1, 0));
    assert_eq!(replica.machine.closed(), Hlc((first << 16) + 1));
    // Closing time lets later reads see that nothing happened until then.
    replica.wall_ms = first + 10;
    replica.command(0, Action::Close);
    let reader = replica.machine.reader();
    assert_eq!(reader.now(), Version((first + 11) << 16));
    assert_eq!(reader.version(), Version((first << 16) + 1));
}

#[test]
fn a_record_carries_what_etcd_asks_of_a_key() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    replica.write(vec![put(b"b", b"1"), put(b"a", b"2")]);
    let reader = replica.machine.reader();
    let view = replica.store.view().unwrap();
    let item = reader.get(&*view, b"a", None, true).unwrap().unwrap();
    assert_eq!((item.created, item.modified, item.changes), (Version(2), Version(3), 2));
    assert_eq!((item.value, item.value_bytes), (Vec::new(), 1));
    assert_eq!(item.modified_ms, replica.wall_ms);
    let changes = reader.changes(&*view, Version(2), 10).unwrap().changes;
    let subs: Vec<_> = changes.iter().map(|c| (c.key.as_slice(), c.version, c.sub)).collect();
    assert_eq!(subs, [(&b"b"[..], Version(3), 0), (&b"a"[..], Version(3), 1)]);
    assert!(changes.iter().all(|c| c.other == replica.wall_ms << 16), "the other clock");
}

#[test]
fn a_deleted_and_recreated_key_begins_anew_and_its_past_stays_readable() {
    let mut replica = dense();
    for ops in [put(b"a", b"1"), delete(b"a"), put(b"a", b"3")] {
        replica.write(vec![ops]);
        replica.flush();
    }
    let reader = replica.machine.reader();
    let view = replica.store.view().unwrap();
    let at = |version| reader.get(&*view, b"a", Some(Version(version)), false).unwrap();
    assert_eq!(at(2).map(|item| item.value), Some(b"1".to_vec()));
    assert_eq!(at(3), None);
    assert_eq!(at(4).map(|item| (item.created, item.changes)), Some((Version(4), 1)));
    assert_eq!(
        reader.get(&*view, b"a", Some(Version(5)), false),
        Err(ReadError::Future { at: Version(5), now: Version(4) })
    );
}

#[test]
fn one_foreign_key_refuses_the_whole_command_and_reads_of_it() {
    let upto_m = Predicate::Range { from: Vec::new(), to: b"m".to_vec() };
    let engine = MemoryEngine::default();
    let mut replica = Replica::born_as(&engine, VersionKind::Dense, ShardRole::Data, &upto_m);
    let refused = replica.write(vec![put(b"a", b"1"), put(b"z", b"1")]);
    assert_eq!(refused, Outcome::Refused(Refusal::WrongShard));
    assert_eq!(replica.machine.version(), Version(1));
    let view = replica.store.view().unwrap();
    let read = replica.machine.reader().get(&*view, b"z", None, false);
    assert_eq!(read, Err(ReadError::WrongShard(Epoch(1))));
}

#[test]
fn keys_the_engine_could_not_hold_are_refused_the_same_everywhere() {
    let mut replica = dense();
    for key in [vec![], vec![b'k'; 1_025]] {
        let refused = replica.write(vec![put(&key, b"1")]);
        assert!(matches!(refused, Outcome::Refused(Refusal::InvalidKey { .. })), "{refused:?}");
    }
    assert_eq!(replica.write(vec![put(&[b'k'; 1_024], b"1")]), written(2, 0));
}

#[test]
fn each_kind_of_shard_takes_its_own_commands() {
    let mut data = dense();
    let command = CatalogCommand::ForgetVolume(VolumeId(9));
    let refused = data.command(0, Action::Catalog { request: None, command: command.clone() });
    assert_eq!(refused, Outcome::Refused(Refusal::WrongKind));
    let mut catalog = Replica::born_as(
        &MemoryEngine::default(),
        VersionKind::Dense,
        ShardRole::Catalog,
        &Predicate::all(),
    );
    assert_eq!(catalog.write(vec![put(b"a", b"1")]), Outcome::Refused(Refusal::WrongKind));
    let outcome = catalog.command(0, Action::Catalog { request: None, command });
    assert!(matches!(outcome, Outcome::Catalog(_)), "{outcome:?}");
    assert_eq!(catalog.machine.version(), Version(0), "nothing was there to forget");
}

#[test]
fn an_entry_that_is_not_understood_stops_and_changes_nothing() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    let before = replica.hash();
    let view = replica.store.view().unwrap();
    let at = |payload| Entry { index: LogIndex(2), term: Term(1), payload };
    let newer = replica.machine.apply(&*view, &at(Payload::Command(vec![9, 0, 1])));
    let cause = CommandError::Version(9);
    assert_eq!(newer, Err(ApplyError::Unknown { index: LogIndex(2), cause }));
    for garbage in [vec![], vec![1], vec![1, 0], vec![1, 0, 255, 255, 255]] {
        let refused = replica.machine.apply(&*view, &at(Payload::Command(garbage)));
        assert!(matches!(refused, Err(ApplyError::Unknown { .. })), "{refused:?}");
    }
    drop(view);
    assert_eq!(replica.hash(), before);
}

#[test]
fn entries_are_applied_once_and_without_gaps() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    let view = replica.store.view().unwrap();
    let command = Command {
        time: Hlc(0),
        shard_time_step_ms: 0,
        principal: Principal::Trusted,
        action: Action::Close,
    };
    for index in [0, 1, 3] {
        let refused = replica.machine.apply(&*view, &entry(index, &command)).unwrap_err();
        let wanted = ApplyError::OutOfOrder { applied: LogIndex(1), found: LogIndex(index) };
        assert_eq!(refused, wanted);
    }
}

#[test]
fn a_view_older_than_the_last_flush_is_refused() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    let store = std::sync::Arc::clone(&replica.store);
    let early = store.view().unwrap();
    let kept = replica.machine.reader();
    replica.flush();
    let read = replica.machine.reader().get(&*early, b"a", None, false);
    let flushed = LogIndex(1);
    assert_eq!(read, Err(ReadError::ViewTooOld { view: LogIndex(0), flushed }));
    let command = Command {
        time: Hlc(0),
        shard_time_step_ms: 0,
        principal: Principal::Trusted,
        action: Action::Close,
    };
    let applied = replica.machine.apply(&*early, &entry(2, &command));
    assert_eq!(applied, Err(ApplyError::ViewTooOld { view: LogIndex(0), flushed }));
    assert!(kept.get(&*early, b"a", None, false).unwrap().is_some(), "an older reader may");
}

#[test]
fn a_failed_or_refused_commit_loses_nothing_that_was_applied() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    replica.write(vec![put(b"a", b"1")]);
    engine.set_bytes_max(Some(10));
    let flush = replica.machine.flush();
    let refused = replica.store.commit(&flush.writes()).unwrap_err();
    assert!(matches!(refused, EngineError::Full { .. }), "{refused}");
    replica.write(vec![put(b"b", b"1")]);
    engine.set_bytes_max(None);
    engine.fail_commit(1);
    assert!(replica.store.commit(&replica.machine.flush().writes()).is_err());
    replica.flush();
    assert_eq!(replica.machine.overlay_bytes(), 0);
    let before = replica.hash();
    engine.crash();
    replica.reopen(&engine);
    assert_eq!(replica.hash(), before);
    assert_eq!(replica.machine.flushed_index(), LogIndex(2), "nothing had to be replayed");
}

#[test]
fn the_same_log_gives_the_same_state_wherever_the_bytes_lie() {
    let mut replicas = [dense(), dense()];
    for n in 0..40_u8 {
        for replica in &mut replicas {
            replica.write(vec![put(&[n % 7 + 1], &[n]), delete(&[n % 5 + 1])]);
        }
        replicas[0].flush();
    }
    assert_eq!(replicas[0].hash(), replicas[1].hash());
    replicas[1].write(vec![put(b"more", b"")]);
    assert_ne!(replicas[0].hash(), replicas[1].hash());
}

fn change(epoch: u64, steps: Vec<ConfigurationStep>) -> Payload {
    Payload::Configuration(ConfigurationChange { epoch: Epoch(epoch), steps })
}

#[test]
fn a_configuration_change_goes_through_a_joint_one_and_survives_a_restart() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let node = NodeId(10);
    replica.apply(change(2, vec![ConfigurationStep::Learner(ReplicaId(10), node)]));
    let applied = replica.apply(change(3, vec![]));
    assert_eq!(applied.configuration.unwrap().learners, [ReplicaId(10)]);
    let swap = vec![
        ConfigurationStep::Voter(ReplicaId(10), node),
        ConfigurationStep::Learner(ReplicaId(8), NodeId(8)),
        ConfigurationStep::Remove(ReplicaId(9)),
    ];
    let joint = replica.apply(change(4, swap));
    let configuration = joint.configuration.unwrap();
    assert_eq!(configuration.voters, [7, 10].map(ReplicaId));
    assert_eq!(configuration.outgoing, [7, 8, 9].map(ReplicaId));
    assert_eq!(configuration.learners_next, [ReplicaId(8)]);
    assert_eq!(joint.descriptor.unwrap().replicas.len(), 4, "who still votes is still there");
    replica.flush();
    replica.reopen(&engine);
    assert_eq!(replica.machine.configuration(), &configuration);
    let left = replica.apply(change(5, vec![])).descriptor.unwrap();
    assert_eq!(left.epoch, Epoch(5));
    let roles: Vec<_> = left.replicas.iter().map(|r| (r.replica.0, r.node.0, r.role)).collect();
    let (voter, learner) = (ReplicaRole::Voter, ReplicaRole::Learner);
    assert_eq!(roles, [(7, 7, voter), (8, 8, learner), (10, 10, voter)]);
    assert_eq!(replica.machine.configuration().outgoing, []);
}

/// If this fails the format has changed: raise `ROOT_VERSION`, and the format of data
/// directories too (`node/src/data_dir.rs`), or older ones are taken for damaged.
#[test]
fn the_bytes_of_a_root_record_are_pinned() {
    let descriptor = model::descriptor(Predicate::all());
    let birth = ShardMachine::birth(REPLICA, &descriptor, VersionKind::Dense, ShardRole::Data);
    let root = birth[0].value.as_ref().unwrap();
    assert_eq!((root.len(), crc32c::crc32c(root)), (409, 1_425_255_109));
}

#[test]
fn a_bent_root_record_is_refused_at_open() {
    let mut replica = dense();
    replica.write(vec![put(b"a", b"1")]);
    let root = replica.machine.flush().writes().pop().unwrap();
    assert_eq!(root.tree, Tree::Root);
    let bytes = root.value.clone().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        if bent[2..4] != [0, 0] || bent[72..76] != bytes[72..76] {
            continue; // reserved bytes mean nothing yet
        }
        let mut write = root.clone();
        write.value = Some(bent);
        replica.store.commit(&[write]).unwrap();
        let opened = ShardMachine::open(REPLICA, &*replica.store.view().unwrap());
        assert!(opened.is_err(), "bit {bit} went unnoticed");
    }
    assert_eq!(STORE.to_string(), "store-3");
}

#[test]
fn versions_begin_above_what_was_seen_elsewhere_and_never_fall() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    replica.write(vec![put(b"a", b"1")]);
    let advance = |replica: &mut Replica, version: u64| {
        replica.command(0, Action::Advance { version: Version(version) })
    };
    let now = |version| Outcome::Written { version: Version(version), deleted: 0 };
    assert_eq!(advance(&mut replica, 1_000), now(1_000));
    assert_eq!(advance(&mut replica, 5), now(1_000));
    assert_eq!(advance(&mut replica, u64::MAX), Outcome::Refused(Refusal::WrongKind));
    replica.write(vec![put(b"a", b"2")]);
    let reader = replica.machine.reader();
    let view = replica.store.view().unwrap();
    let value = |at| reader.get(&*view, b"a", Some(Version(at)), false).unwrap().unwrap();
    assert_eq!((value(500).value, value(1_000).modified), (b"1".to_vec(), Version(2)));
    assert_eq!(value(1_001).modified, Version(1_001));
    let mut hybrid = Replica::born(&MemoryEngine::default(), VersionKind::Hybrid);
    let before = hybrid.machine.version();
    advance(&mut hybrid, 1_000);
    assert_eq!(hybrid.machine.version(), before, "a clock needs no push");
}

#[test]
fn the_tally_is_what_a_walk_over_all_keys_counts() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let mut chance = Chance(5);
    for round in 0..300 {
        replica.write(ops(&mut chance));
        if round % 40 == 0 {
            replica.flush();
        }
        if round % 90 == 0 {
            replica.reopen(&engine);
        }
        let reader = replica.machine.reader();
        let view = replica.store.view().unwrap();
        let all = Range::of(Keys::range("", ""));
        let items = reader.range(&*view, &all).unwrap().0.items;
        let bytes = items.iter().map(|item| item.key.len() as u64 + item.value_bytes).sum();
        assert_eq!(reader.tally(), Tally { keys: items.len() as u64, bytes }, "round {round}");
    }
    assert!(replica.machine.reader().tally().keys > 10);
}
