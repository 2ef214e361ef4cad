//! Real storage: LMDB and the log's own files, and what a power cut leaves.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{process::Command, time::Duration};

use simulation::{
    disk::{Death, StorageMode},
    hooks::on_seeded_thread,
    plan::Plan,
    stage::{Stage, VOLUME},
    trial::{self, Verdict},
    workloads::register::Registers,
    world::Setup,
};

fn setup(seed: u64) -> Setup {
    Setup { storage: StorageMode::Real, ..Setup::calm(seed) }
}

/// Ten seconds of two clients, and the power cut that ends every trial.
fn play(seed: u64) -> Verdict {
    on_seeded_thread(seed, move || {
        let calm = Plan::calm(seed);
        let rest = (Duration::from_millis(1), Duration::from_millis(50));
        trial::play(Plan {
            setup: setup(seed),
            span: Duration::from_secs(10),
            workloads: vec![Box::new(Registers::new(2, 4, rest))],
            ..calm
        })
    })
}

#[test]
fn real_disks_keep_every_acknowledged_write_through_a_power_cut() {
    let verdict = play(1);
    assert_eq!(verdict.failure, None, "{verdict}");
}

/// Whether an acknowledged write is there after all machines lost power.
fn survives(lies: bool) -> bool {
    on_seeded_thread(3, move || {
        let mut stage = Stage::product(&setup(3));
        stage.found(1).expect("a cluster");
        for node in stage.world.nodes() {
            let disk = stage.world.storage(node).expect("a machine").real.as_ref();
            disk.expect("a real disk").lie(lies);
        }
        let client = stage.client(1);
        for number in 0..20 {
            let client = client.clone();
            let put =
                async move { client.put(VOLUME, &format!("key-{number}"), vec![7; 100]).await };
            stage.ask("put", Duration::from_secs(30), put).expect("a live world").expect("a put");
        }
        stage.world.crash_all(Death::Power);
        stage.world.start_all();
        (0..20).all(|number| {
            let client = client.clone();
            let get = async move { client.get(VOLUME, &format!("key-{number}")).await };
            let got = stage.ask("get", Duration::from_mins(1), get);
            matches!(got, Ok(Ok(Some(_))))
        })
    })
}

#[test]
fn the_judge_barks_when_syncs_are_left_out() {
    assert!(survives(false));
    assert!(!survives(true), "a write that no sync covered outlived the power");
}

/// A swarm's seed with kills, power cuts and full disks, in a process.
#[test]
fn one_seed_on_real_disks_gives_one_trace() {
    for seed in [2, 7] {
        let trace = || {
            let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
                .args(["replay", "--storage", "real", "--network", "port"])
                .args(["--seed", &seed.to_string()])
                .output();
            String::from_utf8(output.expect("the simulator runs").stdout).expect("text")
        };
        let (first, second) = (trace(), trace());
        let differ = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}: the first lines that differ");
        assert_eq!(first.lines().count(), second.lines().count());
        assert!(first.lines().count() > 500, "a short trace shows nothing:\n{first}");
    }
}
