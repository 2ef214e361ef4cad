//! Leases under a leader that keeps time, dies, or has no quorum.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use cluster::{
    ids::{LeaseId, SessionId},
    limits::{SESSION_IN_FLIGHT_MAX, TRANSACTION_OPS_MAX},
    request::{ShardBody, ShardResult},
    shard::{
        command::{Outcome, SessionRequest},
        leases::{LeaseCommand, LeaseOutcome, LeaseView},
        transaction::{Put, Step, Transaction},
    },
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::stand::Stand;

const LEASE: LeaseId = LeaseId(7);
const SHARD: u64 = 100;

/// A client with a session of its own.
struct Holder {
    session: SessionId,
    number: u64,
}

impl Holder {
    async fn new(stand: &Stand) -> Self {
        let ShardResult::Outcome(Outcome::Session(session)) =
            stand.ask(SHARD, ShardBody::OpenSession).await
        else {
            panic!("no session")
        };
        Self { session, number: 0 }
    }

    fn request(&mut self) -> SessionRequest {
        self.number += 1;
        SessionRequest { session: self.session, number: self.number, answered: self.number - 1 }
    }

    async fn lease(&mut self, stand: &Stand, command: LeaseCommand) -> Outcome {
        let request = self.request();
        let result = stand.ask(SHARD, ShardBody::Lease { request, command }).await;
        let ShardResult::Outcome(outcome) = result else { panic!("{result:?}") };
        outcome
    }

    /// Grants many, as many at a time as a session takes.
    async fn grant_all(&mut self, stand: &Stand, ids: RangeInclusive<u64>, ttl_ms: u64) {
        for some in ids.collect::<Vec<_>>().chunks(SESSION_IN_FLIGHT_MAX) {
            let answered = self.number;
            let asked = some.iter().map(|id| {
                let request = SessionRequest { answered, ..self.request() };
                let command = LeaseCommand::Grant { lease: LeaseId(*id), ttl_ms };
                stand.ask(SHARD, ShardBody::Lease { request, command })
            });
            for result in join_all(asked.collect::<Vec<_>>()).await {
                let ShardResult::Outcome(Outcome::Lease(LeaseOutcome::Lives { .. })) = result
                else {
                    panic!("{result:?}")
                };
            }
        }
    }

    /// Puts a key under each.
    async fn put_all(&mut self, stand: &Stand, ids: RangeInclusive<u64>) {
        for some in ids.collect::<Vec<_>>().chunks(TRANSACTION_OPS_MAX) {
            let put = |id| Step::Put(Put::new(format!("k{id}"), "held").under(LeaseId(id)));
            let puts = some.iter().copied().map(put);
            let transaction = puts.fold(Transaction::new(), Transaction::then);
            let request = self.request();
            stand.ask(SHARD, ShardBody::Transact { request, transaction }).await;
        }
    }

    /// Grants the lease and puts a key under it.
    async fn hold(&mut self, stand: &Stand, ttl_ms: u64) {
        let granted = self.lease(stand, LeaseCommand::Grant { lease: LEASE, ttl_ms }).await;
        assert!(matches!(granted, Outcome::Lease(LeaseOutcome::Lives { .. })), "{granted:?}");
        let put = Step::Put(Put::new("k", "held").under(LEASE));
        let (request, transaction) = (self.request(), Transaction::new().then(put));
        stand.ask(SHARD, ShardBody::Transact { request, transaction }).await;
    }
}

async fn show(stand: &Stand) -> Option<LeaseView> {
    let body = ShardBody::ShowLease { lease: LEASE, keys: true };
    let ShardResult::Lease(view, _) = stand.ask(SHARD, body).await else { panic!() };
    view
}

/// How many leases there are, page by page.
async fn count(stand: &Stand) -> usize {
    let (mut after, mut count) = (LeaseId(0), 0);
    loop {
        let result = stand.ask(SHARD, ShardBody::ListLeases { after }).await;
        let ShardResult::Leases { leases, more, .. } = result else { panic!("{result:?}") };
        count += leases.len();
        assert!(leases.first().is_none_or(|first| first.lease > after), "a page begins behind");
        match leases.last() {
            Some(last) if more => after = last.lease,
            Some(_) | None => return count,
        }
    }
}

/// Seconds from `since` until the key is gone.
async fn gone_after(stand: &Stand, since: Instant) -> f64 {
    while stand.get(SHARD, "k").await.is_some() {
        assert!(since.elapsed() < Duration::from_mins(2), "it never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    since.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_with_its_keys_when_its_time_is_over_and_not_before() {
    let stand = Stand::start(3, 1).await;
    stand.leader(SHARD).await;
    let mut holder = Holder::new(&stand).await;
    let begun = Instant::now();
    holder.hold(&stand, 7_000).await;
    stand.pass(3).await;
    let view = show(&stand).await.unwrap();
    assert_eq!(view.keys, [b"k"]);
    assert!((3_000..=4_100).contains(&view.remaining_ms), "{view:?}");
    holder.lease(&stand, LeaseCommand::KeepAlive(LEASE)).await;
    let seconds = gone_after(&stand, begun).await;
    assert!((10.0..11.0).contains(&seconds), "it ended after {seconds} s");
    assert_eq!(show(&stand).await, None);
}

#[tokio::test(start_paused = true)]
async fn changes_of_leader_lengthen_a_lease_a_little_and_never_shorten_it() {
    let mut stand = Stand::start(3, 1).await;
    let leader = stand.leader(SHARD).await;
    let mut holder = Holder::new(&stand).await;
    let begun = Instant::now();
    holder.hold(&stand, 20_000).await;
    stand.pass(12).await;
    stand.kill(leader).await;
    stand.leader(SHARD).await;
    let seconds = gone_after(&stand, begun).await;
    // It began no sooner than `begun`, and at most a checkpoint, an election and a
    // look are not counted.
    assert!((20.0..28.0).contains(&seconds), "it ended after {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_shard_at_rest_counts_the_time_of_its_leases_and_sleeps_once_they_are_over() {
    let stand = Stand::start(3, 1).await;
    let leader = stand.leader(SHARD).await;
    let mut holder = Holder::new(&stand).await;
    holder.hold(&stand, 40_000).await;
    stand.pass(39).await;
    assert!(show(&stand).await.is_some());
    stand.pass(3).await;
    let last = stand.node(leader).status(SHARD).unwrap().last;
    assert_eq!(show(&stand).await, None);
    stand.pass(60).await;
    assert_eq!(stand.node(leader).status(SHARD).unwrap().last, last, "nothing more is proposed");
}

#[tokio::test(start_paused = true)]
async fn many_leases_outlive_a_restart_and_end_in_turns_between_which_others_are_served() {
    const LEASES: u64 = 20_500;
    let mut stand = Stand::start(1, 1).await;
    stand.leader(SHARD).await;
    let mut holder = Holder::new(&stand).await;
    holder.grant_all(&stand, 1..=LEASES, 60_000).await;
    holder.put_all(&stand, 1..=2_000).await;
    let (files, engine) = stand.kill(1).await;
    stand.boot(1, files, engine, BTreeMap::new()).await;
    stand.leader(SHARD).await;
    assert_eq!(count(&stand).await as u64, LEASES);
    stand.pass(58).await;
    assert_eq!(count(&stand).await as u64, LEASES, "none is over, whatever a restart did");

    let begun = Instant::now();
    let (mut turns, mut last) = (0, stand.node(1).status(SHARD).unwrap().last.0);
    while count(&stand).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "they live for ever");
        let asked = Instant::now();
        stand.put(SHARD, "other", b"1").await;
        assert!(asked.elapsed() < Duration::from_millis(100), "it waited for the ends of others");
        tokio::time::sleep(Duration::from_millis(40)).await;
        let now = stand.node(1).status(SHARD).unwrap().last.0;
        // One turn, a put, the session of the first one.
        assert!(now - last <= 512 + 2, "{} entries in one turn", now - last);
        turns += u64::from(now - last > 10);
        last = now;
    }
    assert!(turns >= LEASES / 512, "{turns}");
    assert_eq!(stand.get(SHARD, "k1").await, None);
    assert!(stand.get(SHARD, "other").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn leases_with_many_keys_end_a_few_at_a_time() {
    let stand = Stand::start(1, 1).await;
    stand.leader(SHARD).await;
    let mut holder = Holder::new(&stand).await;
    holder.grant_all(&stand, 1..=40, 30_000).await;
    for lease in 1..=40 {
        let put = |number: u32| {
            let key = format!("{lease}/{number}");
            Step::Put(Put::new(key, "held").under(LeaseId(lease)))
        };
        let transaction = (0..1_000).map(put).fold(Transaction::new(), Transaction::then);
        let request = holder.request();
        stand.ask(SHARD, ShardBody::Transact { request, transaction }).await;
    }
    let mut before = count(&stand).await;
    assert_eq!(before, 40);
    while before > 0 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        let left = count(&stand).await;
        assert!(before - left <= 10, "{before} to {left}: 1,000 keys each");
        before = left;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_but_the_leader_itself_may_say_that_a_lease_is_over() {
    let stand = Stand::start(1, 1).await;
    stand.leader(SHARD).await;
    let mut holder = Holder::new(&stand).await;
    holder.hold(&stand, 20_000).await;
    let request = holder.request();
    let command = LeaseCommand::Expire(LEASE);
    let refused = stand.node(1).ask(SHARD, ShardBody::Lease { request, command }).await;
    assert!(refused.unwrap_err().to_string().contains("only its leader"));
}
