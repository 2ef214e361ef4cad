//! Everything drawn: machines, clocks, network, clients and faults.

use std::time::Duration;

use cluster::units::Instant;

use super::Scenario;
use crate::{
    faults::{Ground, Group, Schedule},
    network::Weather,
    plan::Plan,
    rng::Rng,
    workloads::{
        Workload, accounts::Accounts, append::Appends, bank::Bank, counters::Counters,
        doors::Doors, leases::Leases, levels::Levels, listing::Listings, register::Registers,
        restores::Restores, transactions::Transactions, transfers::Transfers, volumes::Volumes,
        watches::Watches,
    },
    world::{NetworkMode, Setup},
};

/// The default.
pub static SWARM: Scenario = Scenario {
    name: "swarm",
    rows: &[],
    story: "a random subset of all faults strikes at random rates",
    plan,
    promises: &["election", "operation", "start"],
};

/// What a closed time may lag besides: proposals that wait for a disk or a
/// leader are older than the reads that see them.
const SLACK: Duration = Duration::from_millis(500);

fn plan(seed: u64) -> Plan {
    let mut rng = Plan::rng(seed);
    let calm = Plan::calm(seed);
    let setup = Setup {
        network: network(seed),
        overlay_bytes: overlay_bytes(seed),
        ..setup(&mut rng, &calm.setup)
    };
    let from = Instant::ORIGIN;
    let to = from + calm.span;
    let ground = Ground { nodes: setup.nodes, from, to, groups: Group::ALL };
    // What offsets and rates add up to over a run, for both directions.
    let drift = Duration::from_micros(u64::from(setup.rate_ppm_max) * 80);
    let clocks_apart = (drift + Duration::from_millis(u64::from(setup.offset_ms_max))) * 2 + SLACK;
    let shards_max = if rng.chance(150_000) { 16 } else { 4 };
    Plan {
        faults: Schedule::draw(seed, &ground),
        setup,
        shards: 1 + rng.number(shards_max),
        workloads: workloads(&mut rng, seed, clocks_apart),
        leisure: leisure(seed),
        // Faults may leave clients without a majority for most of a run;
        // progress is demanded when they have ended.
        pace_min: 0,
        ..calm
    }
}

/// Busy clients fill queues and batches; clients at leisure meet shards that
/// sleep, and let more time of a cluster pass for each second of a core.
fn leisure(seed: u64) -> u32 {
    // A stream of its own: it came later and shifts no other draw.
    let leisures = [1, 4, 8, 8, 16, 16, 16, 16];
    Rng::stream(seed, "leisure", 0).pick(&leisures).copied().unwrap_or(1)
}

/// One seed in eight runs over real QUIC: it costs about twice a seed over the
/// port, so all of them together cost an eighth more.
fn network(seed: u64) -> NetworkMode {
    // A stream of its own: the mode shifts no other draw.
    let quinn = Rng::stream(seed, "network mode", 0).chance(125_000);
    if quinn { NetworkMode::Quinn } else { NetworkMode::Port }
}

/// In one seed of eight all goes to the stores soon: reads meet flushes there, and
/// restarts find little in the log.
fn overlay_bytes(seed: u64) -> Option<usize> {
    // A stream of its own, as above.
    Rng::stream(seed, "overlays", 0).chance(125_000).then_some(64 << 10)
}

fn setup(rng: &mut Rng, calm: &Setup) -> Setup {
    let skewed = rng.chance(300_000);
    let far = rng.chance(200_000);
    let farther = Duration::from_millis(if far { 30 } else { 2 });
    let latency_min = Duration::from_millis(1 << rng.below(3));
    let latency_max = latency_min + rng.between(Duration::from_micros(300), farther);
    let weather = Weather { latency_min, latency_max, ..Weather::CALM };
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

/// Registers always, and each of the others in some seeds.
fn workloads(rng: &mut Rng, seed: u64, clocks_apart: Duration) -> Vec<Box<dyn Workload>> {
    let mut all: Vec<Box<dyn Workload>> = vec![Box::new(Registers::draw(rng))];
    if rng.chance(300_000) {
        all.push(Box::new(Bank::draw(rng)));
    }
    if rng.chance(300_000) {
        all.push(Box::new(Listings::draw(rng)));
    }
    if rng.chance(300_000) {
        all.push(Box::new(Appends::draw(rng)));
    }
    if rng.chance(300_000) {
        all.push(Box::new(Levels::draw(rng, clocks_apart)));
    }
    if rng.chance(300_000) {
        all.push(Box::new(Counters::draw(rng)));
    }
    if rng.chance(300_000) {
        all.push(Box::new(Transfers::draw(rng)));
    }
    if rng.chance(150_000) {
        all.push(Box::new(Volumes::draw(rng)));
    }
    // A stream of its own: these came later and shift no other draw.
    let mut rng = Rng::stream(seed, "watches and leases", 0);
    if rng.chance(300_000) {
        all.push(Box::new(Watches::draw(&mut rng)));
    }
    if rng.chance(200_000) {
        all.push(Box::new(Leases::draw(&mut rng)));
    }
    let mut rng = Rng::stream(seed, "transactions and accounts", 0);
    if rng.chance(200_000) {
        all.push(Box::new(Transactions::draw(&mut rng)));
    }
    if rng.chance(100_000) {
        all.push(Box::new(Accounts::draw(&mut rng)));
    }
    let mut rng = Rng::stream(seed, "restores and doors", 0);
    if rng.chance(100_000) {
        all.push(Box::new(Restores::draw(&mut rng)));
    }
    if rng.chance(100_000) {
        all.push(Box::new(Doors::draw(&mut rng)));
    }
    all
}
