//! Everything drawn: machines, clocks, network, clients and faults.

use std::time::Duration;

use cluster::units::Instant;

use super::Scenario;
use crate::{
    faults::{Ground, Schedule},
    network::Weather,
    plan::Plan,
    rng::Rng,
    workloads::register::Registers,
    world::Setup,
};

/// The default.
pub static SWARM: Scenario = Scenario {
    name: "swarm",
    rows: &[],
    story: "a random subset of all faults strikes at random rates",
    plan,
    promises: &["election", "operation", "start"],
};

fn plan(seed: u64) -> Plan {
    let mut rng = Plan::rng(seed);
    let calm = Plan::calm(seed);
    let setup = setup(&mut rng, &calm.setup);
    let from = Instant::ORIGIN;
    let ground = Ground { nodes: setup.nodes, from, to: from + calm.span };
    let shards_max = if rng.chance(150_000) { 16 } else { 4 };
    Plan {
        faults: Schedule::draw(seed, &ground),
        setup,
        shards: 1 + rng.number(shards_max),
        workloads: vec![Box::new(Registers::draw(&mut rng))],
        ..calm
    }
}

fn setup(rng: &mut Rng, calm: &Setup) -> Setup {
    let skewed = rng.chance(300_000);
    let far = rng.chance(200_000);
    let latency_max = if far { Duration::from_millis(30) } else { Duration::from_millis(2) };
    let weather = Weather {
        latency_max: rng.between(Duration::from_micros(600), latency_max),
        ..Weather::CALM
    };
    let nodes = *rng.pick(&[3, 3, 3, 3, 5, 5, 5, 4, 6, 7]).unwrap_or(&3);
    Setup {
        nodes,
        zones: 1 + rng.number(nodes),
        weather,
        rate_ppm_max: if skewed { 30_000 } else { 100 },
        offset_ms_max: if rng.chance(300_000) { 150 } else { 5 },
        ..calm.clone()
    }
}
