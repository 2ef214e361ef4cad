//! Each kind of fault does what its line in the table says, and ends.
//!
//! Machines run a resident that only beats: it counts its own milliseconds and
//! notes what its clocks show and what it is ordered.
#![expect(clippy::wildcard_enum_match_arm, reason = "each group knows its own kinds")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use actors::failpoint::FailPoint;
use bytes::Bytes;
use cluster::{
    ids::{NodeId, StoreId},
    ports::{
        engine::Engine,
        files::Files,
        network::{BoxFuture, Inbound, Lane, Peer, RequestClass},
    },
    units::Instant,
};

use super::{Fault, Kind};
use crate::{
    disk::Storage,
    hooks::on_seeded_thread,
    life::Life,
    network::{Address, Weather},
    node::{Parts, Resident},
    rng::Rng,
    world::{Setup, World},
};

/// What a boot shows of itself.
#[derive(Debug, Default)]
struct Seat {
    beats: u64,
    wall_ms: u64,
    local: Instant,
    orders: Vec<String>,
    life: Option<Life>,
}

#[derive(Clone, Debug, Default)]
struct Still(Arc<Mutex<BTreeMap<u32, Seat>>>);

impl Still {
    fn seats(&self) -> MutexGuard<'_, BTreeMap<u32, Seat>> {
        self.0.lock().unwrap()
    }
}

impl Resident for Still {
    fn start(&self, mut parts: Parts) -> BoxFuture<Result<Arc<dyn Inbound>, String>> {
        let still = self.clone();
        for node in parts.nodes.iter().filter(|node| **node != parts.node) {
            parts.network.learn(*node, vec![Address::Node(*node).socket()]);
        }
        still.seats().entry(parts.number).or_default().life = Some(parts.life.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let (wall, local) = (parts.clock.wall(), parts.clock.now());
                let mut seats = still.seats();
                let seat = seats.entry(parts.number).or_default();
                seat.beats += 1;
                (seat.wall_ms, seat.local) = (wall.0, local);
                while let Ok(order) = parts.orders.try_recv() {
                    seat.orders.push(format!("{order:?}"));
                }
            }
        });
        Box::pin(async { Ok(Arc::new(Mute) as Arc<dyn Inbound>) })
    }
}

#[derive(Debug)]
struct Mute;

impl Inbound for Mute {
    fn message(&self, _: NodeId, _: Lane, _: Bytes) {}
    fn request(&self, _: Peer, _: RequestClass, _: Bytes) -> BoxFuture<Bytes> {
        Box::pin(async { Bytes::new() })
    }
    fn link(&self, _: NodeId, _: bool) {}
}

/// Three machines, on whose first one faults strike.
struct Scene {
    world: World,
    still: Still,
    rng: Rng,
}

impl Scene {
    fn new() -> Self {
        let still = Still::default();
        let mut world = World::new(&Setup::calm(1), Arc::new(still.clone()));
        world.start_all();
        let mut scene = Self { world, still, rng: Rng::stream(1, "test", 0) };
        scene.pass(2_000);
        scene
    }

    /// Lets a fault live while `look` looks, and then end.
    fn under<T>(&mut self, fault: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let fault: Fault = fault.parse().unwrap();
        assert!(fault.begin(&mut self.world), "{fault} does not strike");
        assert_eq!(self.counted(fault.kind().counter()), 1);
        let seen = look(self);
        fault.end(&mut self.world);
        seen
    }

    /// What the weather is while a fault lives; it is calm again afterwards.
    fn weather_under(&mut self, fault: &str) -> Weather {
        let worse = self.under(fault, |scene| scene.world.fabric().weather());
        assert_eq!(self.world.fabric().weather(), Weather::CALM, "{fault} does not end");
        worse
    }

    fn pass(&mut self, millis: u64) {
        self.world.run_for(Duration::from_millis(millis));
        assert_eq!(self.world.failure(), None);
    }

    fn up(&self) -> Vec<bool> {
        self.world.nodes().into_iter().map(|node| self.world.is_up(node)).collect()
    }

    fn counted(&self, name: &str) -> u64 {
        self.world.trace().counted(name)
    }

    fn node(&self, number: u32) -> NodeId {
        self.world.node(number).unwrap()
    }

    fn cut(&self, from: u32, to: u32) -> bool {
        let address = |number| Address::Node(self.node(number));
        self.world.fabric().is_cut(address(from), address(to))
    }

    /// How often the first machine's process beats in so many milliseconds.
    fn beats(&mut self, millis: u64) -> u64 {
        let beats = |scene: &Self| scene.still.seats()[&1].beats;
        let before = beats(self);
        self.pass(millis);
        beats(self) - before
    }

    fn wall_ms(&self, number: u32) -> u64 {
        self.still.seats()[&number].wall_ms
    }

    /// By how many milliseconds the first wall clock is ahead of the second.
    fn ahead_ms(&mut self) -> i64 {
        self.pass(10);
        let signed = |number| i64::try_from(self.wall_ms(number)).unwrap();
        signed(1) - signed(2)
    }

    fn orders(&self) -> String {
        self.still.seats().values().map(|seat| seat.orders.join(" ")).collect()
    }

    /// Has a process come by a place.
    fn reach(&self, number: u32, point: FailPoint) {
        let life = self.still.seats()[&number].life.clone();
        life.unwrap().reach(point);
    }

    fn disk(&self) -> &Storage {
        self.world.storage(self.node(1)).unwrap()
    }

    /// The only segment of the log that is in use.
    fn segment(&self) -> Vec<u8> {
        let names = self.disk().log.list().unwrap();
        let name = names.into_iter().find(|name| name.contains(".segment")).unwrap();
        self.disk().log.contents(&name).unwrap()
    }

    /// All bytes of the log, in order of names.
    fn log(&self) -> Vec<Vec<u8>> {
        let names = self.disk().log.list().unwrap();
        names.iter().map(|name| self.disk().log.contents(name).unwrap()).collect()
    }

    fn sync_of_a_new_file(&self, name: &str) -> bool {
        let file = self.disk().log.create(name, 8).unwrap();
        file.write_at(0, &[1; 8]).and_then(|()| file.sync()).is_ok()
    }

    /// Whether usual operations and syncs of the disk take long.
    fn slow(&mut self) -> (bool, bool) {
        let (pace, syncs) = (self.disk().pace.clone(), self.disk().syncs.clone());
        let mut long = |pace: &crate::disk::Pace| pace.draw(&mut self.rng).as_millis() >= 10;
        (long(&pace), long(&syncs))
    }
}

/// Bits that differ, and the first and last byte of them.
fn changed(before: &[Vec<u8>], after: &[Vec<u8>]) -> (u32, usize) {
    let (mut bits, mut span) = (0, 0);
    for (before, after) in before.iter().zip(after) {
        let differ = |(a, b): (&u8, &u8)| a != b;
        let at: Vec<usize> = (0..before.len().min(after.len()))
            .filter(|at| differ((&before[*at], &after[*at])))
            .collect();
        bits += at.iter().map(|at| (before[*at] ^ after[*at]).count_ones()).sum::<u32>();
        if let (Some(first), Some(last)) = (at.first(), at.last()) {
            span += last - first + 1;
        }
    }
    (bits, span)
}

#[test]
fn every_kind_does_what_it_says_and_ends() {
    for kind in Kind::ALL {
        on_seeded_thread(1, || {
            let scene = &mut Scene::new();
            match kind.group() {
                super::Group::Process => process(*kind, scene),
                super::Group::Network => network(*kind, scene),
                super::Group::Clock => clock(*kind, scene),
                super::Group::Device => device(*kind, scene),
                super::Group::Data => data(*kind, scene),
                super::Group::Operation => operation(*kind, scene),
            }
        });
    }
}

fn process(kind: Kind, scene: &mut Scene) {
    let (all, first_down) = (vec![true; 3], vec![false, true, true]);
    match kind {
        Kind::Kill => assert_eq!(scene.under("kill 1", |scene| scene.up()), first_down),
        Kind::PowerLoss => assert_eq!(scene.under("power-loss 1", |scene| scene.up()), first_down),
        Kind::CrashAll => {
            assert_eq!(scene.under("crash-all power", |scene| scene.up()), vec![false; 3]);
        }
        Kind::Pause => assert_eq!(scene.under("pause 1", |scene| scene.beats(100)), 0),
        Kind::SlowProcessor => {
            let (usual, slow) =
                (scene.beats(200), scene.under("slow-processor 1 50", |scene| scene.beats(200)));
            assert!(slow < usual / 3, "{slow} of {usual}");
        }
        Kind::RestartLoop => {
            scene.under("restart-loop 1 50ms", |scene| scene.pass(300));
            assert!(scene.counted("kill") >= 2);
        }
        Kind::FailPoint => {
            let died = scene.under("fail-point 1 log.asked kill", |scene| {
                scene.reach(2, FailPoint::LogAsked);
                scene.reach(1, FailPoint::LogHanded);
                assert_eq!(scene.up(), vec![true; 3]);
                scene.reach(1, FailPoint::LogAsked);
                scene.pass(10);
                scene.up()
            });
            assert_eq!(died, first_down);
            assert_eq!(scene.counted("failpoint log.asked"), 1);
            scene.pass(3_000);
        }
        Kind::Bounce => {
            scene.under("bounce 1", |scene| assert_eq!(scene.up(), vec![true; 3]));
            assert_eq!((scene.counted("kill"), scene.counted("start")), (1, 4));
        }
        other => panic!("{other:?} is no fault of a process"),
    }
    assert_eq!(scene.up(), all, "{kind:?} does not end");
    assert!(scene.beats(100) > 50, "{kind:?} does not end");
}

fn network(kind: Kind, scene: &mut Scene) {
    let ways = |scene: &Scene| {
        [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)].map(|(a, b)| scene.cut(a, b))
    };
    let seen = |scene: &mut Scene, fault: &str| {
        let seen = scene.under(fault, |scene| ways(scene));
        assert_eq!(ways(scene), [false; 6], "{fault} does not end");
        seen
    };
    match kind {
        Kind::Isolate => {
            assert_eq!(seen(scene, "isolate 1"), [true, true, true, true, false, false]);
        }
        Kind::Cut => assert_eq!(seen(scene, "cut 1,2"), [false, false, true, true, true, true]),
        Kind::OneWayCut => {
            assert_eq!(seen(scene, "one-way-cut 1 2"), [true, false, false, false, false, false]);
        }
        Kind::Clog => {
            let lost = scene.counted("link lost");
            assert_eq!(seen(scene, "clog 1 2"), [true, false, false, false, false, false]);
            assert_eq!(scene.counted("link lost"), lost, "a clog breaks no connection");
        }
        Kind::Swizzle => {
            assert_eq!(seen(scene, "swizzle 1"), [true, true, true, true, false, false]);
        }
        Kind::Reset => {
            let lost = scene.counted("link lost");
            scene.under("reset 1", |scene| scene.pass(1_000));
            assert!(scene.counted("link lost") > lost, "no connection broke");
        }
        Kind::Deaf => {
            let risen = scene.under("deaf 1", |scene| {
                scene.world.reset(scene.node(1));
                scene.pass(500);
                let before = scene.counted("link up");
                scene.pass(3_000);
                scene.counted("link up") - before
            });
            let before = scene.counted("link up");
            scene.pass(3_000);
            assert!(risen == 0 && scene.counted("link up") > before, "{risen} rose");
        }
        Kind::Delay => {
            assert_eq!(scene.weather_under("delay 100ms").latency_max.as_millis(), 100);
        }
        Kind::Jitter => assert_eq!(scene.weather_under("jitter 7 900ms").spike_ppm, 7),
        Kind::Reorder => assert_eq!(scene.weather_under("reorder 7").reorder_ppm, 7),
        Kind::Drop => assert_eq!(scene.weather_under("drop 7").drop_ppm, 7),
        Kind::Duplicate => assert_eq!(scene.weather_under("duplicate 7").duplicate_ppm, 7),
        Kind::Replay => assert_eq!(scene.weather_under("replay 7").replay_ppm, 7),
        Kind::PacketFlip => assert_eq!(scene.weather_under("packet-flip 7").packet_flip_ppm, 7),
        Kind::PacketReplay => {
            assert_eq!(scene.weather_under("packet-replay 7").packet_replay_ppm, 7);
        }
        Kind::HandshakeStall => {
            assert_eq!(scene.weather_under("handshake-stall 7").packet_stall_ppm, 7);
        }
        other => panic!("{other:?} is no fault of the network"),
    }
}

fn clock(kind: Kind, scene: &mut Scene) {
    match kind {
        Kind::WallJump => {
            let ahead = scene.under("wall-jump 1 200", Scene::ahead_ms);
            assert!((199..=201).contains(&ahead), "{ahead}");
        }
        Kind::Drift => {
            let gained = scene.under("drift 1 10000", |scene| {
                scene.pass(2_000);
                let seats = scene.still.seats();
                seats[&1].local.since(seats[&2].local).as_millis()
            });
            assert!((15..=25).contains(&gained), "{gained} of 20 ms");
            return;
        }
        Kind::WallFreeze => {
            let moved = scene.under("wall-freeze 1", |scene| {
                scene.pass(10);
                let before = scene.wall_ms(1);
                scene.pass(100);
                scene.wall_ms(1) - before
            });
            assert_eq!(moved, 0);
        }
        Kind::Strobe => {
            let shown: Vec<i64> = scene
                .under("strobe 1 200 20ms", |scene| (0..20).map(|_| scene.ahead_ms()).collect());
            let (least, most) = (shown.iter().min().unwrap(), shown.iter().max().unwrap());
            assert!(most - least >= 190, "{shown:?}");
        }
        other => panic!("{other:?} is no fault of a clock"),
    }
    let ahead = scene.ahead_ms();
    assert!((-1..=1).contains(&ahead), "{kind:?} does not end: {ahead}");
}

fn device(kind: Kind, scene: &mut Scene) {
    let state = scene.disk().state.clone();
    match kind {
        Kind::SlowDisk => {
            assert_eq!(scene.under("slow-disk 1 100", Scene::slow), (true, true));
            assert_eq!(scene.slow(), (false, false));
        }
        Kind::SlowSyncs => {
            assert_eq!(scene.under("slow-syncs 1 100", Scene::slow), (false, true));
            assert_eq!(scene.slow(), (false, false));
        }
        Kind::StalledDisk => {
            let stalled = |scene: &mut Scene| scene.disk().pace.is_stalled();
            assert!(scene.under("stalled-disk 1", stalled) && !stalled(scene));
        }
        Kind::ReadError => {
            let name = state.list().unwrap().remove(0);
            let readable = |_: &mut Scene| state.open(&name).unwrap().read_at(0, &mut [0]).is_ok();
            assert!(!scene.under("read-error 1", readable) && readable(scene));
        }
        Kind::WriteError => {
            let file = state.create("probe", 8).unwrap();
            let writable = |_: &mut Scene| file.write_at(0, &[1]).is_ok();
            assert!(!scene.under("write-error 1", writable) && writable(scene));
        }
        Kind::SyncError => {
            let twice = scene.under("sync-error 1", |scene| {
                [scene.sync_of_a_new_file("one"), scene.sync_of_a_new_file("two")]
            });
            assert_eq!(twice, [false, true]);
        }
        Kind::CommitError => {
            let store = scene.disk().engine.create(StoreId(9)).unwrap();
            let twice = scene.under("commit-error 1", |_| {
                [store.commit(&[]).is_ok(), store.commit(&[]).is_ok()]
            });
            assert_eq!(twice, [false, true]);
        }
        Kind::FullDisk => {
            let room = |scene: &Scene, name: &str| scene.disk().log.create(name, 1 << 20).is_ok();
            assert!(!scene.under("full-disk 1", |scene| room(scene, "one")));
            assert!(room(scene, "two"));
        }
        other => panic!("{other:?} is no fault of a device"),
    }
}

fn data(kind: Kind, scene: &mut Scene) {
    let before = scene.log();
    match kind {
        Kind::FlipOnRead => {
            let read = |scene: &Scene| {
                let names = scene.disk().log.list().unwrap();
                let name = names.iter().find(|name| name.contains(".segment")).unwrap();
                let mut bytes = vec![0; 512];
                scene.disk().log.open(name).unwrap().read_at(0, &mut bytes).unwrap();
                bytes
            };
            let (first, second) =
                scene.under("flip-on-read 1 77", |scene| (read(scene), read(scene)));
            assert_eq!(changed(&[first], &[second]).0, 1);
            assert_eq!(changed(&before, &scene.log()).0, 0, "what is at rest is sound");
        }
        Kind::RotLog => {
            scene.under("rot-log 1 5", |_| ());
            assert_eq!(changed(&before, &scene.log()).0, 1);
        }
        Kind::RotStore => {
            scene.disk().engine.create(StoreId(9)).unwrap();
            scene.under("rot-store 1 5", |_| ());
            assert!(scene.disk().engine.open(StoreId(9)).is_err());
        }
        Kind::RotCopy => {
            let state = scene.disk().state.clone();
            state.create("catalog", 64).unwrap();
            let before = state.contents("catalog").unwrap();
            scene.under("rot-copy 1 5", |_| ());
            assert_eq!(changed(&[before], &[state.contents("catalog").unwrap()]).0, 1);
        }
        Kind::Misdirected => {
            scene.under("misdirected 1 5", |_| ());
            let (bits, span) = changed(&before, &scene.log());
            assert!(bits > 100 && span <= 512, "{bits} bits of {span} bytes");
        }
        Kind::Truncated => {
            let whole = scene.segment().len();
            scene.under("truncated 1 5", |_| ());
            assert!(scene.segment().len() < whole);
        }
        other => whole_disk(other, scene),
    }
    scene.pass(100);
    assert_eq!(scene.up(), [true; 3], "{kind:?} does not end");
}

/// What is done to a disk as a whole.
fn whole_disk(kind: Kind, scene: &mut Scene) {
    match kind {
        Kind::OldImage => {
            // Nobody here knows of the newer start, so the old one must not return.
            scene.under("old-image 1", |scene| scene.pass(100));
            assert_eq!(scene.counted("start"), 4, "it starts after its disk was copied");
            assert_eq!(
                (scene.counted("old image spared"), scene.counted("old image restored")),
                (1, 0)
            );
        }
        Kind::WipedDisk => {
            let node = scene.node(1);
            let names = scene.under("wiped-disk 1", |scene| scene.disk().log.list().unwrap());
            assert!(names.is_empty() && scene.node(1) != node);
        }
        Kind::EmptiedDisk => {
            let (node, state) = (scene.node(1), scene.disk().state.list().unwrap());
            let names = scene.under("emptied-disk 1", |scene| scene.disk().log.list().unwrap());
            assert!(names.is_empty() && scene.node(1) == node);
            assert!(state.iter().all(|name| scene.disk().state.list().unwrap().contains(name)));
        }
        Kind::SwappedDisks => {
            let up = scene.under("swapped-disks 1 2", |scene| {
                scene.pass(3_000);
                scene.up()
            });
            assert_eq!(up, [false, false, true]);
            assert!(scene.counted("start refused") >= 2);
        }
        other => panic!("{other:?} is no fault of data"),
    }
}

fn operation(kind: Kind, scene: &mut Scene) {
    let orders = |scene: &mut Scene| {
        scene.pass(2_000);
        scene.orders()
    };
    match kind {
        Kind::TransferLeaders => {
            assert_eq!(scene.under("transfer-leaders 1", orders), "GiveUpLeadership");
        }
        Kind::AddNode => assert_eq!(scene.under("add-node", |scene| scene.up()), [true; 4]),
        Kind::RemoveNode => {
            assert!(scene.under("remove-node 1", orders).contains("Remove"));
        }
        Kind::ReplaceNode => {
            assert!(scene.under("replace-node 1", orders).contains("Remove"));
            assert_eq!(scene.up(), [true; 4]);
        }
        other => panic!("{other:?} is no operation"),
    }
}
