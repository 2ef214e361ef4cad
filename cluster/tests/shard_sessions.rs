//! Exactly once, as a client sees it.

mod model;

use cluster::{
    ids::SessionId,
    limits::{SESSION_IDLE_MS_MAX, SESSION_IN_FLIGHT_MAX, SESSIONS_PER_SHARD_MAX},
    memory::MemoryEngine,
    mvcc::version::{Version, VersionKind},
    shard::command::{Action, Outcome, Refusal},
};
use model::{Replica, delete, put};

fn replica(engine: &MemoryEngine) -> Replica {
    Replica::born(engine, VersionKind::Dense)
}

fn open(replica: &mut Replica) -> SessionId {
    let Outcome::Session(session) = replica.command(0, Action::OpenSession) else { panic!() };
    assert_eq!(session.0, replica.log.len() as u64, "a session is named by its entry");
    session
}

fn written(version: u64, deleted: u32) -> Outcome {
    Outcome::Written { version: Version(version), deleted }
}

#[test]
fn a_retry_is_answered_and_not_executed_again() {
    let mut replica = replica(&MemoryEngine::default());
    let session = open(&mut replica);
    assert_eq!(replica.ask(session, 1, 0, put(b"k", b"1")), written(2, 0));
    assert_eq!(replica.ask(session, 2, 0, put(b"k", b"2")), written(3, 0));
    assert_eq!(replica.ask(session, 1, 0, put(b"k", b"1")), written(2, 0));
    let item = replica.machine.reader();
    let view = replica.store.view().unwrap();
    let item = item.get(&*view, b"k", None, false).unwrap().unwrap();
    assert_eq!((item.value, item.changes), (b"2".to_vec(), 2));
}

#[test]
fn replies_survive_a_crash_through_root_record_and_replay() {
    let engine = MemoryEngine::default();
    let mut replica = replica(&engine);
    let session = open(&mut replica);
    replica.ask(session, 1, 0, put(b"k", b"1"));
    replica.flush();
    replica.ask(session, 2, 0, delete(b"k"));
    engine.crash();
    replica.reopen(&engine);
    assert_eq!(replica.ask(session, 1, 0, put(b"k", b"1")), written(2, 0));
    assert_eq!(replica.ask(session, 2, 0, delete(b"k")), written(3, 1));
    assert_eq!(replica.machine.version(), Version(3));
}

#[test]
fn what_the_client_has_is_forgotten_and_a_late_duplicate_of_it_refused() {
    let mut replica = replica(&MemoryEngine::default());
    let session = open(&mut replica);
    replica.ask(session, 1, 0, put(b"k", b"1"));
    replica.ask(session, 2, 1, put(b"k", b"2"));
    assert_eq!(
        replica.ask(session, 1, 0, put(b"k", b"1")),
        Outcome::Refused(Refusal::UnknownOutcome(session))
    );
    assert_eq!(replica.machine.version(), Version(3), "the duplicate was not executed");
}

#[test]
fn numbers_may_arrive_in_any_order_within_the_window() {
    let mut replica = replica(&MemoryEngine::default());
    let session = open(&mut replica);
    let far = SESSION_IN_FLIGHT_MAX as u64;
    assert_eq!(replica.ask(session, far, 0, put(b"k", b"x")), written(2, 0));
    assert_eq!(replica.ask(session, 1, 0, put(b"k", b"y")), written(3, 0));
    let refused = replica.ask(session, far + 1, 0, put(b"k", b"z"));
    assert!(matches!(refused, Outcome::Refused(Refusal::TooManyInFlight { .. })), "{refused:?}");
    assert_eq!(replica.ask(session, far + 1, 1, put(b"k", b"z")), written(4, 0));
}

#[test]
fn a_session_expires_by_shard_time_and_use_keeps_it_alive() {
    let mut replica = replica(&MemoryEngine::default());
    let (used, idle) = (open(&mut replica), open(&mut replica));
    let half = u32::try_from(SESSION_IDLE_MS_MAX / 2).unwrap();
    replica.command(half, Action::Close);
    replica.ask(used, 1, 0, put(b"k", b"1"));
    replica.command(half, Action::Close);
    assert_eq!(replica.machine.sessions(), 2, "exactly the limit is not over it");
    // Wall time that jumps by a day ends nothing.
    replica.wall_ms += 86_400_000;
    replica.command(0, Action::Close);
    assert_eq!(replica.machine.sessions(), 2);
    replica.command(1, Action::Close);
    assert_eq!(
        replica.ask(idle, 1, 0, put(b"k", b"2")),
        Outcome::Refused(Refusal::UnknownOutcome(idle))
    );
    assert_eq!(replica.ask(used, 2, 1, put(b"k", b"2")), written(3, 0));
}

#[test]
fn a_full_shard_drops_the_session_that_was_idle_longest() {
    let mut replica = replica(&MemoryEngine::default());
    let (first, second) = (open(&mut replica), open(&mut replica));
    replica.command(5, Action::Close);
    replica.ask(first, 1, 0, put(b"k", b"1"));
    for _ in 2..SESSIONS_PER_SHARD_MAX {
        open(&mut replica);
    }
    assert_eq!(replica.machine.sessions(), SESSIONS_PER_SHARD_MAX);
    open(&mut replica);
    assert_eq!(replica.machine.sessions(), SESSIONS_PER_SHARD_MAX);
    let refused = replica.ask(second, 1, 0, put(b"k", b"2"));
    assert_eq!(refused, Outcome::Refused(Refusal::UnknownOutcome(second)));
    assert_eq!(replica.ask(first, 2, 1, put(b"k", b"2")), written(3, 0));
}

#[test]
fn a_closed_session_executes_nothing_more() {
    let mut replica = replica(&MemoryEngine::default());
    let session = open(&mut replica);
    replica.command(0, Action::CloseSession(session));
    replica.command(0, Action::CloseSession(session));
    assert_eq!(
        replica.ask(session, 1, 0, put(b"k", b"1")),
        Outcome::Refused(Refusal::UnknownOutcome(session))
    );
}
