//! Quinn mode: the real transport over simulated packets.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use cluster::units::Instant;
use rustix::process::{Pid, Signal, kill_process};
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

/// Begins a short run of a seed, in a process of its own.
fn begin(seed: u64) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_simulation"))
        .args(["replay", "--network", "quinn", "--case", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the simulator starts");
    let mut case = child.stdin.take().expect("a pipe");
    write!(case, "seed: {seed}\nspan: 4.000\n").expect("it reads its case");
    child
}

/// Stops them again and again for longer than the world's time lasts: real
/// time passes while the world stands still.
fn stall(children: &[Child]) {
    let tell = |signal| {
        for child in children {
            kill_process(Pid::from_child(child), signal).expect("nobody has waited for it");
        }
    };
    for _ in 0..10 {
        sleep(Duration::from_millis(100));
        tell(Signal::STOP);
        sleep(Duration::from_secs(2));
        tell(Signal::CONT);
    }
}

fn trace(child: Child) -> String {
    String::from_utf8(child.wait_with_output().expect("an end").stdout).expect("text")
}

#[test]
fn one_seed_over_real_quic_gives_one_trace_however_long_it_takes() {
    const SEEDS: [u64; 3] = [7, 14, 20];
    let (calm, stalled) = (SEEDS.map(begin), SEEDS.map(begin));
    stall(&stalled);
    for (seed, (calm, stalled)) in SEEDS.into_iter().zip(calm.into_iter().zip(stalled)) {
        let (first, second) = (trace(calm), trace(stalled));
        let differ = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}: the first lines that differ");
        assert_eq!(first.lines().count(), second.lines().count());
        assert!(first.lines().count() > 100, "a short trace shows nothing:\n{first}");
    }
}
