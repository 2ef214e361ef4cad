//! The consistency levels, told apart by what they do when something breaks.
//! What each promises is in design terms on `ReadLevel` and `WriteLevel`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use actors::client::Client;
use cluster::{
    auth::Principal,
    ids::{Epoch, NodeId, ShardId},
    mvcc::version::Hlc,
    request::{
        Answer, Fault, ReadLevel, ReplicaStatus, Request, ShardBody, ShardRequest, ShardResult,
        WriteLevel,
    },
    shard::command::Op,
};
use simulation::{
    disk::Death,
    hooks::on_seeded_thread,
    stage::{Stage, VOLUME},
    world::Setup,
};

const SECOND: Duration = Duration::from_secs(1);

/// A stage with one shard of three replicas.
struct Play {
    stage: Stage,
    client: Client,
    shard: ShardId,
}

impl Play {
    fn begin(seed: u64) -> Self {
        let mut stage = Stage::product(&Setup::calm(seed));
        stage.found(1).expect("a cluster");
        let client = stage.client(1);
        let show = client.clone();
        let shown = stage.ask("volume", SECOND * 20, async move { show.show_volume(VOLUME).await });
        let volume = shown.expect("a live world").expect("the volume");
        let shard = *volume.record.shards.first().expect("a shard");
        Self { stage, client, shard }
    }

    /// Asks one node alone: nobody else may answer for it.
    fn ask(&mut self, node: NodeId, body: ShardBody) -> Result<ShardResult, Fault> {
        let request = ShardRequest {
            shard: self.shard,
            epoch: Epoch(u64::MAX),
            clock: Hlc(0),
            timeout_ms: 1_000,
            forwarded: true,
            principal: Principal::Trusted,
            body,
        };
        let request = Request::Shard(request);
        let call = self.stage.door(99).call(Some(node), request.class(), request, SECOND * 2);
        match self.stage.ask("one node", SECOND * 5, call).expect("a live world") {
            Ok(Answer::Shard(answer)) => answer.result,
            Ok(other) => panic!("answered {other:?}"),
            Err(_) => Err(Fault::Timeout),
        }
    }

    fn status(&mut self, node: NodeId) -> Option<ReplicaStatus> {
        match self.ask(node, ShardBody::Inspect) {
            Ok(ShardResult::Replica(status)) => Some(status),
            Ok(_) | Err(_) => None,
        }
    }

    /// Who leads, and the others.
    fn leader(&mut self) -> (NodeId, Vec<NodeId>) {
        let nodes = self.stage.world.nodes();
        for _ in 0..50 {
            let leads = |play: &mut Self, node| {
                play.status(node).filter(|status| status.leading).map(|status| status.term)
            };
            let found = nodes.iter().copied().filter_map(|node| Some((leads(self, node)?, node)));
            if let Some((_, leader)) = found.max() {
                let others = nodes.iter().copied().filter(|node| *node != leader).collect();
                return (leader, others);
            }
            self.stage.pass(SECOND / 5).expect("a live world");
        }
        panic!("nobody leads");
    }

    fn put(&mut self, key: &str, value: &str, level: WriteLevel) -> Duration {
        let client = self.client.clone();
        let op = Op::Put { key: key.into(), value: value.into() };
        let began = self.stage.world.now();
        let put = async move { client.write(VOLUME, vec![op], level).await };
        self.stage.ask("put", SECOND * 30, put).expect("a live world").expect("an acknowledgement");
        self.stage.world.now() - began
    }

    fn get(&mut self, key: &'static str) -> Option<String> {
        let client = self.client.with_deadline(SECOND * 30);
        let get = async move { client.get(VOLUME, key).await };
        let item = self.stage.ask("get", SECOND * 40, get).expect("a live world").expect("a value");
        item.map(|item| String::from_utf8_lossy(&item.value).into_owned())
    }

    fn get_from(&mut self, node: NodeId, key: &str, level: ReadLevel) -> Result<String, Fault> {
        let body = ShardBody::Get { key: key.into(), level, at: None, head_only: false };
        let result = self.ask(node, body)?;
        let ShardResult::Value(Some(item)) = result else { panic!("read {result:?}") };
        Ok(String::from_utf8_lossy(&item.value).into_owned())
    }

    fn write_to(
        &mut self,
        node: NodeId,
        key: &str,
        level: WriteLevel,
    ) -> Result<ShardResult, Fault> {
        let ops = vec![Op::Put { key: key.into(), value: b"blind".to_vec() }];
        self.ask(node, ShardBody::Write { request: None, level, ops })
    }

    fn slow_syncs(&mut self, factor: u32) {
        for node in self.stage.world.nodes() {
            self.stage.world.slow_syncs(node, factor);
        }
    }

    fn power_cycle(&mut self) {
        self.stage.world.crash_all(Death::Power);
        self.stage.pass(SECOND / 10).expect("a live world");
        self.stage.world.start_all();
    }
}

#[test]
fn reads_differ_when_a_leader_is_cut_off() {
    on_seeded_thread(1, || {
        let mut play = Play::begin(1);
        play.put("key", "old", WriteLevel::Strong);
        let (leader, others) = play.leader();
        play.stage.world.partition(&[leader], &others, false);
        play.stage.pass(SECOND * 6).expect("a live world");
        play.put("key", "new", WriteLevel::Strong);

        assert_eq!(play.get("key").as_deref(), Some("new"));
        assert_eq!(play.get_from(leader, "key", ReadLevel::Eventual).as_deref(), Ok("old"));
        let minute = ReadLevel::Bounded { staleness_ms: 60_000 };
        assert_eq!(play.get_from(leader, "key", minute).as_deref(), Ok("old"));
        let short = ReadLevel::Bounded { staleness_ms: 1_000 };
        assert!(play.get_from(leader, "key", short).is_err(), "older than it may be");
        assert!(play.get_from(leader, "key", ReadLevel::Strong).is_err(), "not linearizable");
    });
}

#[test]
fn a_write_in_memory_does_not_wait_for_disks_and_a_strong_one_does() {
    on_seeded_thread(2, || {
        let mut play = Play::begin(2);
        play.put("key", "first", WriteLevel::Strong);
        // A sync takes 20 to 580 ms.
        play.slow_syncs(200);
        let memory = play.put("key", "second", WriteLevel::Memory);
        let eventual = play.put("key", "third", WriteLevel::Eventual);
        let strong = play.put("key", "fourth", WriteLevel::Strong);
        let sync = Duration::from_millis(20);
        assert!(memory < sync, "memory took {memory:?}");
        assert!(eventual < sync, "eventual took {eventual:?}");
        assert!(strong > sync, "strong took {strong:?}");
    });
}

#[test]
fn a_write_in_memory_may_be_lost_with_all_power_and_a_strong_one_never() {
    let mut lost = 0;
    for seed in 0..8 {
        lost += on_seeded_thread(seed, move || {
            let mut play = Play::begin(seed);
            play.put("strong", "kept", WriteLevel::Strong);
            play.slow_syncs(10_000);
            play.put("memory", "perhaps", WriteLevel::Memory);
            play.slow_syncs(1);
            play.power_cycle();
            assert_eq!(play.get("strong").as_deref(), Some("kept"));
            u32::from(play.get("memory").is_none())
        });
    }
    assert!(lost > 0, "memory was as durable as strong: nothing tells them apart");
}

#[test]
fn a_write_in_memory_survives_the_death_of_its_leader() {
    for seed in 0..4 {
        on_seeded_thread(seed, move || {
            let mut play = Play::begin(seed);
            let (leader, _) = play.leader();
            // At most nine seconds: the survivors' votes wait for that sync too.
            play.slow_syncs(3_000);
            play.put("memory", "kept", WriteLevel::Memory);
            play.stage.world.crash(leader, Death::Power);
            play.slow_syncs(1);
            assert_eq!(play.get("memory").as_deref(), Some("kept"));
        });
    }
}

#[test]
fn an_eventual_write_needs_the_leader_alone_and_may_be_lost_with_it() {
    on_seeded_thread(3, || {
        let mut play = Play::begin(3);
        play.put("other", "value", WriteLevel::Strong);
        let (leader, others) = play.leader();
        play.stage.world.partition(&[leader], &others, false);
        let accepted = play.write_to(leader, "eventual", WriteLevel::Eventual);
        assert_eq!(accepted, Ok(ShardResult::Accepted));
        let memory = play.write_to(leader, "memory", WriteLevel::Memory);
        assert!(memory.is_err(), "no majority holds it: {memory:?}");
        play.stage.pass(SECOND * 6).expect("a live world");
        play.put("other", "newer", WriteLevel::Strong);
        play.stage.world.heal();
        play.stage.pass(SECOND * 6).expect("a live world");
        assert_eq!(play.get("other").as_deref(), Some("newer"));
        assert_eq!(play.get("eventual"), None, "the new leader never heard of it");
    });
}
