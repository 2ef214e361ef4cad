//! The simulator as a command: run seeds, replay one.

use std::{
    process::{Command, ExitCode, Output, Stdio},
    time::Duration,
};

use clap::{Parser, Subcommand};
use simulation::{
    hooks::on_seeded_thread,
    plan::Plan,
    scenario::SWARM,
    trial::{self, Verdict},
    world::NetworkMode,
};

/// Seeds whose runs once failed, with what they found.
const KEPT: &str = include_str!("../seeds/kept.txt");

#[derive(Debug, Parser)]
#[command(about = "Runs ClusterDB's actors in a simulated world")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs seeds, each in a process of its own, and stops at the first that fails.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Ends after so many minutes of real time.
        #[arg(long)]
        minutes: Option<u64>,
        /// Runs at a time; as many as there are cores unless given.
        #[arg(long)]
        jobs: Option<usize>,
        /// Runs the kept seeds before the others.
        #[arg(long)]
        kept: bool,
        /// Goes on after a failure.
        #[arg(long)]
        keep_going: bool,
        /// What lies below the network port, whatever the seeds say.
        #[arg(long)]
        network: Option<NetworkMode>,
    },
    /// Runs one seed and prints its trace.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Leaves the trace out and prints only what it came to.
        #[arg(long)]
        brief: bool,
        /// What lies below the network port, whatever the seed says.
        #[arg(long)]
        network: Option<NetworkMode>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Replay { seed, brief, network } => replay(seed, brief, network),
        Verb::Run { seeds, first, minutes, jobs, kept, keep_going, network } => {
            let chosen = kept.then(kept_seeds).into_iter().flatten();
            let all = chosen.chain(first..first.saturating_add(seeds)).collect();
            let jobs = jobs.unwrap_or_else(|| {
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
            });
            let until = deadline(minutes);
            Swarm { jobs, keep_going, network, until, ..Swarm::default() }.run(all)
        }
    }
}

fn kept_seeds() -> Vec<u64> {
    let first = |line: &str| line.split_whitespace().next().and_then(|word| word.parse().ok());
    KEPT.lines().filter_map(first).collect()
}

fn play(seed: u64, keep_trace: bool, network: Option<NetworkMode>) -> Verdict {
    on_seeded_thread(seed, move || {
        let mut plan = Plan::draw(seed, &SWARM);
        plan.setup.keep_trace = keep_trace;
        plan.setup.network = network.unwrap_or(plan.setup.network);
        trial::play(plan)
    })
}

fn replay(seed: u64, brief: bool, network: Option<NetworkMode>) -> ExitCode {
    let verdict = play(seed, !brief, network);
    for line in &verdict.lines {
        println!("{line}");
    }
    println!("{verdict}");
    if verdict.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Real time is the command's own business, not the world's.
#[expect(clippy::disallowed_methods, reason = "limits the command, never the simulated world")]
fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}

fn deadline(minutes: Option<u64>) -> Option<std::time::Instant> {
    minutes.map(|minutes| real_now() + Duration::from_secs(60 * minutes))
}

/// Many runs, a few at a time.
#[derive(Debug, Default)]
struct Swarm {
    jobs: usize,
    keep_going: bool,
    network: Option<NetworkMode>,
    until: Option<std::time::Instant>,
    passed: u64,
    failed: Vec<u64>,
    simulated_ms: u64,
    /// What all runs met: faults that never strike prove nothing.
    met: std::collections::BTreeMap<String, u64>,
}

impl Swarm {
    fn run(mut self, seeds: Vec<u64>) -> ExitCode {
        let began = real_now();
        let mut waiting = seeds.into_iter();
        let mut running = std::collections::VecDeque::new();
        loop {
            while running.len() < self.jobs.max(1) && self.goes_on() {
                let Some(seed) = waiting.next() else { break };
                match begin(seed, self.network) {
                    Ok(child) => running.push_back((seed, child)),
                    Err(error) => return cannot_run(&error),
                }
            }
            let Some((seed, child)) = running.pop_front() else { break };
            match child.wait_with_output() {
                Ok(output) => self.note(seed, &output),
                Err(error) => return cannot_run(&error),
            }
        }
        self.summary(began.elapsed())
    }

    fn goes_on(&self) -> bool {
        let in_time = self.until.is_none_or(|until| real_now() < until);
        in_time && (self.keep_going || self.failed.is_empty())
    }

    fn note(&mut self, seed: u64, output: &Output) {
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        let simulated = last.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        self.simulated_ms += simulated.unwrap_or(0);
        for (count, name) in text.lines().filter_map(counter) {
            *self.met.entry(name.to_owned()).or_default() += count;
        }
        if output.status.success() {
            self.passed += 1;
            return;
        }
        self.failed.push(seed);
        println!("seed {seed} at commit {} failed:", commit());
        print!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let forced = forced(self.network).map_or_else(String::new, |flag| format!(" {flag}"));
        println!("replay with: cargo run -p simulation --release -- replay --seed {seed}{forced}");
    }

    fn summary(&self, took: Duration) -> ExitCode {
        for (name, count) in &self.met {
            println!("{count:>10} {name}");
        }
        let simulated = Duration::from_millis(self.simulated_ms);
        println!(
            "{} passed, {} failed {:?}; {} simulated seconds in {:.1} s",
            self.passed,
            self.failed.len(),
            self.failed,
            simulated.as_secs(),
            took.as_secs_f64(),
        );
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A line of a run's counters.
fn counter(line: &str) -> Option<(u64, &str)> {
    let (count, name) = line.strip_prefix(' ')?.trim_start().split_once(' ')?;
    Some((count.parse().ok()?, name))
}

fn begin(seed: u64, network: Option<NetworkMode>) -> std::io::Result<std::process::Child> {
    Command::new(std::env::current_exe()?)
        .args(["replay", "--brief", "--seed", &seed.to_string()])
        .args(forced(network))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The flag that gives a replay the same network.
fn forced(network: Option<NetworkMode>) -> Option<String> {
    let value = network.as_ref().and_then(clap::ValueEnum::to_possible_value);
    value.map(|value| format!("--network={}", value.get_name()))
}

fn cannot_run(error: &std::io::Error) -> ExitCode {
    eprintln!("a run cannot be started: {error}");
    ExitCode::FAILURE
}

fn commit() -> String {
    let asked = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    asked.ok().filter(|output| output.status.success()).map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
