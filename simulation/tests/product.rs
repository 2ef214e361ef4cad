//! The product in the world: the kept seeds pass, and one seed is one trace.
//! More seeds are the binary's work: `simulation run --seeds N`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

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
