//! Leases under a leader that keeps time, dies, or has no quorum.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use cluster::{
    ids::{LeaseId, SessionId},
    request::{ShardBody, ShardResult},
    shard::{
        command::{Outcome, SessionRequest},
        leases::{LeaseCommand, LeaseOutcome, LeaseView},
        transaction::{Put, Step, Transaction},
    },
};
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
