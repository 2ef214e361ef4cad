//! Accounts as part of a shard's state: judged by apply, kept by restarts and
//! snapshots, moving no version.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use cluster::{
    auth::{Access, AuthCommand, AuthError, AuthOutcome, Need, Permission, Principal},
    ids::{LeaseId, ReplicaId, SessionId, StoreId},
    memory::MemoryEngine,
    mvcc::version::{Hlc, Version, VersionKind},
    ports::engine::Engine,
    raft::types::Payload,
    shard::{
        command::{Action, Command, Outcome, Refusal, SessionRequest},
        leases::{LeaseCommand, LeaseError},
        machine::ShardMachine,
        reader::ReadError,
        snapshot::{PinnedSnapshot, SnapshotReceiver, snapshot_piece},
        transaction::{Keys, Put, Step, Transaction},
    },
};
use model::{Chance, Replica, put};

fn account(replica: &mut Replica, command: AuthCommand) -> Outcome {
    replica.command(0, Action::Auth { request: None, command })
}

/// Root and `ann`, who may write below `a/`; in force.
fn guarded(engine: &MemoryEngine) -> Replica {
    let mut replica = Replica::born(engine, VersionKind::Dense);
    let user = |name: &str| AuthCommand::AddUser { name: name.into(), hash: Some("#".into()) };
    let role =
        |user: &str, role: &str| AuthCommand::GrantRole { user: user.into(), role: role.into() };
    let permission = Permission { access: Access::Write, keys: Keys::prefix("a/") };
    for command in [
        user("root"),
        role("root", "root"),
        user("ann"),
        AuthCommand::AddRole("writer".into()),
        AuthCommand::GrantPermission { role: "writer".into(), permission },
        role("ann", "writer"),
        AuthCommand::Enable,
    ] {
        let done = account(&mut replica, command);
        assert!(matches!(done, Outcome::Auth(_)), "{done:?}");
    }
    replica
}

fn ann(replica: &Replica) -> Principal {
    let since = Some(replica.machine.reader().accounts().revision());
    Principal::User { name: "ann".into(), since }
}

fn act(replica: &mut Replica, principal: &Principal, action: Action) -> Outcome {
    replica.wall_ms += 1;
    let time = Hlc(replica.wall_ms << 16);
    let principal = principal.clone();
    let command = Command { time, shard_time_step_ms: 0, principal, action };
    replica.apply(Payload::Command(command.encode())).outcome.unwrap()
}

fn write(key: &str) -> Action {
    Action::Write { request: None, ops: vec![put(key.as_bytes(), b"v")] }
}

fn refused(error: AuthError) -> Outcome {
    Outcome::Refused(Refusal::Auth(error))
}

const REVOKE: fn() -> AuthCommand =
    || AuthCommand::RevokeRole { user: "ann".into(), role: "writer".into() };

#[test]
fn a_change_of_accounts_moves_no_version_and_binds_the_very_next_entry() {
    let mut replica = guarded(&MemoryEngine::default());
    let ann = ann(&replica);
    assert_eq!(replica.machine.version(), Version(1), "as in an empty store");
    // Begun while it was permitted, and applied when it was not any more.
    let permitted = act(&mut replica, &ann, write("a/1"));
    assert!(matches!(permitted, Outcome::Written { version: Version(2), .. }), "{permitted:?}");
    let done = account(&mut replica, REVOKE());
    assert_eq!(done, Outcome::Auth(AuthOutcome { revision: 8, version: Version(2) }));
    assert_eq!(act(&mut replica, &ann, write("a/1")), refused(AuthError::Denied));
    assert_eq!(
        act(&mut replica, &Principal::Nameless, write("a/1")),
        refused(AuthError::UserEmpty)
    );
    assert_eq!(
        act(&mut replica, &ann, Action::Auth { request: None, command: AuthCommand::Disable }),
        refused(AuthError::Denied)
    );
    assert_eq!(replica.machine.version(), Version(2), "what is refused changes nothing");
}

#[test]
fn a_retry_is_told_what_became_of_it_whatever_was_changed_since() {
    let mut replica = guarded(&MemoryEngine::default());
    let ann = ann(&replica);
    let opened = act(&mut replica, &ann, Action::OpenSession);
    let Outcome::Session(session) = opened else { panic!("{opened:?}") };
    let ask = |session: SessionId, number| Action::Write {
        request: Some(SessionRequest { session, number, answered: 0 }),
        ops: vec![put(b"a/1", b"v")],
    };
    let first = act(&mut replica, &ann, ask(session, 1));
    account(&mut replica, REVOKE());
    assert_eq!(act(&mut replica, &ann, ask(session, 1)), first);
    assert_eq!(act(&mut replica, &ann, ask(session, 2)), refused(AuthError::Denied));
}

#[test]
fn leases_are_judged_by_the_keys_that_hang_on_them_now() {
    let mut replica = guarded(&MemoryEngine::default());
    let ann = ann(&replica);
    let lease = LeaseId(7);
    let grant = LeaseCommand::Grant { lease, ttl_ms: 9_000 };
    act(&mut replica, &ann, Action::Lease { request: None, command: grant });
    let under = |key: &str| Action::Transact {
        request: None,
        transaction: Transaction::new().then(Step::Put(Put::new(key, "v").under(lease))),
    };
    let done = act(&mut replica, &ann, under("a/1"));
    assert!(matches!(done, Outcome::Transacted(_)), "{done:?}");
    act(&mut replica, &Principal::Trusted, under("b/1"));
    let keep = Action::Lease { request: None, command: LeaseCommand::KeepAlive(lease) };
    let revoke = Action::Lease { request: None, command: LeaseCommand::Revoke(lease) };
    for action in [&keep, &revoke, &under("a/2")] {
        assert_eq!(
            act(&mut replica, &ann, action.clone()),
            refused(AuthError::Denied),
            "{action:?}"
        );
    }
    let view = replica.store.view().unwrap();
    let show = [Need::Lease(Access::Write, lease)];
    let denied = replica.machine.reader().check(&*view, &ann, &show);
    assert_eq!(denied, Err(ReadError::Denied(AuthError::Denied)));
    drop(view);
    // Written without the lease, the foreign key hangs on it no more.
    replica.write(vec![put(b"b/1", b"v")]);
    for action in [keep, revoke] {
        let done = act(&mut replica, &ann, action);
        assert!(matches!(done, Outcome::Lease(_)), "{done:?}");
    }
}

#[test]
fn all_leases_are_shown_to_who_may_read_all_that_hangs_on_them() {
    let mut replica = guarded(&MemoryEngine::default());
    let permission = Permission { access: Access::Read, keys: "k".into() };
    account(&mut replica, AuthCommand::GrantPermission { role: "writer".into(), permission });
    let ann = ann(&replica);
    let all = [Need::Name, Need::LeasesAfter(Access::Read, LeaseId(0))];
    let check = |replica: &Replica, who: &Principal| {
        replica.machine.reader().check(&*replica.store.view().unwrap(), who, &all)
    };
    for (lease, key) in [(1, "k"), (2, "l")] {
        assert_eq!(check(&replica, &ann), Ok(()), "before {key}");
        let command = LeaseCommand::Grant { lease: LeaseId(lease), ttl_ms: 9_000 };
        replica.command(0, Action::Lease { request: None, command });
        let put = Step::Put(Put::new(key, "v").under(LeaseId(lease)));
        let transaction = Transaction::new().then(put);
        replica.command(0, Action::Transact { request: None, transaction });
    }
    assert_eq!(check(&replica, &ann), Err(ReadError::Denied(AuthError::Denied)));
    assert_eq!(check(&replica, &Principal::Trusted), Ok(()));
}

/// Below the keys of all leases lie the leases themselves.
#[test]
fn no_keys_hang_on_the_lease_zero_whatever_lies_where_they_would() {
    let mut replica = guarded(&MemoryEngine::default());
    let ann = ann(&replica);
    let command = LeaseCommand::Grant { lease: LeaseId(1), ttl_ms: 9_000 };
    replica.command(0, Action::Lease { request: None, command });
    let none = LeaseId(0);
    for command in [LeaseCommand::KeepAlive(none), LeaseCommand::Revoke(none)] {
        let unknown = Outcome::Refused(Refusal::Lease(LeaseError::Unknown(none)));
        assert_eq!(act(&mut replica, &ann, Action::Lease { request: None, command }), unknown);
    }
    let view = replica.store.view().unwrap();
    assert_eq!(replica.machine.reader().lease_keys(&*view, none), Ok(Vec::new()));
}

#[test]
fn random_changes_restarts_and_snapshots_leave_replicas_of_one_mind() {
    for seed in 0..20 {
        let (engine, other) = (MemoryEngine::default(), MemoryEngine::default());
        let mut replica = guarded(&engine);
        let mut chance = Chance(seed);
        let who = [ann(&replica), Principal::Nameless, Principal::Trusted];
        for _ in 0..100 {
            let user = ["ann", "bob", "root"][chance.index(3)].to_owned();
            let role = ["writer", "root", "other"][chance.index(3)].to_owned();
            let keys = Keys::prefix(["a", "a/1", "b"][chance.index(3)]);
            let access = [Access::Read, Access::Write, Access::ReadWrite][chance.index(3)];
            let command = match chance.below(16) {
                0 => AuthCommand::Enable,
                1 => AuthCommand::Disable,
                2 => AuthCommand::AddUser { name: user, hash: None },
                3 => AuthCommand::DeleteUser(user),
                4 => AuthCommand::GrantRole { user, role },
                5 => AuthCommand::RevokeRole { user, role },
                6 => AuthCommand::AddRole(role),
                7 => AuthCommand::DeleteRole(role),
                8 => AuthCommand::GrantPermission { role, permission: Permission { access, keys } },
                9 => AuthCommand::RevokePermission { role, keys },
                10 => {
                    replica.flush();
                    continue;
                }
                11 => {
                    engine.crash();
                    replica.reopen(&engine);
                    continue;
                }
                _ => {
                    let key = ["a/1", "a/2", "b/1"][chance.index(3)];
                    act(&mut replica, &who[chance.index(3)], write(key));
                    continue;
                }
            };
            let as_whom = &who[chance.index(3)];
            act(&mut replica, as_whom, Action::Auth { request: None, command });
        }
        // One that applies the same log without flushes has the same state.
        let mut second = Replica::born(&other, VersionKind::Dense);
        for entry in replica.log.clone() {
            second.apply(entry.payload);
        }
        assert_eq!(replica.hash(), second.hash(), "seed {seed}");
        let pin = PinnedSnapshot::new(replica.machine.reader(), 0);
        let store = engine.create(StoreId(9)).unwrap();
        let mut receiver = SnapshotReceiver::new(ReplicaId(77), 5);
        while !receiver.is_complete() {
            let view = replica.store.view().unwrap();
            let piece = snapshot_piece(&pin, &*view, receiver.position(), 100).unwrap();
            store.commit(&receiver.accept(&piece).unwrap()).unwrap();
        }
        let copy = ShardMachine::open(ReplicaId(77), &*store.view().unwrap()).unwrap();
        assert_eq!(copy.reader().accounts(), replica.machine.reader().accounts(), "seed {seed}");
    }
}
