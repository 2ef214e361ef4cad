//! Disks without room: one, then all, then room again. The same with real file
//! systems is `node/tests/full_disk.rs`, which needs root.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use actors::client::{Client, ClientError};
use cluster::{
    ids::NodeId,
    request::{Fault, WriteLevel},
    shard::command::Op,
};
use simulation::{
    disk::Death,
    hooks::on_seeded_thread,
    stage::{Stage, VOLUME},
    world::Setup,
};

const SECOND: Duration = Duration::from_secs(1);
/// Time in which a gauge is surely read.
const LOOK: Duration = Duration::from_secs(3);
/// Large enough that some of them begin a new segment of the log.
const VALUE_BYTES: usize = 200_000;

struct Play {
    stage: Stage,
    client: Client,
}

impl Play {
    fn begin(seed: u64) -> Self {
        let mut stage = Stage::product(&Setup::calm(seed));
        stage.found(2).expect("a cluster");
        let client = stage.client(1);
        Self { stage, client }
    }

    fn fill(&mut self, nodes: &[NodeId], full: bool) {
        for node in nodes {
            self.stage.world.storage(*node).expect("a machine").fill(full);
        }
        self.stage.pass(LOOK).expect("a live world");
    }

    fn write(&mut self, op: Op) -> Result<(), ClientError> {
        let client = self.client.clone();
        let write = async move { client.write(VOLUME, vec![op], WriteLevel::Strong).await };
        self.stage.ask("write", SECOND * 30, write).expect("a live world").map(drop)
    }

    fn put(&mut self, key: &str) -> Result<(), ClientError> {
        self.write(Op::Put { key: key.into(), value: value(key) })
    }

    #[track_caller]
    fn holds(&mut self, key: &'static str, there: bool) {
        let client = self.client.clone();
        let get = async move { client.get(VOLUME, key).await };
        let item = self.stage.ask("get", SECOND * 30, get).expect("a live world").expect("a read");
        assert_eq!(item.map(|item| item.value), there.then(|| value(key)), "{key}");
    }
}

fn value(key: &str) -> Vec<u8> {
    key.as_bytes().iter().copied().cycle().take(VALUE_BYTES).collect()
}

#[test]
fn one_full_disk_is_led_around_and_catches_up_once_it_has_room() {
    for seed in 0..3 {
        on_seeded_thread(seed, move || {
            let mut play = Play::begin(seed);
            let nodes = play.stage.world.nodes();
            play.put("before").expect("room");
            for full in nodes {
                play.fill(&[full], true);
                for number in 0..20 {
                    play.put(&format!("{full} {number}")).expect("two disks have room");
                }
                play.holds("before", true);
                play.fill(&[full], false);
            }
            play.stage.world.crash_all(Death::Power);
            play.stage.world.start_all();
            play.holds("before", true);
        });
    }
}

#[test]
fn full_disks_refuse_puts_and_still_read_and_delete_and_write_again_later() {
    for seed in 0..3 {
        on_seeded_thread(seed, move || {
            let mut play = Play::begin(seed);
            let nodes = play.stage.world.nodes();
            play.put("kept").expect("room");
            play.put("doomed").expect("room");
            play.fill(&nodes, true);
            let refused = play.put("refused").expect_err("no room");
            let ClientError::Fault { fault: Fault::DiskFull { node, percent_used }, .. } = refused
            else {
                panic!("refused with {refused:?}")
            };
            assert!(nodes.contains(&node) && percent_used == 100, "{node} {percent_used}");
            play.write(Op::Delete { key: b"doomed".to_vec() }).expect("a delete");
            play.holds("doomed", false);
            play.holds("kept", true);
            play.holds("refused", false);

            play.fill(&nodes, false);
            play.put("after").expect("room");
            play.stage.world.crash_all(Death::Power);
            play.stage.world.start_all();
            for (key, there) in [("after", true), ("kept", true), ("doomed", false)] {
                play.holds(key, there);
            }
        });
    }
}
