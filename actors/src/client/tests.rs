//! The client against a small true cluster with scripted faults, in paused time.

mod model;

use std::{sync::Arc, time::Duration};

use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    codes::ErrorCode,
    ids::{Epoch, NodeId},
    mvcc::version::{Hlc, Version},
    ports::entropy::Entropy,
    request::{Fault, ReadLevel, WriteLevel},
    routing::Cursor,
    shard::{
        command::Op,
        range::{Range, RangeResult, SortBy, TooLarge},
        transaction::{Compare, Keys, Step, StepResult, Transaction, item_bytes},
    },
    units::WallTime,
};
use futures_util::future::join_all;
use model::{Dice, Mishap, Model, NODES};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{Client, ClientError, ListOptions, Room};

fn hash_volume() -> (Model, Client) {
    let model = Model::with_volume("data", VolumeKind::Hash, 4);
    let client = model.client();
    (model, client)
}

fn executed(model: &Model, key: &str) -> u32 {
    model.state().executed.get(key.as_bytes()).copied().unwrap_or(0)
}

async fn keys(client: &Client, prefix: &str, options: ListOptions) -> Vec<String> {
    let mut listing = client.list("data", prefix, options);
    let mut keys = Vec::new();
    while let Some(page) = listing.next_page().await.unwrap() {
        keys.extend(page.items.into_iter().map(|item| String::from_utf8(item.key).unwrap()));
    }
    keys
}

#[tokio::test(start_paused = true)]
async fn what_is_put_is_read_until_it_is_deleted() {
    let (_, client) = hash_volume();
    let written = client.put("data", "hello", "world").await.unwrap();
    let item = client.get("data", "hello").await.unwrap().unwrap();
    assert_eq!((item.value.as_slice(), Some(item.modified)), (&b"world"[..], written.version));
    assert_eq!(client.delete("data", "hello").await.unwrap().deleted, 1);
    assert_eq!(client.stat("data", "hello").await.unwrap(), None);
    assert_eq!(client.delete("data", "hello").await.unwrap().deleted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_knows_no_cluster_yet_costs_a_pause() {
    let (model, client) = hash_volume();
    let shown = std::mem::replace(&mut model.state().show_to, Version(0));
    let reading = tokio::spawn(async move { client.get("data", "hello").await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!reading.is_finished());
    model.state().show_to = shown;
    assert_eq!(reading.await.unwrap(), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn who_has_the_turn_to_refresh_and_stands_still_keeps_nobody_from_learning() {
    let (_, client) = hash_volume();
    let _turn = client.shared.refreshing.lock().await;
    let learnt = timeout(Duration::from_secs(5), client.get("data", "hello")).await;
    assert_eq!(learnt, Ok(Ok(None)));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_replicas_for_their_leader_hears_it_from_the_one_that_knows() {
    let model = Model::with_volume("one", VolumeKind::Single, 1);
    let client = model.client().with_deadline(Duration::from_secs(1));
    for (knows, dead) in [(0, 1), (1, 2), (2, 0)] {
        model.state().unaware = NODES.into_iter().filter(|node| *node != NODES[knows]).collect();
        model.state().dead = [NODES[dead]].into();
        for _ in 0..10 {
            assert!(client.inspect("one").await.unwrap().leader.is_some());
        }
    }
    model.state().unaware = NODES.into();
    let none = client.inspect("one").await.unwrap();
    assert_eq!((none.leader, none.term), (None, 3), "what is known all the same");
    model.state().dead = NODES.into();
    client.inspect("one").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_executed_once() {
    let mishaps = [
        Mishap::After(Fault::Interrupted),
        Mishap::After(Fault::Timeout),
        Mishap::Silence,
        Mishap::Lost,
    ];
    for mishap in mishaps {
        let (model, client) = hash_volume();
        model.state().mishaps.push_back(mishap.clone());
        client.put("data", "once", "x").await.unwrap();
        assert_eq!(executed(&model, "once"), 1, "{mishap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_executed_once_under_any_run_of_faults() {
    for seed in 0..40 {
        let (model, client) = hash_volume();
        let dice = Dice::new(seed);
        let writes = (0..30).map(|number| {
            let key = format!("k{number}");
            let client = client.clone();
            async move { client.put("data", &key, "x").await.unwrap() }
        });
        for _ in 0..40 {
            let mishap = match dice.next_u64() % 7 {
                0 => Mishap::Before(Fault::NotLeader { leader: None }),
                1 => Mishap::Before(Fault::NotLeader { leader: Some(NodeId(2)) }),
                2 => Mishap::Before(Fault::Busy { retry_after_ms: 30 }),
                3 => Mishap::After(Fault::Interrupted),
                4 => Mishap::After(Fault::Timeout),
                5 => Mishap::Lost,
                _ => Mishap::Before(Fault::Stopped("damage".into())),
            };
            model.state().mishaps.push_back(mishap);
        }
        join_all(writes).await;
        for number in 0..30 {
            assert_eq!(executed(&model, &format!("k{number}")), 1, "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_election_is_a_pause_and_no_error() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    let began = Instant::now();
    model.state().leaderless_until = Some(began + Duration::from_secs(3));
    client.put("data", "a", "2").await.unwrap();
    let pause = began.elapsed();
    assert!(pause >= Duration::from_secs(3), "{pause:?}");
    assert!(pause < Duration::from_millis(3_600), "{pause:?}");
    assert_eq!(client.get("data", "a").await.unwrap().unwrap().value, b"2");
}

#[tokio::test(start_paused = true)]
async fn tries_during_an_election_are_few() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    let before = model.state().calls.len();
    model.state().leaderless_until = Some(Instant::now() + Duration::from_secs(3));
    client.put("data", "a", "2").await.unwrap();
    let calls = model.state().calls.len() - before;
    assert!(calls < 120, "{calls} calls in three seconds");
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_left_for_the_new_one() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    let dead = NodeId(2);
    {
        let mut state = model.state();
        state.dead.insert(dead);
        for leader in state.leaders.values_mut().filter(|leader| **leader == dead) {
            *leader = NodeId(3);
        }
    }
    for number in 0..20 {
        client.put("data", &format!("k{number}"), "x").await.unwrap();
    }
    assert_eq!(keys(&client, "k", ListOptions::default()).await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_the_deadline_ends_it_and_says_so() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    let began = Instant::now();
    model.state().leaderless_until = Some(began + Duration::from_mins(1));
    let error = client.put("data", "a", "2").await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(error.code(), ErrorCode::NoQuorum);
    assert!(error.is_retryable());
    assert!(!error.cause().contains("executed"), "{}", error.cause());
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_at_the_deadline_says_so() {
    let (model, client) = hash_volume();
    for _ in 0..100 {
        model.state().mishaps.push_back(Mishap::Silence);
    }
    let error = client.put("data", "a", "2").await.unwrap_err();
    assert!(error.cause().contains("may have been executed"), "{}", error.cause());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_down_is_unreachable_and_not_without_quorum() {
    let (model, client) = hash_volume();
    model.state().dead.extend(NODES);
    let error = client.get("data", "a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_that_expired_is_renewed_in_silence() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    model.state().mishaps.push_back(Mishap::Expire);
    client.put("data", "a", "2").await.unwrap();
    assert_eq!(executed(&model, "a"), 2);
    assert_eq!(model.state().sessions_opened, 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_expired_under_a_write_in_doubt_is_an_unknown_outcome() {
    let (model, client) = hash_volume();
    model.state().mishaps.extend([Mishap::Lost, Mishap::Expire]);
    let error = client.put("data", "a", "1").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownOutcome);
    assert!(error.to_string().starts_with("unknown outcome"), "{error}");
    assert_eq!(executed(&model, "a"), 1);
    client.put("data", "a", "2").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn more_writes_than_one_session_takes_run_at_once() {
    let (model, client) = hash_volume();
    let writes = (0..600).map(|number| {
        let client = client.clone();
        async move { client.put("data", &format!("k{number}"), "x").await }
    });
    let began = Instant::now();
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    assert!(began.elapsed() < Duration::from_millis(60), "{:?}", began.elapsed());
    assert!((0..600).all(|number| executed(&model, &format!("k{number}")) == 1));
    let opened = model.state().sessions_opened;
    assert!((8..=16).contains(&opened), "{opened} sessions");
}

#[tokio::test(start_paused = true)]
async fn a_write_given_up_by_its_caller_frees_its_number() {
    let (model, client) = hash_volume();
    client.put("data", "k", "0").await.unwrap();
    for number in 0..200 {
        model.state().mishaps.push_back(Mishap::Silence);
        let put = client.put("data", "k", format!("{number}"));
        assert!(timeout(Duration::from_millis(50), put).await.is_err());
    }
    client.put("data", "k", "last").await.unwrap();
    assert_eq!(model.state().sessions_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_epoch_is_learnt_from_the_shard_itself() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    for shard in model.state().shards.values_mut() {
        shard.epoch = Epoch(5);
    }
    let refreshes = model.state().calls.len();
    client.put("data", "a", "2").await.unwrap();
    assert!(model.state().calls.len() <= refreshes + 2);
    client.get("data", "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_catalog_is_asked_again_when_a_node_has_no_such_replica() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    let shard = model.state().shards[&cluster::ids::ShardId(11)].shard;
    model.state().mishaps.push_back(Mishap::Before(Fault::NoReplica(shard)));
    client.put("data", "a", "2").await.unwrap();
    assert_eq!(executed(&model, "a"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_volume_is_named_with_the_command_that_makes_it() {
    let (_, client) = hash_volume();
    let error = client.get("nope", "a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownVolume);
    assert!(error.fix().contains("cdb volume create nope"), "{}", error.fix());
}

#[tokio::test(start_paused = true)]
async fn limits_are_named_before_anything_is_sent() {
    let (model, client) = hash_volume();
    let long = client.put("data", &"k".repeat(1_025), "x").await.unwrap_err();
    assert!(long.to_string().contains("1,024"), "{long}");
    let big = client.put("data", "k", vec![0; (4 << 20) + 1]).await.unwrap_err();
    assert!(big.to_string().contains("4.0 MiB"), "{big}");
    assert_eq!(client.get("data", "").await.unwrap_err(), ClientError::EmptyKey);
    let many = (0..1_025).map(|n| Op::Delete { key: format!("{n}").into() }).collect();
    let error = client.write("data", many, WriteLevel::Strong).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadBatch);
    assert!(model.state().calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_over_shards_says_that_it_is_not_atomic() {
    let (model, client) = hash_volume();
    let ops = || (0..40).map(|n| Op::Put { key: format!("k{n}").into(), value: vec![1] }).collect();
    let written = client.batch("data", ops(), WriteLevel::Strong).await.unwrap();
    assert_eq!(written.parts.len(), 4);
    assert!(!written.is_atomic());
    let full = Fault::DiskFull { node: NodeId(1), percent_used: 97 };
    model.state().mishaps.push_back(Mishap::Before(full));
    let error = client.batch("data", ops(), WriteLevel::Strong).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DiskFull);
    assert!(error.to_string().starts_with("3 of 4 shards"), "{error}");
}

fn take(key: &str, owner: &str) -> Transaction {
    let free = Transaction::new().when(Compare::absent(key));
    free.then(Step::put(key, owner)).then(Step::get(key)).otherwise(Step::get(key))
}

fn owner(results: Option<&Vec<StepResult>>) -> &[u8] {
    let Some(StepResult::Read(RangeResult { items, .. })) = results.and_then(|r| r.last()) else {
        panic!("{results:?}")
    };
    &items[0].value
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_answer_is_lost_is_executed_once_and_answered_as_the_first_time() {
    for mishap in [Mishap::After(Fault::Interrupted), Mishap::Silence, Mishap::Lost] {
        let (model, client) = hash_volume();
        model.state().mishaps.push_back(mishap.clone());
        let done = client.transact("data", take("lock", "me")).await.unwrap();
        assert!(done.succeeded && done.changed, "{mishap:?}: a retry must not find the lock taken");
        assert_eq!(owner(done.results.as_ref()), b"me");
        assert_eq!(executed(&model, "lock"), 1);
        let missed = client.transact("data", take("lock", "other")).await.unwrap();
        assert!(!missed.succeeded && !missed.changed);
        assert_eq!(owner(missed.results.as_ref()), b"me");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_crowded_out_is_asked_again_unless_something_was_changed() {
    let (model, client) = hash_volume();
    client.put("data", "lock", "me").await.unwrap();
    model.state().mishaps.push_back(Mishap::Crowded);
    let missed = client.transact("data", take("lock", "other")).await.unwrap();
    assert_eq!(owner(missed.results.as_ref()), b"me");
    model.state().mishaps.push_back(Mishap::Crowded);
    let error = client.transact("data", take("free", "me")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AnswerLost);
    assert_eq!(executed(&model, "free"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_over_shards_is_refused_and_says_so() {
    let (model, client) = hash_volume();
    let over = (0..40).fold(Transaction::new(), |all, n| all.then(Step::put(format!("k{n}"), "x")));
    let range = Transaction::new().then(Step::delete(Keys::prefix("k")));
    for spans in [over, range] {
        let error = client.transact("data", spans).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadTransaction);
        assert!(error.to_string().contains("several shards of volume data"), "{error}");
    }
    let twice = Transaction::new().then(Step::put("a", "1")).then(Step::put("a", "2"));
    let error = client.transact("data", twice).await.unwrap_err();
    assert!(error.to_string().contains("duplicate key given in txn request"), "{error}");
    assert_eq!(model.state().sessions_opened, 0, "nothing was sent to a shard");
}

#[tokio::test(start_paused = true)]
async fn a_list_over_shards_is_in_order_and_a_cut() {
    let (_, client) = hash_volume();
    for number in 0..50 {
        client.put("data", &format!("k{number:02}"), "x").await.unwrap();
    }
    client.put("data", "other", "x").await.unwrap();
    let mut listing = client.list("data", "k", ListOptions { page: 7, ..ListOptions::default() });
    let first = listing.next_page().await.unwrap().unwrap();
    assert_eq!(first.items.len(), 7);
    client.put("data", "k20-late", "x").await.unwrap();
    client.delete("data", "k30").await.unwrap();
    let mut names: Vec<Vec<u8>> = first.items.into_iter().map(|item| item.key).collect();
    while let Some(page) = listing.next_page().await.unwrap() {
        names.extend(page.items.into_iter().map(|item| item.key));
    }
    let expected: Vec<Vec<u8>> = (0..50).map(|n| format!("k{n:02}").into_bytes()).collect();
    assert_eq!(names, expected);
}

#[tokio::test(start_paused = true)]
async fn a_cut_waits_for_the_word_of_a_shard_that_changed() {
    let (model, lister) = hash_volume();
    assert_eq!(keys(&lister, "k", ListOptions::default()).await, [""; 0]);
    // Clocks of leaders that are ahead of the lister's.
    model.state().last = Hlc::at(WallTime(9_000)).0;
    let writer = model.client();
    for number in 0..20 {
        writer.put("data", &format!("k{number:02}"), "x").await.unwrap();
    }
    for shard in model.state().shards.values_mut() {
        shard.epoch = Epoch(5);
    }
    assert_eq!(keys(&lister, "k", ListOptions::default()).await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_list_goes_on_from_its_token_in_another_client() {
    for kind in [VolumeKind::Hash, VolumeKind::Single] {
        let model = Model::with_volume("data", kind, 3);
        let client = model.client();
        for number in 0..20 {
            client.put("data", &format!("k{number:02}"), "x").await.unwrap();
        }
        let mut listing =
            client.list("data", "", ListOptions { page: 8, ..ListOptions::default() });
        let cursor = listing.next_page().await.unwrap().unwrap().next.unwrap();
        client.put("data", "k15-late", "x").await.unwrap();
        let from = Some(Cursor::from_token(&cursor.to_token()).unwrap());
        let rest = keys(&model.client(), "", ListOptions { from, ..ListOptions::default() }).await;
        let expected: Vec<String> = (8..20).map(|n| format!("k{n:02}")).collect();
        assert_eq!(rest, expected, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_one_empty_page() {
    let (_, client) = hash_volume();
    let mut listing = client.list("data", "none/", ListOptions::default());
    let page = listing.next_page().await.unwrap().unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
    assert_eq!(listing.next_page().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn only_a_sorted_range_that_does_not_fit_is_asked_page_by_page() {
    let model = Model::with_volume("data", VolumeKind::Single, 1);
    let client = model.client();
    for key in ["a", "c", "b"] {
        client.put("data", key, "").await.unwrap();
    }
    let last = async |hears: Option<Fault>| {
        model.state().sorted = hears;
        model.state().calls.clear();
        let last = Range::of(Keys::prefix("")).sorted(SortBy::Modified, true).limit(1);
        let read = client.range("data", last, ReadLevel::Strong).await;
        (read.map(|read| read.result.items), model.state().calls.len())
    };
    let (found, calls) = last(None).await;
    let found = found.unwrap();
    assert_eq!((found[0].key.as_slice(), found.len(), calls), (&b"b"[..], 1, 1));
    let (read, calls) = last(Some(Fault::TooLarge(TooLarge { bytes_max: 1 }))).await;
    assert_eq!((read.unwrap(), calls), (found, 2));
    let (refused, calls) = last(Some(Fault::Invalid("a bound is too long".into()))).await;
    assert_eq!((refused.unwrap_err().code(), calls), (ErrorCode::InvalidRequest, 1));
}

/// It was told *compacted*, which is for who names a version.
#[tokio::test(start_paused = true)]
async fn a_range_of_now_whose_version_is_let_go_of_between_two_answers_begins_anew() {
    let model = Model::with_volume("data", VolumeKind::Single, 1);
    let client = model.client();
    for key in ["a", "b", "c"] {
        client.put("data", key, "").await.unwrap();
    }
    model.state().page_keys = 2;
    let all = Range::of(Keys::prefix(""));
    let read = async |range: Range, let_go| {
        model.state().let_go = let_go;
        model.state().calls.clear();
        let read = client.range("data", range, ReadLevel::Strong).await;
        (read.map(|read| read.result.items.len()), model.state().calls.len())
    };
    let (found, calls) = read(all.clone(), 0).await;
    assert_eq!((found.unwrap(), calls), (3, 2), "the one that answered is asked again");
    let (found, calls) = read(all.clone(), 2).await;
    assert_eq!((found.unwrap(), calls), (3, 6), "the first page anew, each time");
    let (named, _) = read(all.clone().at(Version(2)), 1).await;
    assert_eq!(named.unwrap_err().code(), ErrorCode::Compacted);
    let room = Arc::new(Room::of(Arc::new(Semaphore::new(64 << 20))));
    model.state().let_go = 3;
    let within = client.within(room.clone()).range("data", all, ReadLevel::Strong).await;
    assert_eq!(room.taken(), within.unwrap().result.items.iter().map(item_bytes).sum::<usize>());
}

#[tokio::test(start_paused = true)]
async fn an_eventual_read_is_served_without_a_leader() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    model.state().leaderless_until = Some(Instant::now() + Duration::from_mins(1));
    let began = Instant::now();
    let item = client.read("data", "a", ReadLevel::Eventual, None, false).await.unwrap();
    assert_eq!(item.unwrap().value, b"1");
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn the_weaker_write_levels_return_no_version() {
    let (model, client) = hash_volume();
    let op = || vec![Op::Put { key: b"a".to_vec(), value: vec![1] }];
    for level in [WriteLevel::Memory, WriteLevel::Eventual] {
        assert_eq!(client.write("data", op(), level).await.unwrap().version, None);
    }
    assert_eq!(model.state().sessions_opened, 0);
}

#[tokio::test(start_paused = true)]
async fn creating_a_volume_waits_for_its_leaders() {
    let model = Model::new();
    let client = model.client();
    model.state().leaderless_until = Some(Instant::now() + Duration::from_secs(2));
    let policy = VolumePolicy::new(VolumeKind::Hash, 3, 8);
    let began = Instant::now();
    let view = client.create_volume("new", policy.clone()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(view.shards.len(), 8);
    client.put("new", "a", "1").await.unwrap();
    let again = client.create_volume("new", policy).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::VolumeExists);
    client.delete_volume("new").await.unwrap();
    assert_eq!(client.get("new", "a").await.unwrap_err().code(), ErrorCode::UnknownVolume);
    let gone = client.delete_volume("new").await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::UnknownVolume);
}

#[tokio::test(start_paused = true)]
async fn a_volume_made_by_another_client_is_found_though_the_map_is_old() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    let policy = VolumePolicy::new(VolumeKind::Single, 3, 1);
    model.client().create_volume("late", policy).await.unwrap();
    client.put("late", "a", "1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_answers_is_brought_along() {
    let (_, client) = hash_volume();
    let written = client.put("data", "a", "1").await.unwrap();
    assert!(Version(client.clock().0) >= written.version.unwrap());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_sessions() {
    let (model, client) = hash_volume();
    client.put("data", "a", "1").await.unwrap();
    client.close().await;
    client.put("data", "a", "2").await.unwrap();
    assert_eq!(model.state().sessions_opened, 2);
}
