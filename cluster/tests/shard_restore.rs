//! Restores: what keys keep, who is refused meanwhile, what goes on.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use cluster::{
    ids::{LeaseId, ReplicaId, ShardId, StoreId},
    memory::MemoryEngine,
    mvcc::{
        compaction::BatchLimits,
        version::{Version, VersionKind},
    },
    ports::engine::Engine,
    request::Item,
    shard::{
        command::{Action, Outcome, Refusal},
        leases::{LeaseCommand, LeaseOutcome},
        machine::ShardMachine,
        range::Range,
        reader::ReadError,
        restore::{
            Begun, RestoreCommand, RestoreError, RestoreStep, Restored, SavedId, SavedLease,
        },
        snapshot::{PinnedSnapshot, SnapshotReceiver, snapshot_piece},
        transaction::Keys,
        watch::{Place, Watch},
    },
};
use model::{Replica, delete, put};

const SAVED: SavedId = SavedId([7; 16]);
const A: LeaseId = LeaseId(7);
/// What the snapshot was saved at, and what is added.
const VERSION: u64 = 50;
const BUMP: u64 = 1_000;

fn dense() -> Replica {
    Replica::born(&MemoryEngine::default(), VersionKind::Dense)
}

fn item(key: &str, created: u64, modified: u64, changes: u64, lease: LeaseId) -> Item {
    let value = format!("value of {key}").into_bytes();
    Item {
        key: key.as_bytes().to_vec(),
        value_bytes: value.len() as u64,
        value,
        created: Version(created),
        modified: Version(modified),
        changes,
        modified_ms: 777,
        lease,
    }
}

fn items() -> Vec<Item> {
    ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .zip([(2, 50, 9), (3, 3, 1), (4, 40, 7), (30, 30, 1), (9, 45, 3), (2, 2, 1)])
        .map(|(key, (created, modified, changes))| {
            let lease = if key == "c" || key == "e" { A } else { LeaseId(0) };
            item(key, created, modified, changes, lease)
        })
        .collect()
}

fn try_step(replica: &mut Replica, saved: SavedId, step: RestoreStep) -> Outcome {
    let command = RestoreCommand { saved, step };
    replica.command(10, Action::Restore { request: None, command })
}

fn step(replica: &mut Replica, step: RestoreStep) -> Restored {
    let outcome = try_step(replica, SAVED, step);
    let Outcome::Restored(restored) = outcome else { panic!("{outcome:?}") };
    restored
}

fn begin() -> RestoreStep {
    RestoreStep::Begin { version: Version(VERSION), bump: BUMP }
}

fn leases(begun: Begun) -> RestoreStep {
    RestoreStep::Leases(begun, vec![SavedLease { lease: A, ttl_ms: 60_000, remaining_ms: 5_000 }])
}

/// Begins, and brings the leases.
fn open(replica: &mut Replica) -> Begun {
    let begun = step(replica, begin()).begun;
    step(replica, leases(begun));
    begun
}

fn restore(replica: &mut Replica) -> Version {
    let begun = open(replica);
    for part in items().chunks(2) {
        step(replica, RestoreStep::Keys(begun, part.to_vec()));
        replica.flush();
    }
    step(replica, RestoreStep::End(begun)).version
}

fn read(replica: &Replica, at: Option<Version>) -> Result<Vec<Item>, ReadError> {
    let reader = replica.machine.reader();
    let range = Range { at, ..Range::of(Keys::range("", "")) };
    reader.range(&*replica.store.view().unwrap(), &range).map(|(found, _)| found.items)
}

fn refused(error: RestoreError) -> Outcome {
    Outcome::Refused(Refusal::Restore(error))
}

#[test]
fn keys_are_as_they_were_and_all_versions_lie_above_both_sides() {
    let mut replica = dense();
    let newest = restore(&mut replica);
    assert_eq!(newest, Version(VERSION + BUMP), "a new shard has no history to stay above");
    assert_eq!(read(&replica, None).unwrap(), items());
    assert_eq!(read(&replica, Some(newest)).unwrap(), items());
    let tally = replica.machine.reader().tally();
    assert_eq!((tally.keys, tally.bytes), (6, 6 * (1 + 10)));
    assert!(matches!(read(&replica, Some(Version(VERSION))), Err(ReadError::Compacted { .. })));
    let written = replica.write(vec![put(b"a", b"new")]);
    assert_eq!(written, Outcome::Written { version: Version(newest.0 + 1), deleted: 0 });
    let a = read(&replica, None).unwrap().swap_remove(0);
    assert_eq!((a.created, a.modified, a.changes), (Version(2), Version(newest.0 + 1), 10));
    assert_eq!(read(&replica, Some(newest)).unwrap(), items(), "the past of what came since");
}

#[test]
fn whoever_watched_before_is_told_that_it_is_compacted_and_never_nothing() {
    let mut replica = dense();
    let newest = restore(&mut replica);
    let reader = replica.machine.reader();
    let view = replica.store.view().unwrap();
    let watch = Watch::of(Keys::range("", ""));
    let after = |version| reader.events(&*view, &watch, Place::after(Version(version)), 1 << 20);
    for seen in [0, 1, 2, VERSION, VERSION + 1, newest.0 - 2] {
        assert!(matches!(after(seen), Err(ReadError::Compacted { .. })), "after {seen}");
    }
    assert_eq!(after(newest.0).unwrap().events, []);
}

#[test]
fn a_shard_that_is_not_whole_takes_and_shows_nothing() {
    let mut replica = dense();
    let begun = step(&mut replica, begin()).begun;
    step(&mut replica, RestoreStep::Keys(begun, items()[..2].to_vec()));
    let reader = replica.machine.reader();
    assert_eq!(reader.check_whole(), Err(ReadError::NotWhole(RestoreError::Underway)));
    assert_eq!(replica.write(vec![put(b"a", b"x")]), refused(RestoreError::Underway));
    let grant = LeaseCommand::Grant { lease: A, ttl_ms: 9_000 };
    let granted = replica.command(0, Action::Lease { request: None, command: grant });
    assert_eq!(granted, refused(RestoreError::Underway));
    let advanced = replica.command(0, Action::Advance { version: Version(9_999_999) });
    assert_eq!(advanced, refused(RestoreError::Underway));
    step(&mut replica, RestoreStep::End(begun));
    assert!(replica.machine.reader().check_whole().is_ok());
    assert!(matches!(replica.write(vec![put(b"a", b"x")]), Outcome::Written { .. }));
}

#[test]
fn in_a_shard_with_a_past_versions_are_shifted_above_it_and_it_hides_nothing() {
    let mut replica = dense();
    for key in [b"a", b"b", b"x"] {
        replica.write(vec![put(key, b"old")]);
    }
    let full = try_step(&mut replica, SAVED, begin());
    assert_eq!(full, refused(RestoreError::NotEmpty));
    replica.write(vec![delete(b"a"), delete(b"b"), delete(b"x")]);
    let own = replica.machine.version().0;
    replica.flush();
    let newest = restore(&mut replica);
    assert_eq!(newest, Version(own + VERSION + BUMP));
    let shifted: Vec<Item> = items()
        .into_iter()
        .map(|item| Item {
            created: Version(item.created.0 + own),
            modified: Version(item.modified.0 + own),
            ..item
        })
        .collect();
    assert_eq!(read(&replica, None).unwrap(), shifted);
    replica.write(vec![put(b"a", b"new"), delete(b"b")]);
    assert_eq!(read(&replica, Some(newest)).unwrap(), shifted, "no old tombstone hides them");
    while replica.sweep(newest, BatchLimits::USUAL) {}
    assert_eq!(read(&replica, Some(newest)).unwrap(), shifted);
    assert_eq!(read(&replica, None).unwrap().len(), 5);
}

#[test]
fn the_time_of_leases_stands_still_until_the_end() {
    let mut replica = dense();
    let begun = open(&mut replica);
    step(&mut replica, RestoreStep::Keys(begun, items()));
    replica.command(60_000, Action::Close);
    let expire = Action::Lease { request: None, command: LeaseCommand::Expire(A) };
    assert_eq!(replica.command(0, expire.clone()), refused(RestoreError::Underway));
    step(&mut replica, RestoreStep::End(begun));
    let reader = replica.machine.reader();
    let (shown, more) = reader.list_leases(LeaseId(0), reader.shard_time_ms());
    let left = shown.iter().map(|shown| (shown.lease, shown.ttl_ms, shown.remaining_ms));
    assert_eq!((left.collect::<Vec<_>>(), more), (vec![(A, 60_000, 5_000)], false));
    assert_eq!(reader.leases().get(A).unwrap().keys, 2);
    assert_eq!(replica.command(4_999, expire.clone()), Outcome::Lease(LeaseOutcome::NotDue));
    let ended = replica.command(1, expire);
    assert!(matches!(ended, Outcome::Lease(LeaseOutcome::Ended { keys: 2, .. })), "{ended:?}");
    assert_eq!(read(&replica, None).unwrap().len(), 4);
}

#[test]
fn a_step_that_comes_again_changes_nothing_and_one_out_of_turn_is_refused() {
    let mut replica = dense();
    let shard = replica.machine.descriptor().shard;
    let early = leases(Begun { shard, version: Version(1) });
    assert_eq!(try_step(&mut replica, SAVED, early), refused(RestoreError::NotBegun));
    let begun = open(&mut replica);
    let first = RestoreStep::Keys(begun, items()[..3].to_vec());
    assert_eq!(step(&mut replica, first.clone()).upto, b"c");
    let more = RestoreStep::Keys(begun, items()[1..4].to_vec());
    for again in [begin(), leases(begun), first, more] {
        assert_eq!(step(&mut replica, again).begun, begun);
    }
    assert_eq!(replica.machine.leases().get(A).unwrap().keys, 1);
    assert_eq!(replica.machine.leases().count(), 1);
    let other = SavedId([8; 16]);
    assert_eq!(try_step(&mut replica, other, begin()), refused(RestoreError::Another(SAVED)));
    let end = RestoreStep::End(begun);
    assert_eq!(try_step(&mut replica, other, end.clone()), refused(RestoreError::NotBegun));
    let bad = [
        (vec![item("y", 1, 1, 1, LeaseId(0)), item("x", 1, 1, 1, LeaseId(0))], None),
        (vec![item("", 1, 1, 1, LeaseId(0))], None),
        (vec![item("x", 1, VERSION + 1, 1, LeaseId(0))], None),
        (vec![item("x", 1, 1, 1, LeaseId(9))], Some(RestoreError::Lease(LeaseId(9)))),
    ];
    for (part, error) in bad {
        let outcome = try_step(&mut replica, SAVED, RestoreStep::Keys(begun, part));
        assert_eq!(outcome, refused(error.unwrap_or(RestoreError::OutOfOrder)));
    }
    step(&mut replica, RestoreStep::Keys(begun, items()));
    let newest = step(&mut replica, end.clone()).version;
    assert_eq!(read(&replica, None).unwrap(), items());
    let whole = Restored { begun, upto: b"f".to_vec(), whole: true, version: newest };
    for again in [end, begin()] {
        assert_eq!(step(&mut replica, again), whole, "its answer was lost");
    }
    let late = RestoreStep::Keys(begun, vec![item("z", 1, 1, 1, A)]);
    assert_eq!(try_step(&mut replica, SAVED, late), refused(RestoreError::NotBegun));
    let too_far = RestoreStep::Begin { version: Version(u64::MAX), bump: 1 };
    assert_eq!(try_step(&mut dense(), SAVED, too_far), refused(RestoreError::TooFar));
    let mut hybrid = Replica::born(&MemoryEngine::default(), VersionKind::Hybrid);
    let outcome = try_step(&mut hybrid, SAVED, begin());
    assert_eq!(outcome, Outcome::Refused(Refusal::WrongKind));
}

/// Two commands restore one snapshot and know nothing of each other; one ends it, lets
/// all go, and begins it anew. What the other has left to bring lies behind keys that
/// are gone.
#[test]
fn a_restore_that_was_begun_anew_takes_no_step_of_the_one_before() {
    let mut replica = dense();
    let slow = open(&mut replica);
    step(&mut replica, RestoreStep::Keys(slow, items()[..3].to_vec()));
    let quick = step(&mut replica, begin()).begun;
    assert_eq!(quick, slow, "both are at one restore");
    step(&mut replica, RestoreStep::Keys(quick, items()[3..].to_vec()));
    step(&mut replica, RestoreStep::End(quick));
    let late = [
        leases(slow),
        RestoreStep::Keys(slow, items()[3..].to_vec()),
        RestoreStep::Keys(slow, Vec::new()),
    ];
    for step in late.clone() {
        assert_eq!(try_step(&mut replica, SAVED, step), refused(RestoreError::NotBegun));
    }
    assert!(step(&mut replica, RestoreStep::End(slow)).whole, "it is, whoever ended it");

    let command = LeaseCommand::Revoke(A);
    replica.command(0, Action::Lease { request: None, command });
    replica.write(["a", "b", "d", "f"].map(|key| delete(key.as_bytes())).to_vec());
    let anew = step(&mut replica, begin()).begun;
    assert!(anew.version > quick.version && anew.shard == quick.shard);
    for step in late.into_iter().chain([RestoreStep::End(slow)]) {
        let refused = refused(RestoreError::BegunAnew(anew.version));
        assert_eq!(try_step(&mut replica, SAVED, step), refused);
    }
    let restore = replica.machine.reader().restore().cloned().unwrap();
    assert_eq!((restore.upto, restore.whole), (Vec::new(), false));
    assert_eq!(replica.machine.leases().count(), 0);
    step(&mut replica, leases(anew));
    step(&mut replica, RestoreStep::Keys(anew, items()));
    step(&mut replica, RestoreStep::End(anew));
    assert_eq!(read(&replica, None).unwrap().len(), items().len());
    // A volume that was removed and created again begins at the same version.
    let elsewhere = Begun { shard: ShardId(99), ..anew };
    let step = try_step(&mut replica, SAVED, RestoreStep::End(elsewhere));
    assert_eq!(step, refused(RestoreError::BegunAnew(anew.version)));
}

/// A follower that fell behind gets the state at a pin, then the entries after it:
/// keys that a restore brought meanwhile must not be among the first.
#[test]
fn a_replica_copied_in_the_middle_of_a_restore_is_like_the_others_at_its_end() {
    const RECEIVED: ReplicaId = ReplicaId(77);
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    replica.write(vec![put(b"b", b"1"), put(b"e", b"1")]);
    replica.write(vec![delete(b"b"), delete(b"e")]);
    let begun = open(&mut replica);
    step(&mut replica, RestoreStep::Keys(begun, items()[..3].to_vec()));
    let pin = PinnedSnapshot::new(replica.machine.reader(), 0);
    let (pinned, hash) = (replica.machine.applied().0, replica.hash());
    step(&mut replica, RestoreStep::Keys(begun, items()[3..].to_vec()));
    step(&mut replica, RestoreStep::End(begun));
    replica.write(vec![put(b"a", b"new"), delete(b"e")]);
    replica.flush();

    let store = engine.create(StoreId(9)).unwrap();
    let mut receiver = SnapshotReceiver::new(RECEIVED, 5);
    while !receiver.is_complete() {
        let view = replica.store.view().unwrap();
        let piece = snapshot_piece(&pin, &*view, receiver.position(), 60).unwrap();
        store.commit(&receiver.accept(&piece).unwrap()).unwrap();
    }
    let mut copy = ShardMachine::open(RECEIVED, &*store.view().unwrap()).unwrap();
    assert_eq!(copy.reader().state_hash(&*store.view().unwrap()).unwrap(), hash);
    for entry in &replica.log[usize::try_from(pinned.0).unwrap()..] {
        copy.apply(&*store.view().unwrap(), entry).unwrap();
    }
    let view = store.view().unwrap();
    assert_eq!(copy.reader().state_hash(&*view).unwrap(), replica.hash());
    assert_eq!(copy.leases().get(A).unwrap().keys, 1);
}
