//! One run, with its trace.

use std::{
    io::{self, Read},
    path::PathBuf,
    process::ExitCode,
};

use simulation::{
    case::Case,
    hooks::on_seeded_thread,
    scenario::{self, SWARM},
    trial::{self, Verdict},
};

use super::{Modes, run::scenario_named};

/// Longest failure printed without a trace: what a pipe holds, less counters.
const BRIEF_BYTES_MAX: usize = 32 << 10;

/// What to replay.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArguments {
    /// The run of a seed …
    #[arg(long, required_unless_present = "case")]
    seed: Option<u64>,
    /// … in this scenario …
    #[arg(long, default_value = SWARM.name)]
    scenario: String,
    /// … or the run this file tells, `-` for what is written to this command.
    #[arg(long, conflicts_with_all = ["seed", "scenario"])]
    case: Option<PathBuf>,
    #[command(flatten)]
    modes: Modes,
    /// Leaves the trace out and prints only what it came to.
    #[arg(long)]
    brief: bool,
    /// Prints what the actors log from this level on, to standard error.
    #[arg(long, value_name = "LEVEL")]
    log: Option<tracing::Level>,
}

impl ReplayArguments {
    /// The case that is meant.
    pub(crate) fn case(&self) -> io::Result<Case> {
        let Some(file) = &self.case else {
            let scenario = scenario_named(&self.scenario)?;
            let seed = self.seed.unwrap_or_default();
            return Ok(self.modes.force(Case::drawn(scenario, seed)));
        };
        let mut text = String::new();
        if file.as_os_str() == "-" {
            io::stdin().read_to_string(&mut text)?;
        } else {
            text = std::fs::read_to_string(file)?;
        }
        let fault = |error| io::Error::other(format!("{}: {error}", file.display()));
        let case: Case = text.parse().map_err(fault)?;
        Ok(self.modes.force(case))
    }
}

/// Runs a case and prints what happened; `brief` leaves the trace out.
pub(crate) fn replay(arguments: &ReplayArguments) -> io::Result<ExitCode> {
    let case = arguments.case()?;
    if scenario::find(&case.scenario).is_none() {
        return Err(io::Error::other(format!("no scenario is called `{}`", case.scenario)));
    }
    if let Some(level) = arguments.log {
        // By level only: a filter with names makes maps on the run's thread,
        // and their order there belongs to the run.
        tracing_subscriber::fmt()
            .with_max_level(level)
            .without_time()
            .with_writer(io::stderr)
            .init();
    }
    let mut verdict = play(case, !arguments.brief).map_err(io::Error::other)?;
    for line in &verdict.lines {
        println!("{line}");
    }
    if let Some(failure) = verdict.failure.as_mut().filter(|_| arguments.brief) {
        let end = (0..=BRIEF_BYTES_MAX).rev().find(|at| failure.is_char_boundary(*at));
        failure.truncate(end.unwrap_or(0));
    }
    println!("{verdict}");
    Ok(if verdict.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn play(case: Case, keep_trace: bool) -> Result<Verdict, String> {
    on_seeded_thread(case.seed, move || {
        let mut plan = case.plan()?;
        plan.setup.keep_trace = keep_trace;
        Ok(trial::play(plan))
    })
}
