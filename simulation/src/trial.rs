//! One run of one seed: a cluster, clients, faults, and judges at the end.
//!
//! Acts of a run: the cluster is founded and a volume made; clients work while
//! faults strike; the world is made whole and must make progress within
//! [`PROGRESS_MAX`]; all machines lose power at once; what clients were told
//! is compared with what is there.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actors::client::{ClientError, DEADLINE as CLIENT_DEADLINE};
use cluster::units::Instant;
use tokio::task::JoinHandle;

use crate::{
    disk::Death,
    faults::{Ground, Schedule},
    network::Weather,
    node::Resident,
    oracle::{
        durable,
        history::{History, Value},
        invariants::Invariants,
        linearizable,
    },
    rng::Rng,
    stage::{KEEPER, Stage, VOLUME, told},
    workloads::register::Registers,
    world::Setup,
};

/// Time a whole cluster may take to serve every key again after faults.
pub const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every draw comes from it.
    pub seed: u64,
    /// Time under faults.
    pub span: Duration,
    /// Clients.
    pub clients: u32,
    /// Keys they share.
    pub keys: u32,
    /// Shards of the volume.
    pub shards: u32,
    /// Rest of a client between two operations.
    pub rest: (Duration, Duration),
    /// The world.
    pub setup: Setup,
    /// What goes wrong, by world time (founding takes about four seconds); none
    /// draws it from the seed.
    pub faults: Option<Schedule>,
    /// Whether every operation must succeed within its client's deadline.
    pub no_errors: bool,
}

impl Plan {
    /// The plan of a seed, everything drawn.
    pub fn draw(seed: u64, keep_trace: bool) -> Self {
        let mut rng = Rng::stream(seed, "plan", 0);
        let skewed = rng.chance(300_000);
        let far = rng.chance(200_000);
        let latency_max = if far { Duration::from_millis(30) } else { Duration::from_millis(2) };
        let weather = Weather {
            latency_max: rng.between(Duration::from_micros(600), latency_max),
            ..Weather::CALM
        };
        let setup = Setup {
            weather,
            rate_ppm_max: if skewed { 30_000 } else { 100 },
            offset_ms_max: if rng.chance(300_000) { 150 } else { 5 },
            keep_trace,
            ..Setup::calm(seed)
        };
        let busy = Duration::from_millis(5 + rng.below(60));
        Self {
            seed,
            span: Duration::from_secs(20),
            clients: 2 + u32::try_from(rng.below(6)).unwrap_or(0),
            keys: 1 + u32::try_from(rng.below(8)).unwrap_or(0),
            shards: 1 + u32::try_from(rng.below(4)).unwrap_or(0),
            rest: (Duration::from_millis(1), busy),
            setup,
            faults: None,
            no_errors: false,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Hash of its trace.
    pub hash: u64,
    /// The trace, if it was kept.
    pub lines: Vec<String>,
    /// What it met, by name.
    pub counters: Vec<(String, u64)>,
    /// Simulated time.
    pub simulated: Duration,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.counters {
            writeln!(f, "{count:>8} {name}")?;
        }
        match &self.failure {
            Some(failure) => writeln!(f, "FAILED: {failure}")?,
            None => writeln!(f, "passed")?,
        }
        write!(f, "{} simulated ms, trace {:016x}", self.simulated.as_millis(), self.hash)
    }
}

/// Runs a plan on machines that run `resident`. Call it on a seeded thread.
pub fn run(plan: &Plan, resident: Arc<dyn Resident>, invariants: &Invariants) -> Verdict {
    let mut trial = Trial::new(plan, resident, invariants.clone());
    let failure = trial.play().err();
    let world = &trial.stage.world;
    if let Some(failure) = &failure {
        world.trace().note(world.now(), failure);
    }
    let counters = world.trace().counters();
    Verdict {
        failure,
        hash: world.trace().hash(),
        lines: world.trace().lines(),
        counters: counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        simulated: world.now().since(Instant::ORIGIN),
    }
}

struct Trial<'a> {
    plan: &'a Plan,
    stage: Stage,
    registers: Registers,
    stop: Arc<AtomicBool>,
    working: Vec<JoinHandle<()>>,
}

impl<'a> Trial<'a> {
    fn new(plan: &'a Plan, resident: Arc<dyn Resident>, invariants: Invariants) -> Self {
        let stage = Stage::new(&plan.setup, resident, invariants);
        let world = &stage.world;
        let stop = Arc::new(AtomicBool::new(false));
        let registers = Registers {
            volume: VOLUME.to_owned(),
            keys: plan.keys,
            rest: plan.rest,
            history: History::default(),
            clock: world.client_clock(),
            trace: world.trace().clone(),
            stop: stop.clone(),
        };
        Self { plan, stage, registers, stop, working: Vec::new() }
    }

    fn play(&mut self) -> Result<(), String> {
        self.stage.found(self.plan.shards)?;
        self.work()?;
        self.must_progress("after the faults")?;
        self.finish_work()?;
        self.stage.world.crash_all(Death::Power);
        self.stage.pass(Duration::from_millis(100))?;
        self.stage.world.start_all();
        let found = self.must_progress("after all machines lost power")?;
        self.judge(&found)
    }

    /// Lets clients work while faults strike, and makes the world whole.
    fn work(&mut self) -> Result<(), String> {
        for number in 1..=self.plan.clients {
            let rng = Rng::stream(self.plan.seed, "client", u64::from(number));
            let client = self.registers.clone().run(number, self.stage.client(number), rng);
            self.working.push(self.stage.world.spawn(client));
        }
        let begin = self.stage.world.now();
        let end = begin + self.plan.span;
        let ground = Ground { nodes: self.plan.setup.nodes, from: begin, to: end };
        let drawn = || Schedule::draw(self.plan.seed, &ground);
        let mut faults = self.plan.faults.clone().unwrap_or_else(drawn).course();
        while self.stage.world.now() < end {
            faults.advance(&mut self.stage.world);
            self.stage.world.tick();
            self.stage.check()?;
        }
        faults.finish(&mut self.stage.world);
        self.stage.world.heal();
        self.stage.world.start_all();
        self.stop.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until no client has anything under way: what is not noted yet
    /// would be missing from the history.
    fn finish_work(&mut self) -> Result<(), String> {
        let end = self.stage.world.now() + CLIENT_DEADLINE * 2;
        while self.working.iter().any(|client| !client.is_finished()) {
            if self.stage.world.now() > end {
                return Err(format!("a client is not done after {:?}", CLIENT_DEADLINE * 2));
            }
            self.stage.pass(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Reads every key; all must be answered soon.
    fn must_progress(&mut self, when: &str) -> Result<Vec<(String, Option<Value>)>, String> {
        let client = self.stage.client(KEEPER).with_deadline(PROGRESS_MAX);
        let (registers, keys) = (self.registers.clone(), self.plan.keys);
        let read = self.stage.ask(when, PROGRESS_MAX * 2, async move {
            let mut found = Vec::new();
            for key in (0..keys).map(|key| format!("key-{key}")) {
                let value = registers.read_noted(KEEPER, &client, &key).await?;
                found.push((key, value));
            }
            Ok::<_, ClientError>(found)
        })?;
        read.map_err(|error| format!("no progress {when}: {}", told(&error)))
    }

    fn judge(&self, found: &[(String, Option<Value>)]) -> Result<(), String> {
        let history = self.registers.history.operations();
        for (key, value) in found {
            durable::check(&history, key, *value).map_err(|loss| loss.to_string())?;
        }
        linearizable::check(&history).map_err(|violation| violation.to_string())?;
        let errors = self.stage.world.trace().counted("client error");
        if self.plan.no_errors && errors > 0 {
            return Err(format!("clients met {errors} errors where none may be"));
        }
        Ok(())
    }
}
