//! How fast the world turns: simulated seconds per second of one core.
//!
//! Six figures. *Calm*: five machines, a volume of 16 shards with three
//! replicas each, 16 clients that put, get and delete 64 keys with rests of 1 to
//! 1,200 ms, some 27 operations per simulated second, as many as seeds of the
//! swarm make; no faults, and founding is not counted. *Busy*: with rests of 1
//! to 250 ms, some 110 operations. *Quinn*: *calm* over the real transport.
//! *Faults*: *busy* under the swarm's faults. *Idle*: *calm* without clients, what
//! time costs when nobody works. *Seeds*: whole runs as the command makes them,
//! with founding, faults, power cuts and judges.
//!
//! Core time is the thread's, so neighbours on the machine disturb little; what
//! they cannot disturb at all is the count of instructions:
//! `valgrind --tool=callgrind --toggle-collect='*measured*' BINARY --bench calm 10`.
//!
//! Run: `cargo bench -p simulation --profile dist --bench speed
//! [-- calm|busy|quinn|idle|faults|seeds [SECONDS or SEEDS]]`.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use cluster::units::Instant;
use mimalloc::MiMalloc;
use simulation::{
    faults::{Ground, Group, Schedule},
    hooks::on_seeded_thread,
    plan::Plan,
    scenario::SWARM,
    stage::Stage,
    trial,
    workloads::{Workload, register::Registers},
    world::{NetworkMode, Setup},
};

/// The command's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const MACHINES: u32 = 5;
const SHARDS: u32 = 16;
const CLIENTS: u32 = 16;
const KEYS: u32 = 64;
/// Rests of clients that work as those of the swarm do on average.
const CALM: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(1_200));
/// Rests of clients that hurry.
const BUSY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));
/// Simulated seconds of *calm*, and of each of the worlds of *faults*.
const SPAN_S: u64 = 60;
/// Worlds of *faults*: each draws other kinds.
const WORLDS: u64 = 4;
/// Whole runs of *seeds*.
const SEEDS: u64 = 20;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |what: &str| asked.is_empty() || asked.iter().any(|word| word == what);
    let amount = asked.iter().find_map(|word| word.parse().ok());
    for (name, network, clients, rest) in [
        ("calm", NetworkMode::Port, CLIENTS, CALM),
        ("busy", NetworkMode::Port, CLIENTS, BUSY),
        ("quinn", NetworkMode::Quinn, CLIENTS, CALM),
        ("idle", NetworkMode::Port, 0, CALM),
    ] {
        if wanted(name) {
            let span = Duration::from_secs(amount.unwrap_or(SPAN_S));
            load(1, network, span, Load { clients, rest, faults: false }).print(name);
        }
    }
    if wanted("faults") {
        let span = Duration::from_secs(amount.unwrap_or(SPAN_S));
        let what = Load { clients: CLIENTS, rest: BUSY, faults: true };
        let worlds = (1..=WORLDS).map(|seed| load(seed, NetworkMode::Port, span, what));
        worlds.fold(Figures::default(), Figures::and).print("faults");
    }
    if wanted("seeds") {
        let worlds = (1..=amount.unwrap_or(SEEDS)).map(seed);
        worlds.fold(Figures::default(), Figures::and).print("seeds");
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    simulated: Duration,
    core: Duration,
    operations: u64,
}

impl Figures {
    fn and(self, other: Self) -> Self {
        Self {
            simulated: self.simulated + other.simulated,
            core: self.core + other.core,
            operations: self.operations + other.operations,
        }
    }

    fn print(&self, name: &str) {
        let (simulated, core) = (self.simulated.as_secs_f64(), self.core.as_secs_f64());
        println!(
            "{name:<7} {:>7.1} simulated s per core-s ({simulated:.0} s in {core:.2} s), \
             {:.0} operations per simulated s",
            simulated / core,
            self.operations as f64 / simulated,
        );
    }
}

/// The figures of a stretch of work.
fn measured(work: impl FnOnce() -> (Duration, u64)) -> Figures {
    let before = core_time();
    let (simulated, operations) = work();
    Figures { simulated, core: core_time().saturating_sub(before), operations }
}

/// Core time of this thread, which is all of a world's: the first number of
/// what Linux tells of it.
fn core_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_else(|| panic!("no core time in {told:?}")))
}

/// What goes on in a world.
#[derive(Clone, Copy, Debug)]
struct Load {
    clients: u32,
    rest: (Duration, Duration),
    faults: bool,
}

/// A world of the benchmark's size under load for `span`.
fn load(seed: u64, network: NetworkMode, span: Duration, what: Load) -> Figures {
    on_seeded_thread(seed, move || {
        let setup = Setup { nodes: MACHINES, network, keep_trace: false, ..Setup::calm(seed) };
        let mut stage = Stage::product(&setup);
        stage.found(SHARDS).unwrap_or_else(|cause| panic!("seed {seed}: {cause}"));
        clients(&stage, what);
        if what.faults {
            let (from, to) = (Instant::ORIGIN, Instant::ORIGIN + span);
            let ground = Ground { nodes: MACHINES, from, to, groups: Group::ALL };
            stage.expose_to(&Schedule::draw(seed, &ground));
        }
        let before = stage.world.trace().counted("operation");
        measured(|| {
            stage.pass(span).unwrap_or_else(|cause| panic!("seed {seed}: {cause}"));
            (span, stage.world.trace().counted("operation") - before)
        })
    })
}

fn clients(stage: &Stage, what: Load) {
    let registers = Registers::new(CLIENTS, KEYS, what.rest);
    let over = Arc::new(AtomicBool::new(false));
    for number in 1..=what.clients {
        drop(stage.world.spawn(registers.run(stage.player(number, &over))));
    }
}

/// One whole run, as the command makes it.
fn seed(seed: u64) -> Figures {
    on_seeded_thread(seed, move || {
        measured(|| {
            let verdict = trial::play(Plan::draw(seed, &SWARM));
            assert!(verdict.failure.is_none(), "seed {seed}: {verdict}");
            (verdict.simulated, verdict.operations)
        })
    })
}
