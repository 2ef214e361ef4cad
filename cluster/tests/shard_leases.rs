//! Leases: which keys go with them, when, and what outlives a restart.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    ids::{LeaseId, ReplicaId, StoreId},
    limits::LEASE_KEYS_MAX,
    memory::MemoryEngine,
    mvcc::version::{Version, VersionKind},
    ports::engine::Engine,
    shard::{
        command::{Action, Outcome, Refusal},
        leases::{LeaseCommand, LeaseError, LeaseOutcome},
        machine::ShardMachine,
        range::Range,
        snapshot::{PinnedSnapshot, SnapshotReceiver, snapshot_piece},
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
            match chance.below(12) {
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
                    engine.crash();
                    replica.reopen(&engine);
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
        let mut receiver = SnapshotReceiver::new(ReplicaId(77), 5);
        while !receiver.is_complete() {
            let view = replica.store.view().unwrap();
            let piece = snapshot_piece(&pin, &*view, receiver.position(), 100).unwrap();
            store.commit(&receiver.accept(&piece).unwrap()).unwrap();
        }
        let view = store.view().unwrap();
        let copy = ShardMachine::open(ReplicaId(77), &*view).unwrap();
        for lease in &live {
            let ours = replica.machine.reader().lease_keys(&*replica.store.view().unwrap(), *lease);
            assert_eq!(copy.reader().lease_keys(&*view, *lease), ours);
        }
    }
}
