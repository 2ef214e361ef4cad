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
    fn holds(&mut self, key: &str, there: bool) {
        let (client, asked) = (self.client.clone(), key.to_owned());
        let get = async move { client.get(VOLUME, &asked).await };
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

#[test]
fn deleting_keys_makes_room_by_itself_and_loses_nothing_else() {
    /// What the stores of a machine may take, of which each keeps 8 MiB free
    /// once their device has only its reserve left.
    const SMALL_BYTES: u64 = 48 << 20;
    for seed in 0..2 {
        on_seeded_thread(seed, move || {
            let mut play = Play::begin(seed);
            let nodes = play.stage.world.nodes();
            for node in &nodes {
                play.stage.world.storage(*node).expect("a machine").offer(SMALL_BYTES);
            }
            let mut written = 0;
            while play.put(&written.to_string()).is_ok() {
                written += 1;
                play.stage.pass(SECOND / 2).expect("a live world");
                assert!(written < 300, "it never fills");
            }
            assert!(written > 20, "full after {written} values");
            for number in written / 2..written {
                play.write(Op::Delete { key: number.to_string().into() }).expect("a delete");
            }
            // Five seconds in which old versions stay, then the sweep.
            let waited = (0..60).find(|_| {
                play.stage.pass(SECOND).expect("a live world");
                play.put("again").is_ok()
            });
            println!("seed {seed}: {written} values filled it, room after {waited:?} s");
            assert!(waited.is_some_and(|seconds| seconds < 30), "{waited:?}");
            // It is real room, less what the two stores keep free; old versions
            // go one after the other.
            for number in 0..written / 10 {
                let fits = (0..10).any(|tries| {
                    play.stage.pass(SECOND * tries).expect("a live world");
                    play.put(&format!("new {number}")).is_ok()
                });
                assert!(fits, "no room for value {number}");
            }
            play.stage.world.crash_all(Death::Power);
            play.stage.world.start_all();
            play.holds("again", true);
            for number in 0..written {
                play.holds(&number.to_string(), number < written / 2);
            }
        });
    }
}
