//! Quinn mode: the real transport over simulated packets.

use std::{process::Command, time::Duration};

use cluster::units::Instant;
use simulation::{
    faults::{Fault, Planned, Schedule},
    hooks::on_seeded_thread,
    plan::Plan,
    trial::{self, Verdict},
    workloads::register::Registers,
    world::{NetworkMode, Setup},
};

/// Ten seconds of four busy clients over real QUIC.
fn play(seed: u64, faults: Vec<Fault>, no_errors: bool) -> Verdict {
    on_seeded_thread(seed, move || {
        let (at, life) = (Instant::ORIGIN, Duration::from_secs(10));
        let whole = |fault| Planned { at, life, fault };
        let calm = Plan::calm(seed);
        let rest = (Duration::from_millis(1), Duration::from_millis(20));
        trial::play(Plan {
            setup: Setup { network: NetworkMode::Quinn, ..calm.setup.clone() },
            span: life,
            workloads: vec![Box::new(Registers::new(4, 4, rest))],
            faults: Schedule::of(faults.into_iter().map(whole)),
            no_errors,
            ..calm
        })
    })
}

fn counted(verdict: &Verdict, name: &str) -> u64 {
    verdict.counters.iter().find(|(found, _)| found == name).map_or(0, |(_, count)| *count)
}

#[test]
fn a_calm_cluster_over_real_quic_serves_and_fails_nobody() {
    let verdict = play(1, Vec::new(), true);
    assert_eq!(verdict.failure, None, "{verdict}");
    assert!(counted(&verdict, "operation") > 500, "{verdict}");
}

#[test]
fn packets_lost_doubled_reordered_bent_and_replayed_cost_time_and_nothing_else() {
    let faults = vec![
        Fault::Drop { ppm: 100_000 },
        Fault::Duplicate { ppm: 50_000 },
        Fault::Reorder { ppm: 50_000 },
        Fault::PacketFlip { ppm: 50_000 },
        Fault::PacketReplay { ppm: 50_000 },
    ];
    let verdict = play(2, faults, false);
    assert_eq!(verdict.failure, None, "{verdict}");
    for what in ["lost", "doubled", "reordered", "flipped", "replayed"] {
        assert!(counted(&verdict, &format!("packet {what}")) > 50, "{what}:\n{verdict}");
    }
    assert!(counted(&verdict, "operation") > 50, "{verdict}");
}

#[test]
fn one_seed_over_real_quic_gives_one_trace() {
    let trace = || {
        let arguments = ["replay", "--seed", "7", "--network", "quinn"];
        let output = Command::new(env!("CARGO_BIN_EXE_simulation")).args(arguments).output();
        String::from_utf8(output.expect("the simulator runs").stdout).expect("text")
    };
    let (first, second) = (trace(), trace());
    let differ = first.lines().zip(second.lines()).find(|(a, b)| a != b);
    assert_eq!(differ, None, "the first lines that differ");
    assert_eq!(first.lines().count(), second.lines().count());
    assert!(first.lines().count() > 500, "a short trace shows nothing:\n{first}");
}
