//! How long a writer waits when the leader of its shard dies. The same with
//! real processes is `node/tests/scripts/failover_pause`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use actors::client::Client;
use cluster::ids::NodeId;
use simulation::{
    disk::Death,
    hooks::on_seeded_thread,
    stage::{Stage, VOLUME},
    world::Setup,
};

const SECOND: Duration = Duration::from_secs(1);
const KILLS: u32 = 15;

struct Play {
    stage: Stage,
    client: Client,
}

impl Play {
    fn begin(seed: u64) -> Self {
        let mut stage = Stage::product(&Setup::calm(seed));
        stage.found(1).expect("a cluster");
        let client = stage.client(1);
        Self { stage, client }
    }

    /// Writes, and says how long that took.
    fn put(&mut self) -> Duration {
        let client = self.client.clone();
        let began = self.stage.world.now();
        let put = async move { client.put(VOLUME, "key", "value").await };
        self.stage.ask("put", SECOND * 30, put).expect("a live world").expect("a write");
        self.stage.world.now() - began
    }

    /// Who answered the last write.
    fn leader(&mut self) -> NodeId {
        let client = self.client.clone();
        let show = async move { client.show_volume(VOLUME).await };
        let shown = self.stage.ask("volume", SECOND * 20, show).expect("a live world");
        shown.expect("the volume").leaders[0].expect("a leader that answered")
    }

    /// The pause when the leader is killed.
    fn kill(&mut self) -> Duration {
        self.put();
        let leader = self.leader();
        self.stage.world.crash(leader, Death::Kill);
        let pause = self.put();
        self.stage.world.start(leader);
        self.stage.pass(SECOND * 4).expect("a live world");
        pause
    }
}

#[test]
fn a_writer_waits_about_a_second_for_the_successor_of_a_killed_leader() {
    let mut pauses: Vec<_> = on_seeded_thread(1, || {
        let mut play = Play::begin(1);
        (0..KILLS).map(|_| play.kill()).collect()
    });
    pauses.sort();
    let (median, longest) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    // Now and then votes split, and the second round takes as long again.
    assert!(median <= SECOND && longest <= SECOND * 3, "{pauses:?}");
}
