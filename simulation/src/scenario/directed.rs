//! What directed scenarios share: faults as text that come round and round on
//! another machine each time, and faults that strike whoever leads.

use std::time::Duration;

use cluster::units::Instant;

use crate::{
    disk::OFFERED_BYTES,
    faults::{Fault, Planned, Schedule},
    plan::{Plan, SPAN},
    rng::Rng,
    stage::Stage,
    workloads::{Workload, register::Registers},
    world::Setup,
};

/// A directed plan, calm but for what it says.
pub(super) struct Directed {
    /// Machines.
    pub(super) nodes: u32,
    /// Shards of the volume.
    pub(super) shards: u32,
    /// Greatest error of a clock's rate, in parts per million.
    pub(super) rate_ppm: u32,
    /// Greatest offset of a wall clock.
    pub(super) offset_ms: u32,
    /// Bytes each machine's disk offers.
    pub(super) disk_bytes: u64,
    /// Bytes that may wait for each machine's stores, if not the usual.
    pub(super) overlay_bytes: Option<usize>,
    /// Bytes that each store may take, if it has a limit.
    pub(super) store_bytes: Option<u64>,
    /// After so long the faults begin anew, on the next machines.
    pub(super) round: Duration,
    /// Lines as in a schedule; `{n}` is the machine whose turn it is, `{m}` the
    /// one after it, `{d}` a number drawn anew.
    pub(super) faults: &'static [&'static str],
    /// What else happens, once.
    pub(super) besides: Vec<Planned>,
    /// Who works; registers if nobody else does.
    pub(super) workloads: Vec<Box<dyn Workload>>,
    /// What strikes whoever leads.
    pub(super) script: Option<crate::plan::Script>,
    /// Fewest operations per simulated second.
    pub(super) pace_min: u64,
}

impl Default for Directed {
    fn default() -> Self {
        Self {
            nodes: 3,
            shards: 2,
            rate_ppm: 100,
            offset_ms: 5,
            disk_bytes: OFFERED_BYTES,
            overlay_bytes: None,
            store_bytes: None,
            round: Duration::from_secs(9),
            faults: &[],
            besides: Vec::new(),
            workloads: Vec::new(),
            script: None,
            pace_min: crate::plan::PACE_MIN,
        }
    }
}

impl Directed {
    /// The plan of a seed.
    pub(super) fn plan(self, seed: u64) -> Plan {
        let mut rng = Plan::rng(seed);
        let calm = Plan::calm(seed);
        let faults = self.schedule(seed);
        let mut workloads = self.workloads;
        if workloads.is_empty() {
            workloads.push(Box::new(Registers::draw(&mut rng)));
        }
        Plan {
            setup: Setup {
                nodes: self.nodes,
                rate_ppm_max: self.rate_ppm,
                offset_ms_max: self.offset_ms,
                disk_bytes: self.disk_bytes,
                overlay_bytes: self.overlay_bytes,
                store_bytes: self.store_bytes,
                ..calm.setup
            },
            shards: self.shards,
            workloads,
            faults,
            script: self.script,
            pace_min: self.pace_min,
            ..calm
        }
    }

    /// The faults of all rounds, each within the span.
    fn schedule(&self, seed: u64) -> Schedule {
        let mut planned = self.besides.clone();
        let first = u32::try_from(seed % u64::from(self.nodes)).unwrap_or(0);
        let (mut begin, mut rng) = (Duration::ZERO, Rng::stream(seed, "directed", 0));
        for turn in first.. {
            if begin >= SPAN {
                break;
            }
            let (n, m) = (1 + turn % self.nodes, 1 + (turn + 1) % self.nodes);
            for line in self.faults {
                let text = line.replace("{n}", &n.to_string()).replace("{m}", &m.to_string());
                let text = text.replace("{d}", &rng.below(1 << 30).to_string());
                let one = read(&text);
                planned.push(Planned { at: one.at + begin, ..one });
            }
            begin += self.round;
        }
        let end = Instant::ORIGIN + SPAN;
        planned.retain(|one| one.at < end);
        for one in &mut planned {
            one.life = one.life.min(end.since(one.at));
        }
        Schedule::of(planned)
    }
}

/// A line of a scenario: a literal, and a test draws every scenario.
fn read(line: &str) -> Planned {
    line.parse().unwrap_or_else(|error| panic!("the line `{line}` of a scenario: {error}"))
}

/// Again and again waits, and lets a fault live at the leader of a shard of the
/// volume: `{n}` is its machine, `{m}` the one after it.
pub(super) fn strike_leader(
    stage: &mut Stage,
    (pause, life): (Duration, Duration),
    fault: &str,
) -> Result<(), String> {
    let end = stage.world.now() + SPAN;
    while stage.world.now() + pause + life < end {
        stage.pass(pause)?;
        // The last shard is one of the volume; the catalog comes first.
        let Some(n) = stage.checkers.leaders().into_values().next_back() else { continue };
        let nodes = u32::try_from(stage.world.nodes().len()).unwrap_or(1);
        let text = fault.replace("{n}", &n.to_string());
        let text = text.replace("{m}", &(1 + n % nodes).to_string());
        let fault: Fault = text.parse()?;
        stage.world.trace().count("leader struck");
        fault.begin(&mut stage.world);
        stage.pass(life)?;
        fault.end(&mut stage.world);
    }
    Ok(())
}
