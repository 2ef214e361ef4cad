//! The simulator as a command; `command` has a file for each verb.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command::{mutants, replay, run, scenarios, shrink};
use mimalloc::MiMalloc;

/// A world is made of small pieces that live for microseconds.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Runs ClusterDB's actors in a simulated world")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs seeds, each in a process of its own, and stops at the first that fails.
    Run(run::RunArguments),
    /// Runs one seed, or a case, and prints its trace.
    Replay(replay::ReplayArguments),
    /// Makes a failing run smaller: fewer faults, clients and shards, less time.
    Shrink(shrink::ShrinkArguments),
    /// Names the scenarios.
    Scenarios,
    /// Plants bugs in a copy of the sources and shows that each is caught.
    Mutants(mutants::MutantsArguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Replay(arguments) => replay::replay(&arguments),
        Verb::Shrink(arguments) => shrink::shrink(&arguments),
        Verb::Scenarios => Ok(scenarios::scenarios()),
        Verb::Mutants(arguments) => mutants::mutants(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("simulation: {error}");
        ExitCode::from(2)
    })
}
