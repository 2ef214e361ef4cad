//! One run of one seed: a cluster, clients, faults, and judges at the end.
//!
//! Acts of a run: the cluster is founded and a volume made; clients work while
//! faults strike; the world is made whole and must make progress within
//! [`PROGRESS_MAX`]; all machines lose power at once; what clients were told
//! is compared with what is there.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actors::client::{Client, ClientError, DEADLINE as CLIENT_DEADLINE};
use cluster::{
    catalog::record::{VolumeKind, VolumePolicy},
    units::Instant,
};

use tokio::task::JoinHandle;

use crate::{
    disk::Death,
    door::SimulatedDoor,
    entropy::SeededEntropy,
    faults::Schedule,
    network::Weather,
    node::Resident,
    oracle::{
        durable,
        history::{History, Value},
        invariants::Invariants,
        linearizable,
    },
    rng::Rng,
    workloads::register::Registers,
    world::{Setup, World},
};

/// Time a cluster may take to be founded and serve.
const FOUNDING_MAX: Duration = Duration::from_mins(1);
/// Time a whole cluster may take to serve every key again after faults.
pub const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// The volume the clients use.
const VOLUME: &str = "data";
/// Client that founds and checks; the others are numbered from 1.
const KEEPER: u32 = 0;

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
    /// What goes wrong, from the founding on; none draws it from the seed.
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
    let world = trial.world;
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
    world: World,
    invariants: Invariants,
    registers: Registers,
    stop: Arc<AtomicBool>,
    working: Vec<JoinHandle<()>>,
}

impl<'a> Trial<'a> {
    fn new(plan: &'a Plan, resident: Arc<dyn Resident>, invariants: Invariants) -> Self {
        let world = World::new(&plan.setup, resident);
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
        Self { plan, world, invariants, registers, stop, working: Vec::new() }
    }

    fn play(&mut self) -> Result<(), String> {
        self.found()?;
        self.work()?;
        self.must_progress("after the faults")?;
        self.finish_work()?;
        self.world.crash_all(Death::Power);
        self.pass(Duration::from_millis(100))?;
        self.world.start_all();
        let found = self.must_progress("after all machines lost power")?;
        self.judge(&found)
    }

    /// Starts all machines and makes the volume.
    fn found(&mut self) -> Result<(), String> {
        self.world.start_all();
        let client = self.client(KEEPER).with_deadline(FOUNDING_MAX);
        let kind = if self.plan.shards == 1 { VolumeKind::Single } else { VolumeKind::Hash };
        let policy = VolumePolicy { kind, replicas: 3, shards: self.plan.shards };
        let nodes = self.world.nodes().len();
        let made = self.ask("founding", FOUNDING_MAX * 2, async move {
            while client.nodes().await?.len() < nodes {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            client.create_volume(VOLUME, policy).await.map(|_| ())
        })?;
        made.map_err(|error| format!("no volume could be made: {error}"))
    }

    /// Lets clients work while faults strike, and makes the world whole.
    fn work(&mut self) -> Result<(), String> {
        for number in 1..=self.plan.clients {
            let rng = Rng::stream(self.plan.seed, "client", u64::from(number));
            let client = self.registers.clone().run(number, self.client(number), rng);
            self.working.push(self.world.spawn(client));
        }
        let begin = self.world.now();
        let end = begin + self.plan.span;
        let weather = self.plan.setup.weather;
        let drawn = || Schedule::draw(self.plan.seed, self.plan.setup.nodes, weather, begin, end);
        let mut faults = self.plan.faults.clone().unwrap_or_else(drawn);
        while self.world.now() < end {
            for fault in faults.due(self.world.now()) {
                fault.strike(&mut self.world);
            }
            self.world.tick();
            self.check()?;
        }
        self.world.heal();
        self.world.set_weather(weather);
        for number in 1..=self.plan.setup.nodes {
            crate::faults::Fault::SlowDisk(number, 1).strike(&mut self.world);
        }
        self.world.start_all();
        self.stop.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until no client has anything under way: what is not noted yet
    /// would be missing from the history.
    fn finish_work(&mut self) -> Result<(), String> {
        let end = self.world.now() + CLIENT_DEADLINE * 2;
        while self.working.iter().any(|client| !client.is_finished()) {
            if self.world.now() > end {
                return Err(format!("a client is not done after {:?}", CLIENT_DEADLINE * 2));
            }
            self.pass(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Reads every key; all must be answered soon.
    fn must_progress(&mut self, when: &str) -> Result<Vec<(String, Option<Value>)>, String> {
        let client = self.client(KEEPER).with_deadline(PROGRESS_MAX);
        let (registers, keys) = (self.registers.clone(), self.plan.keys);
        let read = self.ask(when, PROGRESS_MAX * 2, async move {
            let mut found = Vec::new();
            for key in (0..keys).map(|key| format!("key-{key}")) {
                let value = registers.read_noted(KEEPER, &client, &key).await?;
                found.push((key, value));
            }
            Ok::<_, ClientError>(found)
        })?;
        read.map_err(|error| format!("no progress {when}: {error}"))
    }

    fn judge(&self, found: &[(String, Option<Value>)]) -> Result<(), String> {
        let history = self.registers.history.operations();
        for (key, value) in found {
            durable::check(&history, key, *value).map_err(|loss| loss.to_string())?;
        }
        linearizable::check(&history).map_err(|violation| violation.to_string())?;
        let errors = self.world.trace().counted("client error");
        if self.plan.no_errors && errors > 0 {
            return Err(format!("clients met {errors} errors where none may be"));
        }
        Ok(())
    }

    fn client(&self, number: u32) -> Client {
        let door = SimulatedDoor::new(self.world.client(number), self.world.nodes());
        let rng = Rng::stream(self.plan.seed, "client entropy", u64::from(number));
        let entropy = Arc::new(SeededEntropy::new(rng));
        Client::new(Arc::new(door), self.world.client_clock(), entropy)
    }

    /// Runs a task among the clients until it ends.
    fn ask<T: Send + 'static>(
        &mut self,
        what: &str,
        span: Duration,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        // A lock only because tasks must be `Send`.
        let slot = Arc::new(Mutex::new(None));
        let filled = slot.clone();
        self.world.spawn(async move {
            let value = task.await;
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        let take = || slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = self.world.now() + span;
        while self.world.now() < end {
            self.world.tick();
            self.check()?;
            if let Some(value) = take() {
                return Ok(value);
            }
        }
        Err(format!("{what}: no end within {span:?}"))
    }

    fn pass(&mut self, span: Duration) -> Result<(), String> {
        let end = self.world.now() + span;
        while self.world.now() < end {
            self.world.tick();
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if let Some(failure) = self.world.failure() {
            return Err(failure.to_owned());
        }
        self.invariants.broken().map_or(Ok(()), Err)
    }
}
