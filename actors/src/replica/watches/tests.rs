//! Watchers at replicas that lead, follow, die, and are asked by many.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use cluster::{
    auth::Principal,
    ids::{Epoch, ShardId},
    mvcc::version::{Hlc, Version},
    request::{Fault, ShardBody, ShardRequest, ShardResult},
    shard::{
        transaction::Keys,
        watch::{Events, Place, Watch},
    },
};
use tokio::time::Instant;

use crate::{replica::messages::WATCHERS_MAX, router::Router, stand::Stand};

const SHARD: u64 = 100;

async fn ask(router: &Router, watch: &Watch, after: Place, wait_ms: u32) -> Result<Events, Fault> {
    let request = ShardRequest {
        shard: ShardId(SHARD),
        epoch: Epoch(1),
        clock: Hlc(0),
        timeout_ms: wait_ms + 1_000,
        forwarded: true,
        principal: Principal::Trusted,
        body: ShardBody::Watch { watch: watch.clone(), after, wait_ms },
    };
    let result = router.shard(request).await.result?;
    let ShardResult::Events(events) = result else { panic!("{result:?}") };
    Ok(events)
}

fn keys(events: &Events) -> Vec<String> {
    events.events.iter().map(|event| String::from_utf8_lossy(&event.item.key).into()).collect()
}

/// The place after everything that was written so far.
async fn now(stand: &Stand) -> Place {
    Place::after(stand.get(SHARD, "k").await.map_or(Version(0), |item| item.modified))
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_at_once_by_leader_and_follower_and_only_of_its_keys() {
    let mut stand = Stand::start(3, 1).await;
    let leader = stand.leader(SHARD).await;
    stand.put(SHARD, "k", b"1").await;
    let after = now(&stand).await;
    let waiting: Vec<_> = (1..=3)
        .map(|number| {
            let router = stand.node(number).router.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let watch = Watch::of(Keys::prefix("a")).with_previous();
                let told = ask(&router, &watch, after, 20_000).await.unwrap();
                (told, begun.elapsed())
            })
        })
        .collect();
    stand.pass(1).await;
    stand.put(SHARD, "b", b"1").await;
    stand.pass(1).await;
    stand.put(SHARD, "ab", b"1").await;
    for (number, told) in (1..).zip(waiting) {
        let (told, elapsed) = told.await.unwrap();
        assert_eq!(keys(&told), ["ab"], "of node {number}, {leader} leads");
        // Followers learn of a commit sooner than with a heartbeat.
        assert!((2_000..2_020).contains(&elapsed.as_millis()), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_progress_and_what_came_before_the_question_is_told_at_once() {
    let mut stand = Stand::start(1, 1).await;
    stand.leader(SHARD).await;
    for name in ["k", "x", "k"] {
        stand.put(SHARD, name, b"1").await;
    }
    let router = stand.node(1).router.clone();
    let all = ask(&router, &Watch::of("k"), Place::default(), 5_000).await.unwrap();
    assert_eq!(keys(&all), ["k", "k"]);
    let begun = Instant::now();
    let writer = async {
        stand.pass(1).await;
        stand.put(SHARD, "y", b"1").await;
    };
    let watch = Watch::of("k");
    let (told, ()) = tokio::join!(ask(&router, &watch, all.upto, 5_000), writer);
    let told = told.unwrap();
    assert!(told.events.is_empty() && told.upto > all.upto && !told.more);
    let waited = begun.elapsed().as_millis();
    assert!((5_000..6_200).contains(&waited), "after {waited} ms");
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_dying_nodes_tells_everything_once_in_order() {
    let mut stand = Stand::start(3, 1).await;
    let first = stand.leader(SHARD).await;
    let (mut place, mut seen) = (Place::default(), Vec::new());
    let watch = Watch::of(Keys::range("", ""));
    for round in 0..30_u32 {
        stand.put(SHARD, &format!("k{round:02}"), b"1").await;
        if round == 10 {
            stand.kill(first).await;
        }
        let numbers: Vec<u64> =
            stand.nodes.keys().map(|node| u64::try_from(node.0).unwrap()).collect();
        let number = numbers[round as usize % numbers.len()];
        let router = stand.node(number).router.clone();
        if let Ok(told) = ask(&router, &watch, place, 100).await {
            seen.extend(keys(&told));
            place = told.upto;
        }
    }
    let router = stand.node(stand.leader(SHARD).await).router.clone();
    seen.extend(keys(&ask(&router, &watch, place, 100).await.unwrap()));
    let wanted: Vec<_> = (0..30).map(|round| format!("k{round:02}")).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait_and_those_whose_asker_left_make_room() {
    let stand = Stand::start(1, 1).await;
    stand.leader(SHARD).await;
    let router = stand.node(1).router.clone();
    let watch = Arc::new(Watch::of("k"));
    let wait = |router: Router| {
        let watch = Arc::clone(&watch);
        tokio::spawn(async move { ask(&router, &watch, Place::default(), 20_000).await })
    };
    let crowd: Vec<_> = (0..WATCHERS_MAX).map(|_| wait(router.clone())).collect();
    stand.pass(1).await;
    let refused = ask(&router, &watch, Place::default(), 20_000).await;
    assert!(matches!(refused, Err(Fault::Busy { .. })), "{refused:?}");
    // Reads and writes have room of their own.
    assert_eq!(stand.get(SHARD, "k").await, None);
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(ask(&router, &watch, Place::default(), 100).await.is_ok());
}
