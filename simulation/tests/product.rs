//! The product in the world: the kept seeds pass, and one seed is one trace.
//! More seeds are the binary's work: `simulation run --seeds N`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    process::{Command, Output},
    time::Duration,
};

use cluster::units::Instant;
use simulation::{
    faults::{Fault, Planned, Schedule},
    hooks::on_seeded_thread,
    plan::{Plan, SPAN},
    scenario::SWARM,
    trial,
    world::Setup,
};

fn simulation(arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_simulation");
    Command::new(binary).args(arguments).output().expect("the simulator runs")
}

#[test]
fn one_seed_of_the_product_gives_one_trace() {
    let trace = || {
        let output = simulation(&["replay", "--seed", "7"]);
        String::from_utf8(output.stdout).expect("text")
    };
    let (first, second) = (trace(), trace());
    let differ = first.lines().zip(second.lines()).find(|(a, b)| a != b);
    assert_eq!(differ, None, "the first lines that differ");
    assert_eq!(first.lines().count(), second.lines().count());
    assert!(first.lines().count() > 500, "a short trace shows nothing:\n{first}");
}

#[test]
fn kept_and_a_few_other_seeds_pass() {
    let output = simulation(&["run", "--kept", "--seeds", "4", "--jobs", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("0 failed"), "{text}");
}

/// How long a killed machine stays down.
const DOWN: Duration = Duration::from_secs(3);

/// Kills each machine in turn, leaders among them, one at a time.
fn rolling_deaths(span: Duration) -> Schedule {
    let mut faults = Vec::new();
    let mut at = Instant::ORIGIN + Duration::from_secs(2);
    for node in [1, 2, 3].into_iter().cycle() {
        if at + DOWN > Instant::ORIGIN + span {
            break;
        }
        let power = faults.len() % 2 == 0;
        let fault = if power { Fault::PowerLoss { node } } else { Fault::Kill { node } };
        faults.push(Planned { at, life: DOWN, fault });
        at = at + Duration::from_secs(6);
    }
    Schedule::of(faults)
}

#[test]
fn a_dead_leader_costs_a_client_a_pause_and_never_an_error() {
    for seed in 1..=2 {
        let verdict = on_seeded_thread(seed, move || {
            let plan = Plan {
                setup: Setup { keep_trace: false, ..Setup::calm(seed) },
                faults: rolling_deaths(SPAN),
                no_errors: true,
                ..Plan::draw(seed, &SWARM)
            };
            trial::play(plan)
        });
        assert_eq!(verdict.failure, None, "seed {seed}:\n{verdict}");
    }
}
