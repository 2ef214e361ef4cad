//! The plan of one run: data drawn from a seed before anything happens.
//!
//! A scenario draws it; whoever runs it may change it first (a shrinker takes
//! faults away, a host application adds a workload). It is used up by the run,
//! because its workloads keep what their clients were told: to run a seed
//! again, draw it again.

use std::time::Duration;

use crate::{
    faults::Schedule, rng::Rng, scenario::Scenario, stage::Stage, workloads::Workload, world::Setup,
};

/// Time under faults. With founding (about four seconds) and the acts after it
/// a run lasts at least 60 simulated seconds.
pub const SPAN: Duration = Duration::from_secs(56);
/// Fewest operations clients must bring to an end per simulated second: time
/// in which nobody works proves nothing.
pub const PACE_MIN: u64 = 2;

/// What a scenario does to the world besides its faults: it may wait for a
/// situation, look who leads, and strike there. Clients go on meanwhile.
pub type Script = fn(&mut Stage) -> Result<(), String>;

/// What a run is made of.
#[derive(Debug)]
pub struct Plan {
    /// Every draw comes from it.
    pub seed: u64,
    /// Name of the scenario that drew it.
    pub scenario: &'static str,
    /// The world.
    pub setup: Setup,
    /// Shards of the volume.
    pub shards: u32,
    /// Time under faults.
    pub span: Duration,
    /// What clients do.
    pub workloads: Vec<Box<dyn Workload>>,
    /// How many times longer clients rest than their workload says.
    pub leisure: u32,
    /// What goes wrong, by the time since clients began to work.
    pub faults: Schedule,
    /// What else happens; it must end by itself.
    pub script: Option<Script>,
    /// Fewest operations per simulated second; below it the run fails.
    pub pace_min: u64,
    /// Whether every operation must succeed within its client's deadline.
    pub no_errors: bool,
}

impl Plan {
    /// The plan of a seed in a scenario.
    pub fn draw(seed: u64, scenario: &Scenario) -> Self {
        let plan = (scenario.plan)(seed);
        Self { scenario: scenario.name, ..plan }
    }

    /// Three good machines on a calm network, one shard, nobody at work and
    /// nothing going wrong: what directed scenarios begin with.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            scenario: "calm",
            setup: Setup { keep_trace: false, ..Setup::calm(seed) },
            shards: 1,
            span: SPAN,
            workloads: Vec::new(),
            leisure: 1,
            faults: Schedule::default(),
            script: None,
            pace_min: PACE_MIN,
            no_errors: false,
        }
    }

    /// The stream of draws that shapes a plan.
    pub(crate) fn rng(seed: u64) -> Rng {
        Rng::stream(seed, "plan", 0)
    }
}
