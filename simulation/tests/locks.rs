//! Locks: one queue, in the order of arrival, and a token for those who slept
//! through the end of their turn (row A3 of the bug catalogue).
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::client::{Client, ClientError, Lock};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    mvcc::version::Version,
    shard::transaction::{Step, Transaction},
};
use simulation::{disk::Death, hooks::on_seeded_thread, stage::Stage, world::Setup};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(3);
/// Longer than a cluster needs to start: a holder that could not ask for as long
/// as its lease lives must take it for lost, rightly or not.
const LONG_TTL: Duration = Duration::from_secs(10);
const VOLUME: &str = "locks";

struct Play {
    stage: Stage,
    client: Client,
}

impl Play {
    fn begin(seed: u64) -> Self {
        let mut stage = Stage::product(&Setup::calm(seed));
        stage.found(1).expect("a cluster");
        let client = stage.client(1).with_deadline(SECOND * 30);
        let mut play = Self { stage, client };
        let policy = VolumePolicy::new(VolumeKind::Single, 3, 1);
        let created = play.ask(async move |client| client.create_volume(VOLUME, policy).await);
        created.expect("a volume");
        play
    }

    fn ask<T: Send + 'static, F>(&mut self, what: impl FnOnce(Client) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.stage.ask("a step", SECOND * 60, what(self.client.clone())).expect("a live world")
    }

    fn lock(&mut self) -> Lock {
        self.ask(|client| async move { client.lock(VOLUME, "l", TTL).await }).expect("the lock")
    }

    /// Writes as the holder of a lock; whether it was still that.
    fn write(&mut self, lock: &Lock) -> bool {
        let write = Transaction::new().when(lock.fence()).then(Step::put("guarded", "1"));
        let done = self.ask(|client| async move { client.transact(VOLUME, write).await });
        done.expect("an answer").succeeded
    }
}

#[test]
fn a_holder_that_slept_through_its_lease_is_fenced_off() {
    on_seeded_thread(7, || {
        let mut play = Play::begin(7);
        let first = play.lock();
        assert!(play.write(&first));
        let began = play.stage.world.now();
        let second = play.lock();
        let waited = play.stage.world.now() - began;
        assert!(waited < TTL * 2, "the lease of a sleeper ends: {waited:?}");
        assert!(second.token() > first.token());
        assert!(!play.write(&first), "it sleeps on and thinks that it holds");
        assert!(play.write(&second));
        let kept = play.ask(|_| async move { first.keep().await });
        assert!(matches!(kept, Err(ClientError::BadLease(_))), "{kept:?}");
        play.ask(|_| async move { second.release().await }).expect("a release");
        let began = play.stage.world.now();
        play.lock();
        assert!(play.stage.world.now() - began < SECOND, "what is given back is free at once");
    });
}

#[test]
fn who_waits_gets_its_turn_in_order_and_keeps_it_over_a_dead_leader() {
    on_seeded_thread(8, || {
        let mut play = Play::begin(8);
        let turns = Arc::new(Mutex::new(Vec::new()));
        for number in 0..5 {
            let (client, turns) = (play.client.clone(), turns.clone());
            play.stage.world.spawn(async move {
                // They come one after another.
                tokio::time::sleep(SECOND / 2 * number).await;
                let took = take_turn(&client).await;
                turns.lock().expect("no panic").push((number, took));
            });
        }
        play.stage.pass(SECOND * 9).expect("a live world");
        play.stage.world.crash_all(Death::Power);
        play.stage.pass(SECOND / 10).expect("a live world");
        play.stage.world.start_all();
        play.stage.pass(LONG_TTL * 12).expect("a live world");
        let turns = turns.lock().expect("no panic").clone();
        let tokens: Vec<_> = turns.iter().map(|(_, took)| took.clone().expect("a turn")).collect();
        let numbers: Vec<_> = turns.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert!(tokens.is_sorted(), "{tokens:?}");
    });
}

#[test]
fn who_waits_longer_than_anybody_answers_waits_on() {
    on_seeded_thread(9, || {
        let mut play = Play::begin(9);
        let first = play.ask(|client| async move { client.lock(VOLUME, "l", LONG_TTL * 6).await });
        let first = first.expect("the lock");
        let turn = Arc::new(Mutex::new(None));
        let (client, waited) = (play.client.with_deadline(SECOND), turn.clone());
        play.stage.world.spawn(async move {
            let took = client.lock(VOLUME, "l", LONG_TTL * 6).await;
            *waited.lock().expect("no panic") = Some(took);
        });
        play.stage.pass(SECOND * 2).expect("a live world");
        play.stage.world.crash_all(Death::Power);
        play.stage.pass(SECOND * 5).expect("a live world");
        play.stage.world.start_all();
        play.stage.pass(SECOND * 10).expect("a live world");
        assert!(turn.lock().expect("no panic").is_none(), "it waits");
        let token = first.token();
        play.ask(|_| async move { first.release().await }).expect("a release");
        play.stage.pass(SECOND * 5).expect("a live world");
        let took = turn.lock().expect("no panic").take().expect("its turn").expect("the lock");
        assert!(took.token() > token);
    });
}

#[test]
fn what_is_held_ends_with_the_lease_that_nobody_could_keep() {
    on_seeded_thread(10, || {
        let mut play = Play::begin(10);
        let lock = play.lock();
        let ended = Arc::new(Mutex::new(None));
        let (held, token) = (ended.clone(), lock.token());
        play.stage.world.spawn(async move {
            let done = lock.hold(tokio::time::sleep(TTL * 20)).await;
            *held.lock().expect("no panic") = Some(done);
        });
        play.stage.pass(TTL * 3).expect("a live world");
        assert!(ended.lock().expect("no panic").is_none(), "it is kept for longer than it lives");
        play.stage.world.crash_all(Death::Power);
        play.stage.pass(TTL + SECOND / 10).expect("a live world");
        let done = ended.lock().expect("no panic").take();
        assert!(matches!(done, Some(Err(_))), "it went on past its lease: {done:?}");
        play.stage.world.start_all();
        play.stage.pass(TTL * 3).expect("a live world");
        assert!(play.lock().token() > token);
    });
}

/// Holds the lock for twice the time it lives by itself; its token.
async fn take_turn(client: &Client) -> Result<Version, ClientError> {
    let lock = client.lock(VOLUME, "l", LONG_TTL).await?;
    lock.hold(tokio::time::sleep(LONG_TTL * 2)).await?;
    assert!(lock.is_held().await?, "it was kept");
    let token = lock.token();
    lock.release().await?;
    Ok(token)
}
