//! One run of one plan: a cluster, clients, faults, and judges at the end.
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

use actors::client::DEADLINE as CLIENT_DEADLINE;
use cluster::units::Instant;
use tokio::task::JoinHandle;

use crate::{
    checkers::Checkers,
    disk::Death,
    liveness,
    node::Resident,
    plan::Plan,
    product::Product,
    stage::{KEEPER, Stage, told},
    workloads::Player,
};

/// Time a whole cluster may take to serve every key again after faults.
pub const PROGRESS_MAX: Duration = Duration::from_secs(30);

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
    /// Operations that clients brought to an end with a known outcome.
    pub operations: u64,
    /// Simulated time.
    pub simulated: Duration,
}

impl Verdict {
    /// Operations per simulated second.
    pub fn pace(&self) -> u64 {
        self.operations / self.simulated.as_secs().max(1)
    }
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
        let (ms, pace) = (self.simulated.as_millis(), self.pace());
        write!(f, "{ms} simulated ms, {pace} operations per second, trace {:016x}", self.hash)
    }
}

/// Runs a plan on machines that run the product. Call it on a seeded thread.
pub fn play(plan: Plan) -> Verdict {
    let product = Product::default();
    let checkers = product.checkers.clone();
    run(plan, Arc::new(product), &checkers)
}

/// Runs a plan on machines that run `resident`. Call it on a seeded thread.
pub fn run(plan: Plan, resident: Arc<dyn Resident>, checkers: &Checkers) -> Verdict {
    let mut trial = Trial::new(plan, resident, checkers.clone());
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
        operations: world.trace().counted("operation"),
        counters: counters.into_iter().collect(),
        simulated: world.now().since(Instant::ORIGIN),
    }
}

struct Trial {
    plan: Plan,
    stage: Stage,
    over: Arc<AtomicBool>,
    working: Vec<JoinHandle<()>>,
}

impl Trial {
    fn new(plan: Plan, resident: Arc<dyn Resident>, checkers: Checkers) -> Self {
        let stage = Stage::new(&plan.setup, resident, checkers);
        Self { plan, stage, over: Arc::new(AtomicBool::new(false)), working: Vec::new() }
    }

    fn play(&mut self) -> Result<(), String> {
        self.stage.found(self.plan.shards)?;
        self.set_up()?;
        self.begin_work();
        self.expose()?;
        self.make_whole();
        self.must_progress("after the faults")?;
        self.finish_work()?;
        self.stage.world.crash_all(Death::Power);
        self.stage.pass(Duration::from_millis(100))?;
        self.stage.world.start_all();
        self.must_progress("after all machines lost power")?;
        self.stage.converge(PROGRESS_MAX)?;
        self.judge()
    }

    /// The client that prepares and looks; it has time.
    fn keeper(&self) -> Player {
        let keeper = self.stage.player(KEEPER, &self.over);
        Player { client: keeper.client.with_deadline(PROGRESS_MAX), ..keeper }
    }

    fn set_up(&mut self) -> Result<(), String> {
        let keeper = self.keeper();
        for workload in &self.plan.workloads {
            let setup = workload.setup(keeper.clone());
            let done = self.stage.ask(workload.name(), PROGRESS_MAX * 2, setup)?;
            done.map_err(|error| format!("{} cannot begin: {}", workload.name(), told(&error)))?;
        }
        Ok(())
    }

    /// Lets clients work, numbered from 1 over all workloads.
    fn begin_work(&mut self) {
        let mut number = KEEPER;
        for workload in &self.plan.workloads {
            for _ in 0..workload.clients() {
                number += 1;
                let player = self.stage.player(number, &self.over);
                let work = workload.run(Player { leisure: self.plan.leisure, ..player });
                self.working.push(self.stage.world.spawn(work));
            }
        }
    }

    /// Lets faults strike and the script play, for the span of the plan.
    fn expose(&mut self) -> Result<(), String> {
        let end = self.stage.world.now() + self.plan.span;
        self.stage.expose_to(&self.plan.faults);
        if let Some(script) = self.plan.script {
            script(&mut self.stage)?;
        }
        self.stage.pass(end.since(self.stage.world.now()))
    }

    /// Ends all faults, and tells clients to end.
    fn make_whole(&mut self) {
        self.stage.end_faults();
        self.stage.world.heal();
        self.stage.world.start_all();
        self.over.store(true, Ordering::Relaxed);
    }

    /// Waits until no client has anything under way: what is not noted yet
    /// would be missing from the histories.
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

    /// Looks at everything; all must be answered soon.
    fn must_progress(&mut self, when: &str) -> Result<(), String> {
        let keeper = self.keeper();
        for workload in &self.plan.workloads {
            let observe = workload.observe(keeper.clone());
            let what = format!("{} {when}", workload.name());
            let observed = self.stage.ask(&what, PROGRESS_MAX * 2, observe)?;
            observed.map_err(|error| {
                let seen = liveness::explain(&self.stage);
                format!("no progress of {what}: {}{seen}", told(&error))
            })?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        for workload in &self.plan.workloads {
            workload.check().map_err(|broken| format!("{}: {broken}", workload.name()))?;
        }
        let trace = self.stage.world.trace();
        let errors = trace.counted("client error");
        if self.plan.no_errors && errors > 0 {
            return Err(format!("clients met {errors} errors where none may be"));
        }
        let (operations, took) = (trace.counted("operation"), self.stage.world.now());
        let wanted = self.plan.pace_min * took.since(Instant::ORIGIN).as_secs();
        if operations < wanted {
            return Err(format!(
                "{operations} operations where {wanted} are wanted: time proved nothing"
            ));
        }
        Ok(())
    }
}
