//! Leases: which keys go with them, when, and what outlives a restart.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    ids::{LeaseId, ReplicaId, StoreId},
    limits::LEASE_KEYS_MAX,
    memory::MemoryEngine,
    mvcc::version::{Version, VersionKind},
    ports::engine::{Engine, EngineError, Store, Tree, Write},
    request::SnapshotPiece,
    shard::{
        command::{Action, Outcome, Refusal},
        descriptor::Predicate,
        leases::{LeaseCommand, LeaseError, LeaseOutcome, LeaseRecord},
        machine::{OpenError, ShardMachine},
        range::Range,
        root::ShardRole,
        snapshot::{PinnedSnapshot, SnapshotError, SnapshotReceiver, snapshot_piece},
        transaction::{Compare, Keys, Put, Relation, Step, Target, Transaction, TransactionError},
    },
};
use model::{Chance, Replica, delete, put};

const A: LeaseId = LeaseId(7);
const B: LeaseId = LeaseId(8);

fn lease(replica: &mut Replica, step_ms: u32, command: LeaseCommand) -> Outcome {
    replica.command(step_ms, Action::Lease { request: None, command })
}

fn grant(replica: &mut Replica, lease: LeaseId, ttl_ms: u64) {
    let granted = self::lease(replica, 0, LeaseCommand::Grant { lease, ttl_ms });
    assert!(matches!(granted, Outcome::Lease(LeaseOutcome::Lives { .. })), "{granted:?}");
}

fn put_under(replica: &mut Replica, key: &str, lease: LeaseId) -> Outcome {
    let step = Step::Put(Put::new(key, "v").under(lease));
    let transaction = Transaction::new().then(step);
    replica.command(0, Action::Transact { request: None, transaction })
}

fn keys(replica: &Replica) -> Vec<String> {
    let reader = replica.machine.reader();
    let all = Range::of(Keys::range("", ""));
    let (found, _) = reader.range(&*replica.store.view().unwrap(), &all).unwrap();
    found.items.into_iter().map(|item| String::from_utf8(item.key).unwrap()).collect()
}

fn ended(version: u64, keys: u32) -> Outcome {
    Outcome::Lease(LeaseOutcome::Ended { version: Version(version), keys })
}

#[test]
fn the_end_of_a_lease_deletes_its_keys_at_one_version_and_one_without_keys_moves_none() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    grant(&mut replica, A, 9_000);
    grant(&mut replica, B, 9_000);
    for key in ["b", "a", "c"] {
        put_under(&mut replica, key, A);
    }
    put_under(&mut replica, "c", B);
    replica.write(vec![put(b"free", b"1")]);
    assert_eq!(replica.machine.leases().get(A).unwrap().keys, 2);
    assert_eq!(lease(&mut replica, 0, LeaseCommand::Revoke(A)), ended(7, 2));
    assert_eq!(keys(&replica), ["c", "free"]);
    let reader = replica.machine.reader();
    let changes = reader.changes(&*replica.store.view().unwrap(), Version(6), 9).unwrap().changes;
    let subs: Vec<_> = changes.iter().map(|c| (c.version, c.sub, c.key.as_slice())).collect();
    assert_eq!(subs, [(Version(7), 0, &b"a"[..]), (Version(7), 1, b"b")]);
    // A plain write and a delete take a key off its lease.
    replica.write(vec![put(b"c", b"plain")]);
    assert_eq!(lease(&mut replica, 0, LeaseCommand::Revoke(B)), ended(8, 0));
    let unknown = Outcome::Refused(Refusal::Lease(LeaseError::Unknown(B)));
    assert_eq!(lease(&mut replica, 0, LeaseCommand::Revoke(B)), unknown);
    assert_eq!(lease(&mut replica, 0, LeaseCommand::KeepAlive(B)), unknown);
}

fn put_many(replica: &mut Replica, from: u32, count: u32) -> Outcome {
    let put = |number| Put::new(format!("leased/{number:025}"), [1; 100]).under(A);
    let all = (from..from + count).map(put);
    let transaction = all.fold(Transaction::new(), |all, put| all.then(Step::Put(put)));
    replica.command(0, Action::Transact { request: None, transaction })
}

/// Its end is one entry that every replica must apply, on the smallest node too.
#[test]
fn a_lease_takes_so_many_keys_and_its_end_takes_a_third_of_the_smallest_nodes_overlays_at_most() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    grant(&mut replica, A, 9_000);
    for part in 0..LEASE_KEYS_MAX / 1_000 {
        put_many(&mut replica, part * 1_000, 1_000);
    }
    let full = Refusal::Transaction(TransactionError::Lease(LeaseError::Full(A)));
    assert_eq!(put_many(&mut replica, LEASE_KEYS_MAX, 1), Outcome::Refused(full));
    let again = put_many(&mut replica, 0, 1);
    assert!(matches!(again, Outcome::Transacted(_)), "what hangs on it needs no room: {again:?}");
    replica.flush();
    let before = replica.machine.overlay_bytes();
    let outcome = lease(&mut replica, 0, LeaseCommand::Revoke(A));
    assert_eq!(outcome, ended(replica.machine.version().0, LEASE_KEYS_MAX));
    let bytes = replica.machine.overlay_bytes() - before;
    println!("the end of a lease of {LEASE_KEYS_MAX} keys of 32 bytes took {bytes} bytes");
    // 64 MiB; see cluster/docs/decisions/2026-11-26-transaction-bounds.md.
    assert!(bytes < (64 << 20) / 3, "{bytes}");
    assert!(keys(&replica).is_empty());
}

#[test]
fn a_lease_ends_only_when_its_time_was_counted_whatever_a_leader_proposes() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    grant(&mut replica, A, 5_000);
    put_under(&mut replica, "k", A);
    let not_due = Outcome::Lease(LeaseOutcome::NotDue);
    assert_eq!(lease(&mut replica, 4_999, LeaseCommand::Expire(A)), not_due);
    replica.flush();
    replica.reopen(&engine);
    assert_eq!(replica.machine.leases().first(), Some((5_000, A)), "a restart changes nothing");
    lease(&mut replica, 0, LeaseCommand::KeepAlive(A));
    assert_eq!(lease(&mut replica, 1, LeaseCommand::Expire(A)), not_due);
    assert_eq!(lease(&mut replica, 4_999, LeaseCommand::Expire(A)), ended(3, 1));
    assert_eq!(keys(&replica), [""; 0]);
    assert_eq!(lease(&mut replica, 0, LeaseCommand::Expire(A)), not_due, "it is gone");
}

#[test]
fn a_compare_sees_the_lease_and_a_put_may_keep_it() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    grant(&mut replica, A, 9_000);
    put_under(&mut replica, "k", A);
    let keep = Put { lease: None, ..Put::new("k", "2") };
    let transaction = Transaction::new()
        .when(Compare::new("k", Relation::Equal, Target::Lease(A)))
        .then(Step::Put(keep));
    let outcome = replica.command(0, Action::Transact { request: None, transaction });
    let Outcome::Transacted(done) = outcome else { panic!("{outcome:?}") };
    assert!(done.succeeded);
    assert_eq!(replica.machine.leases().get(A).unwrap().keys, 1);
    assert_eq!(lease(&mut replica, 0, LeaseCommand::Revoke(A)), ended(4, 1));
}

const COPY: ReplicaId = ReplicaId(77);
const OFFER: u64 = 5;

fn leases(machine: &ShardMachine) -> Vec<LeaseRecord> {
    machine.leases().after(LeaseId(0)).collect()
}

/// Receives what is left of a pin, or so many pieces of it.
fn receive(
    pin: &PinnedSnapshot,
    from: &Replica,
    store: &dyn Store,
    mut receiver: SnapshotReceiver,
    pieces: usize,
) -> SnapshotReceiver {
    for _ in 0..pieces {
        if receiver.is_complete() {
            break;
        }
        let view = from.store.view().unwrap();
        let piece = snapshot_piece(pin, &*view, receiver.position(), 100).unwrap();
        store.commit(&receiver.accept(&piece).unwrap()).unwrap();
    }
    receiver
}

#[test]
fn whoever_touches_a_lease_writes_its_record_and_the_root_knows_none() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let writes = |replica: &mut Replica| {
        let writes = replica.machine.flush().writes();
        replica.flush();
        writes
    };
    let root_bytes = |writes: &[Write]| writes.last().unwrap().value.as_ref().unwrap().len();
    grant(&mut replica, A, 9_000);
    let one = writes(&mut replica);
    for number in 1..=2_000 {
        grant(&mut replica, LeaseId(1_000 + number), 9_000);
    }
    let many = writes(&mut replica);
    assert_eq!((one.len(), many.len()), (2, 2_001), "a record each, and the root");
    assert_eq!(root_bytes(&one), root_bytes(&many));
    lease(&mut replica, 0, LeaseCommand::KeepAlive(A));
    lease(&mut replica, 0, LeaseCommand::KeepAlive(A));
    assert_eq!(writes(&mut replica).len(), 2);
    put_under(&mut replica, "k", A);
    let trees: Vec<_> = writes(&mut replica).iter().map(|write| write.tree).collect();
    let leases = [Tree::Leases; 2];
    assert_eq!(trees, [&[Tree::Latest, Tree::Changes][..], &leases, &[Tree::Root]].concat());
    lease(&mut replica, 0, LeaseCommand::Revoke(B));
    assert_eq!(writes(&mut replica).len(), 1, "there is no such lease");
    lease(&mut replica, 0, LeaseCommand::Revoke(A));
    let ended = writes(&mut replica);
    assert_eq!(ended.iter().filter(|write| write.tree == Tree::Leases).count(), 2);
    replica.reopen(&engine);
    assert_eq!(replica.machine.leases().count(), 2_000);
}

/// Power may go between any two writes of a flush, but what is seen is all or nothing.
#[test]
fn a_flush_that_fails_leaves_leases_and_keys_of_one_moment() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    grant(&mut replica, A, 9_000);
    put_under(&mut replica, "old", A);
    replica.flush();
    grant(&mut replica, B, 9_000);
    put_under(&mut replica, "new", B);
    lease(&mut replica, 0, LeaseCommand::Revoke(A));
    let lost = replica.machine.flush();
    let before = leases(&replica.machine);
    engine.crash();
    let store = engine.open(model::STORE).unwrap();
    let found = ShardMachine::open(model::REPLICA, &*store.view().unwrap()).unwrap();
    assert_eq!(leases(&found).iter().map(|lease| lease.id).collect::<Vec<_>>(), [A]);
    let hanging = found.reader().lease_keys(&*store.view().unwrap(), A).unwrap();
    assert_eq!(hanging, [b"old"]);
    drop(lost);
    replica.reopen(&engine);
    assert_eq!(leases(&replica.machine), before);
    assert_eq!(keys(&replica), ["new"]);
}

#[test]
fn a_copy_gets_the_leases_of_its_pin_though_they_end_and_it_is_killed_among_them() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    for number in 1..=500 {
        grant(&mut replica, LeaseId(number), 9_000);
        put_under(&mut replica, &format!("k{number}"), LeaseId(number));
    }
    replica.flush();
    let pin = PinnedSnapshot::new(replica.machine.reader(), 0);
    let (pinned, hash) = (leases(&replica.machine), replica.hash());
    let store = engine.create(StoreId(9)).unwrap();
    let mut receiver = SnapshotReceiver::new(COPY, OFFER);
    let mut resumed = 0;
    while !receiver.is_complete() {
        drop(receive(&pin, &replica, &*store, receiver, 40));
        for number in 0..3 {
            let ends = LeaseId(1 + (resumed * 3 + number) % 500);
            lease(&mut replica, 0, LeaseCommand::Revoke(ends));
        }
        grant(&mut replica, LeaseId(1_000 + resumed), 9_000);
        replica.flush();
        let view = store.view().unwrap();
        receiver = SnapshotReceiver::resume(&*view, COPY, OFFER).unwrap().unwrap();
        resumed += 1;
    }
    assert!(resumed > 10, "killed {resumed} times");
    let view = store.view().unwrap();
    let copy = ShardMachine::open(COPY, &*view).unwrap();
    assert_eq!(leases(&copy), pinned);
    assert_eq!(copy.reader().state_hash(&*view).unwrap(), hash);
}

#[test]
fn leases_that_cannot_follow_are_refused() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    for number in 1..=9 {
        grant(&mut replica, LeaseId(number), 9_000);
    }
    put_under(&mut replica, "k", LeaseId(1));
    let pin = PinnedSnapshot::new(replica.machine.reader(), 0);
    let store = engine.create(StoreId(9)).unwrap();
    let receiver = SnapshotReceiver::new(COPY, OFFER);
    let receiver = receive(&pin, &replica, &*store, receiver, 2);
    let view = replica.store.view().unwrap();
    let piece = snapshot_piece(&pin, &*view, receiver.position(), 100).unwrap();
    assert!(piece.records.is_empty() && piece.leases.len() == 3, "{piece:?}");
    let first = snapshot_piece(&pin, &*view, &[], 100).unwrap();
    let backwards = piece.leases.iter().rev().copied().collect();
    let turned = SnapshotPiece { leases: backwards, ..piece.clone() };
    let late = SnapshotPiece { records: first.records.clone(), ..piece.clone() };
    let cut = SnapshotPiece { leases: piece.leases[..2].to_vec(), ..piece.clone() };
    for bad in [turned, late, cut, first] {
        let refused = receiver.clone().accept(&bad);
        assert!(matches!(refused, Err(SnapshotError::Invalid(_))), "{bad:?}");
    }
    assert!(receiver.clone().accept(&piece).is_ok());
}

#[test]
fn replicas_that_share_a_store_have_leases_of_their_own() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    let other = ReplicaId(8);
    let descriptor = model::descriptor(Predicate::all());
    let birth = ShardMachine::birth(other, &descriptor, VersionKind::Dense, ShardRole::Data);
    replica.store.commit(&birth).unwrap();
    grant(&mut replica, A, 9_000);
    replica.flush();
    let opened = |replica: &Replica, id| {
        ShardMachine::open(id, &*replica.store.view().unwrap()).unwrap().leases().count()
    };
    assert_eq!((opened(&replica, model::REPLICA), opened(&replica, other)), (1, 0));
}

#[test]
fn a_bent_lease_is_damage_and_is_not_passed_by() {
    let engine = MemoryEngine::default();
    let mut replica = Replica::born(&engine, VersionKind::Dense);
    grant(&mut replica, A, 9_000);
    let mut write = replica.machine.flush().writes().swap_remove(0);
    replica.flush();
    *write.value.as_mut().unwrap().last_mut().unwrap() ^= 1;
    replica.store.commit(&[write]).unwrap();
    let opened = ShardMachine::open(model::REPLICA, &*replica.store.view().unwrap());
    assert!(matches!(opened, Err(OpenError::Engine(EngineError::Damaged { .. }))), "{opened:?}");
}

#[test]
fn leases_are_listed_in_pages_as_their_leader_sees_their_time() {
    let mut replica = Replica::born(&MemoryEngine::default(), VersionKind::Dense);
    for number in 1..=10_001 {
        grant(&mut replica, LeaseId(number), 9_000);
    }
    let reader = replica.machine.reader();
    let (first, more) = reader.list_leases(LeaseId(0), 4_000);
    assert_eq!((first.len(), more), (10_000, true));
    let last = first.last().unwrap();
    assert_eq!((last.lease, last.ttl_ms, last.remaining_ms), (LeaseId(10_000), 9_000, 5_000));
    let (rest, more) = reader.list_leases(last.lease, 4_000);
    assert_eq!((rest.len(), rest[0].lease, more), (1, LeaseId(10_001), false));
}

/// What hangs on which lease, said plainly.
type Plain = BTreeMap<String, LeaseId>;

fn check(replica: &Replica, plain: &Plain, live: &BTreeSet<LeaseId>) {
    assert_eq!(keys(replica), plain.keys().cloned().collect::<Vec<_>>());
    assert_eq!(replica.machine.leases().ids().collect::<BTreeSet<_>>(), *live);
    for lease in live {
        let hanging = plain.values().filter(|on| *on == lease).count();
        assert_eq!(replica.machine.leases().get(*lease).unwrap().keys as usize, hanging);
        let shown = replica.machine.reader().lease_keys(&*replica.store.view().unwrap(), *lease);
        let wanted: Vec<_> = plain
            .iter()
            .filter(|(_, on)| *on == lease)
            .map(|(key, _)| key.clone().into_bytes())
            .collect();
        assert_eq!(shown.unwrap(), wanted);
    }
}

#[test]
fn random_grants_writes_ends_restarts_and_snapshots_leave_what_a_plain_map_does() {
    for seed in 0..20 {
        let engine = MemoryEngine::default();
        let mut replica = Replica::born(&engine, VersionKind::Dense);
        let mut chance = Chance(seed);
        let (mut plain, mut live) = (Plain::new(), BTreeSet::new());
        for _ in 0..200 {
            let lease_id = LeaseId(1 + chance.below(4));
            let name = format!("k{}", chance.below(9));
            match chance.below(13) {
                0 | 1 => {
                    lease(&mut replica, 0, LeaseCommand::Grant { lease: lease_id, ttl_ms: 9_000 });
                    live.insert(lease_id);
                }
                2 => {
                    lease(&mut replica, 0, LeaseCommand::Revoke(lease_id));
                    if live.remove(&lease_id) {
                        plain.retain(|_, on| *on != lease_id);
                    }
                }
                3 => {
                    replica.write(vec![delete(name.as_bytes())]);
                    plain.remove(&name);
                }
                4 => {
                    replica.write(vec![put(name.as_bytes(), b"x"), delete(name.as_bytes())]);
                    plain.remove(&name);
                }
                5 => {
                    replica.write(vec![put(name.as_bytes(), b"x")]);
                    plain.insert(name, LeaseId(0));
                }
                6 => replica.flush(),
                7 => {
                    let before = leases(&replica.machine);
                    engine.crash();
                    replica.reopen(&engine);
                    assert_eq!(leases(&replica.machine), before, "seed {seed}");
                }
                8 => {
                    lease(&mut replica, 40, LeaseCommand::KeepAlive(lease_id));
                }
                _ => {
                    put_under(&mut replica, &name, lease_id);
                    if live.contains(&lease_id) {
                        plain.insert(name, lease_id);
                    }
                }
            }
            check(&replica, &plain, &live);
        }
        // A copy has the same, and loses the same.
        let pin = PinnedSnapshot::new(replica.machine.reader(), 0);
        let store = engine.create(StoreId(9)).unwrap();
        let receiver = SnapshotReceiver::new(COPY, OFFER);
        receive(&pin, &replica, &*store, receiver, usize::MAX);
        let view = store.view().unwrap();
        let copy = ShardMachine::open(COPY, &*view).unwrap();
        assert_eq!(leases(&copy), leases(&replica.machine));
        assert_eq!(copy.reader().state_hash(&*view).unwrap(), replica.hash());
        for lease in &live {
            let ours = replica.machine.reader().lease_keys(&*replica.store.view().unwrap(), *lease);
            assert_eq!(copy.reader().lease_keys(&*view, *lease), ours);
        }
    }
}
