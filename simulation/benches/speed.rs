//! How fast the world turns: simulated seconds per second of one core.
//!
//! Three figures. *Calm* and *faults*: five machines, a volume of 16 shards
//! with three replicas each, 16 clients that put, get and delete 64 keys with
//! rests of 1 to 250 ms (some 110 operations per simulated second), without
//! faults and under the swarm's; founding is not counted. *Seeds*: whole runs
//! as the command makes them, with founding, faults, power cuts and judges.
//!
//! Core time is the process's (`CLOCK_PROCESS_CPUTIME_ID`), so neighbours on
//! the machine disturb little.
//!
//! Run: `cargo bench -p simulation --bench speed [-- calm|faults|seeds [SECONDS or SEEDS]]`.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use simulation::{
    faults::Schedule,
    hooks::on_seeded_thread,
    network::Weather,
    oracle::{history::History, invariants::Invariants},
    product::Product,
    rng::Rng,
    stage::{Stage, VOLUME},
    trial::{self, Plan},
    workloads::register::Registers,
    world::Setup,
};

const MACHINES: u32 = 5;
const SHARDS: u32 = 16;
const CLIENTS: u32 = 16;
const KEYS: u32 = 64;
const REST: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));
/// Simulated seconds of *calm*, and of each of the worlds of *faults*.
const SPAN_S: u64 = 60;
/// Worlds of *faults*: each draws other kinds.
const WORLDS: u64 = 4;
/// Whole runs of *seeds*.
const SEEDS: u64 = 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |what: &str| words.is_empty() || words.iter().any(|word| word == what);
    let amount = words.iter().find_map(|word| word.parse().ok());
    if wanted("calm") {
        let span = Duration::from_secs(amount.unwrap_or(SPAN_S));
        load(1, span, false).print("calm");
    }
    if wanted("faults") {
        let span = Duration::from_secs(amount.unwrap_or(SPAN_S));
        let worlds = (1..=WORLDS).map(|seed| load(seed, span, true));
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
    Figures { simulated, core: core_time() - before, operations }
}

fn core_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A world of the benchmark's size under load for `span`.
fn load(seed: u64, span: Duration, faults: bool) -> Figures {
    on_seeded_thread(seed, move || {
        let setup = Setup { nodes: MACHINES, keep_trace: false, ..Setup::calm(seed) };
        let mut stage = Stage::product(&setup);
        stage.found(SHARDS).unwrap_or_else(|cause| panic!("seed {seed}: {cause}"));
        clients(&stage, seed);
        let begin = stage.world.now();
        let end = begin + span;
        let mut schedule = Schedule::default();
        if faults {
            schedule = Schedule::draw(seed, MACHINES, Weather::CALM, begin, end);
        }
        let before = stage.world.trace().counted("operation");
        measured(|| {
            while stage.world.now() < end {
                for fault in schedule.due(stage.world.now()) {
                    fault.strike(&mut stage.world);
                }
                stage.world.tick();
                stage.check().unwrap_or_else(|cause| panic!("seed {seed}: {cause}"));
            }
            (span, stage.world.trace().counted("operation") - before)
        })
    })
}

fn clients(stage: &Stage, seed: u64) {
    let registers = Registers {
        volume: VOLUME.to_owned(),
        keys: KEYS,
        rest: REST,
        history: History::default(),
        clock: stage.world.client_clock(),
        trace: stage.world.trace().clone(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    for number in 1..=CLIENTS {
        let rng = Rng::stream(seed, "client", u64::from(number));
        drop(stage.world.spawn(registers.clone().run(number, stage.client(number), rng)));
    }
}

/// One whole run, as the command makes it.
fn seed(seed: u64) -> Figures {
    on_seeded_thread(seed, move || {
        measured(|| {
            let invariants = Invariants::default();
            let product = Product { invariants: invariants.clone() };
            let verdict = trial::run(&Plan::draw(seed, false), Arc::new(product), &invariants);
            assert!(verdict.failure.is_none(), "seed {seed}: {verdict}");
            let operations = verdict.counters.iter().find(|(name, _)| name == "operation");
            (verdict.simulated, operations.map_or(0, |(_, count)| *count))
        })
    })
}
