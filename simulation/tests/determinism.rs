//! Same seed, same trace: proved with actors that do everything a careless
//! author might (hash map order, unbiased races, timers, requests). Each run is
//! a process of its own, as the binary's are: see `simulation::hooks`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{collections::HashMap, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{
    ids::NodeId,
    ports::network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use simulation::{
    disk::Death,
    hooks::on_seeded_thread,
    network::Weather,
    node::{Parts, Resident},
    world::{Setup, World},
};

/// Spreads rumours: each node tells random ones to random peers.
#[derive(Debug)]
struct Gossips;

#[derive(Debug)]
enum Hear {
    Tick,
    Rumour(u64),
    Link(NodeId, bool),
}

struct Gossip {
    parts: Parts,
    /// A hash map on purpose: its order reaches what is sent.
    heard: HashMap<u64, u32>,
}

#[derive(Debug)]
struct Teller;

impl Actor for Teller {
    type Msg = Hear;
    type State = Gossip;
    type Arguments = Parts;

    async fn pre_start(
        &self,
        me: ActorRef<Hear>,
        parts: Parts,
    ) -> Result<Gossip, ActorProcessingErr> {
        for node in &parts.nodes {
            parts.network.learn(*node, Vec::new());
        }
        me.send_interval(Duration::from_millis(7), || Hear::Tick);
        Ok(Gossip { parts, heard: HashMap::new() })
    }

    async fn handle(
        &self,
        _me: ActorRef<Hear>,
        message: Hear,
        state: &mut Gossip,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Hear::Rumour(rumour) => *state.heard.entry(rumour).or_default() += 1,
            Hear::Link(peer, up) => state.parts.diary.note(&format!("sees {peer} {up}")),
            Hear::Tick => state.tell(),
        }
        Ok(())
    }
}

impl Gossip {
    fn tell(&mut self) {
        let fresh = self.parts.entropy.next_u64() % 1_000;
        self.heard.insert(fresh, 0);
        let Some((rumour, times)) = self.heard.iter().next() else { return };
        self.parts.diary.mix(&times.to_le_bytes());
        let bytes = Bytes::copy_from_slice(&rumour.to_le_bytes());
        for node in &self.parts.nodes {
            let _ = self.parts.network.send(*node, Lane::Raft, bytes.clone());
        }
        if self.heard.len().is_multiple_of(10) {
            self.ask();
        }
    }

    /// Asks two nodes at once and takes whoever is first, unbiased.
    fn ask(&self) {
        let (network, diary) = (self.parts.network.clone(), self.parts.diary.clone());
        let nodes = self.parts.nodes.clone();
        tokio::spawn(async move {
            let ask = |node| {
                network.request(node, RequestClass::Data, Bytes::new(), Duration::from_millis(900))
            };
            let (first, second) = (ask(nodes[0]), ask(nodes[1]));
            let line = tokio::select! {
                answer = first => format!("first {answer:?}"),
                answer = second => format!("second {answer:?}"),
            };
            diary.note(&line);
        });
    }
}

#[derive(Debug)]
struct Door(ActorRef<Hear>);

impl Inbound for Door {
    fn message(&self, _from: NodeId, _lane: Lane, message: Bytes) {
        let mut rumour = [0; 8];
        rumour.copy_from_slice(&message);
        let _ = self.0.cast(Hear::Rumour(u64::from_le_bytes(rumour)));
    }

    fn request(&self, _from: Peer, _class: RequestClass, _body: Bytes) -> BoxFuture<Bytes> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            Bytes::from_static(b"yes")
        })
    }

    fn link(&self, peer: NodeId, up: bool) {
        let _ = self.0.cast(Hear::Link(peer, up));
    }
}

impl Resident for Gossips {
    fn start(&self, parts: Parts) -> BoxFuture<Result<Arc<dyn Inbound>, String>> {
        Box::pin(async move {
            let spawned = Actor::spawn(None, Teller, parts).await;
            let (teller, _) = spawned.map_err(|error| error.to_string())?;
            let inbound: Arc<dyn Inbound> = Arc::new(Door(teller));
            Ok(inbound)
        })
    }
}

fn run(seed: u64) -> (Vec<String>, u64) {
    on_seeded_thread(seed, move || {
        let stormy = Weather {
            spike_ppm: 50_000,
            drop_ppm: 20_000,
            duplicate_ppm: 20_000,
            reorder_ppm: 20_000,
            ..Weather::CALM
        };
        let setup = Setup {
            weather: stormy,
            rate_ppm_max: 50_000,
            offset_ms_max: 90_000,
            ..Setup::calm(seed)
        };
        let mut world = World::new(&setup, Arc::new(Gossips));
        let nodes = world.nodes();
        world.start_all();
        world.run_for(Duration::from_secs(3));
        world.crash(nodes[1], Death::Power);
        world.run_for(Duration::from_secs(2));
        world.partition(&nodes[..1], &nodes[2..], true);
        world.start(nodes[1]);
        world.run_for(Duration::from_secs(5));
        world.heal();
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.failure(), None);
        assert!(world.trace().counted("link lost") > 0, "the cut was never noticed");
        (world.trace().lines(), world.trace().hash())
    })
}

/// The trace of a run in a process of its own.
fn traced(seed: u64) -> Vec<String> {
    let own = std::env::current_exe().expect("a test binary");
    let child = Command::new(own)
        .args(["--exact", "child_prints_its_trace", "--ignored", "--nocapture"])
        .env(SEED, seed.to_string())
        .output()
        .expect("a child process");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let printed = String::from_utf8(child.stdout).expect("text");
    printed.lines().filter_map(|line| line.strip_prefix("trace ")).map(str::to_owned).collect()
}

const SEED: &str = "SIMULATION_TEST_SEED";

#[test]
#[ignore = "the other tests run it as a process"]
fn child_prints_its_trace() {
    let Ok(seed) = std::env::var(SEED) else { return };
    let (lines, hash) = run(seed.parse().unwrap());
    println!();
    for line in lines {
        println!("trace {line}");
    }
    println!("trace hash {hash:016x}");
}

#[test]
fn one_seed_gives_one_trace() {
    let first = traced(42);
    assert!(first.len() > 50, "a trace of {} lines shows nothing", first.len());
    for _ in 0..3 {
        let again = traced(42);
        let differ = first.iter().zip(&again).find(|(a, b)| a != b);
        assert_eq!(differ, None, "the first lines that differ");
        assert_eq!(first.len(), again.len());
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(traced(42).last(), traced(43).last());
}

/// Takes no part.
#[derive(Debug)]
struct Deaf;

impl Inbound for Deaf {
    fn message(&self, _from: NodeId, _lane: Lane, _message: Bytes) {}

    fn request(&self, _from: Peer, _class: RequestClass, _body: Bytes) -> BoxFuture<Bytes> {
        Box::pin(std::future::pending())
    }

    fn link(&self, _peer: NodeId, _up: bool) {}
}

/// A resident that panics after a while.
#[derive(Debug)]
struct Bomb;

impl Resident for Bomb {
    fn start(&self, parts: Parts) -> BoxFuture<Result<Arc<dyn Inbound>, String>> {
        Box::pin(async move {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                panic!("boom on {}", parts.number);
            });
            let inbound: Arc<dyn Inbound> = Arc::new(Deaf);
            Ok(inbound)
        })
    }
}

#[test]
fn a_panic_inside_the_world_fails_the_run() {
    let failure = on_seeded_thread(1, || {
        let mut world = World::new(&Setup::calm(1), Arc::new(Bomb));
        world.start(world.nodes()[0]);
        world.run_for(Duration::from_millis(100));
        world.failure().map(str::to_owned)
    });
    assert!(failure.is_some_and(|failure| failure.contains("boom on 1")));
}
