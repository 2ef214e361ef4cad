//! Many seeds.

use std::{collections::BTreeMap, io, ops::ControlFlow, process::ExitCode, time::Duration};

use simulation::{
    case::Case,
    plan::PACE_MIN,
    scenario::{self, SWARM, Scenario},
    trace::WORKED,
};

use super::{
    COMMAND, Modes,
    outcome::Outcome,
    progress::{Progress, children_time},
    real_now, seeds,
    swarm::{Ended, Swarm},
    tree,
};

/// Least operations per simulated second over all runs of a command: the swarm
/// makes some 27.
const OPERATIONS_MIN: u64 = 20;
/// Fewer runs have no pace of their own.
const RUNS_OF_A_PACE: usize = 200;
/// A run or two of a scenario may miss what it is for.
const RUNS_OF_A_PROMISE: u64 = 3;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// A scenario; `all` or, without the swarm, `directed`: seeds are dealt out to
    /// them in turn.
    #[arg(long, default_value = SWARM.name)]
    scenario: String,
    #[command(flatten)]
    modes: Modes,
    /// Begins no run after so many minutes of real time.
    #[arg(long)]
    minutes: Option<u64>,
    /// Fails when fewer runs than this were made, as after `--minutes`.
    #[arg(long, default_value_t = 0)]
    at_least: usize,
    /// Runs at a time; as many as there are cores unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs the kept seeds before the others.
    #[arg(long)]
    kept: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
}

/// Runs seeds and says how it went.
pub(crate) fn run(arguments: &RunArguments) -> io::Result<ExitCode> {
    let until = arguments.minutes.map(|minutes| real_now() + Duration::from_secs(60 * minutes));
    let swarm = Swarm::of_myself(arguments.jobs, until)?;
    let mut cases = if arguments.kept { seeds::kept()? } else { Vec::new() };
    let scenarios = scenarios_named(&arguments.scenario)?;
    let last = arguments.first.saturating_add(arguments.seeds);
    cases.extend((arguments.first..last).map(|seed| deal(&scenarios, seed)));
    cases = cases.into_iter().map(|case| arguments.modes.force(case)).collect();
    let (all, keep_going) = (cases.len(), arguments.keep_going);
    let (mut tally, mut progress) = (Tally::default(), Progress::begin());
    swarm.run(cases, |ended| {
        if ended.outcome.failure.is_some() {
            progress.clear();
            tell(&ended);
        }
        tally.note(ended);
        progress.show(|| format!("{}/{all} runs, {}", tally.runs(), tally.pace()));
        if keep_going || tally.failed.is_empty() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    progress.clear();
    Ok(tally.summary(progress.elapsed(), arguments.at_least))
}

/// The scenario of a name.
pub(crate) fn scenario_named(name: &str) -> io::Result<&'static Scenario> {
    scenario::find(name).ok_or_else(|| {
        let known = || scenario::ALL.iter().map(|scenario| scenario.name);
        let known: Vec<_> = known().collect();
        io::Error::other(format!("no scenario is called `{name}`; there are: {}", known.join(", ")))
    })
}

/// The scenarios of a name, or all.
pub(crate) fn scenarios_named(name: &str) -> io::Result<Vec<&'static Scenario>> {
    if name == "all" {
        return Ok(scenario::ALL.to_vec());
    }
    if name == "directed" {
        return Ok(scenario::ALL.iter().skip(1).copied().collect());
    }
    Ok(vec![scenario_named(name)?])
}

/// Deals a seed to one of the scenarios; the swarm gets every other seed, for
/// it is the one in which anything may happen.
pub(crate) fn deal(scenarios: &[&'static Scenario], seed: u64) -> Case {
    let is_swarm = |scenario: &&'static Scenario| scenario.name == SWARM.name;
    let directed: Vec<_> = scenarios.iter().copied().filter(|one| !is_swarm(one)).collect();
    let swarm = scenarios.iter().copied().find(is_swarm);
    let (deal, turn) = match swarm {
        Some(swarm) if directed.is_empty() || !seed.is_multiple_of(2) => {
            return Case::drawn(swarm, seed);
        }
        Some(_) => (directed, seed / 2),
        None => (directed, seed),
    };
    let turn = usize::try_from(turn).unwrap_or(0) % deal.len().max(1);
    Case::drawn(deal.get(turn).copied().unwrap_or(&SWARM), seed)
}

/// Adds to a counter; one that keeps the most of something takes the greater.
fn add(total: &mut u64, name: &str, count: u64) {
    *total = if name.starts_with("most ") { count.max(*total) } else { *total + count };
}

/// Says what failed and how to see it again.
fn tell(ended: &Ended) {
    let Ended { case, outcome } = ended;
    let commit = tree::commit();
    println!("seed {} of scenario {} at commit {commit} failed:", case.seed, case.scenario);
    for (name, count) in &outcome.counters {
        println!("{count:>8} {name}");
    }
    println!("{}", outcome.failure.as_deref().unwrap_or_default());
    let name = format!("{}-{}", case.scenario, case.seed);
    let remark = format!("failed at commit {commit}: {}", outcome.headline());
    match seeds::write(case, &name, &remark) {
        Ok(file) => {
            let file = file.display();
            println!("replay with: {COMMAND} replay --case {file}");
            println!("shrink with: {COMMAND} shrink --case {file}");
        }
        Err(error) => {
            println!("its case could not be written ({error}):\n{case}");
        }
    }
}

/// What all runs came to.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    simulated_ms: u64,
    /// Of that, what had clients' work in it.
    worked_ms: u64,
    /// What all runs met: faults that never strike prove nothing.
    met: BTreeMap<String, u64>,
    /// The same by scenario, with the number of runs.
    scenarios: BTreeMap<String, (u64, BTreeMap<String, u64>)>,
}

impl Tally {
    fn note(&mut self, ended: Ended) {
        let Outcome { failure, counters, simulated_ms } = ended.outcome;
        self.simulated_ms += simulated_ms;
        self.worked_ms += worked_ms(&counters, simulated_ms);
        let (runs, met) = self.scenarios.entry(ended.case.scenario.clone()).or_default();
        *runs += 1;
        for (name, count) in counters {
            add(met.entry(name.clone()).or_default(), &name, count);
            add(self.met.entry(name.clone()).or_default(), &name, count);
        }
        match failure {
            None => self.passed += 1,
            Some(_) => self.failed.push(format!("{} {}", ended.case.scenario, ended.case.seed)),
        }
    }

    fn runs(&self) -> usize {
        self.passed + self.failed.len()
    }

    /// Simulated time with clients' work in it, and how much of it a second of
    /// one processor makes.
    fn pace(&self) -> String {
        let (failed, simulated) = (self.failed.len(), Duration::from_millis(self.worked_ms));
        let spent = children_time().filter(|spent| !spent.is_zero());
        let pace = spent.map(|spent| simulated.as_secs_f64() / spent.as_secs_f64());
        let pace = pace.map_or_else(String::new, |pace| format!(", {pace:.0} per core-second"));
        format!("{failed} failed, {} simulated s{pace}", simulated.as_secs())
    }

    /// Promises that no run of their scenario kept, of those that ran often enough.
    fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, (runs, met)) in &self.scenarios {
            if *runs < RUNS_OF_A_PROMISE {
                continue;
            }
            let promises = scenario::find(name).map_or(&[][..], Scenario::promises);
            let never = promises.iter().filter(|promise| !met.contains_key(**promise));
            broken.extend(
                never.map(|promise| {
                    format!("{name} promised `{promise}` and met none in {runs} runs")
                }),
            );
        }
        broken
    }

    /// Operations per simulated second over all runs, if they are too few. One
    /// run may have no majority for most of its time; many have not.
    fn idleness(&self) -> Option<String> {
        let met = |name: &str| self.met.get(name).copied().unwrap_or(0);
        let (operations, seconds) = (met("operation"), self.simulated_ms / 1_000);
        let idle = self.runs() >= RUNS_OF_A_PACE && operations < OPERATIONS_MIN * seconds;
        idle.then(|| {
            format!(
                "{operations} operations in {seconds} simulated s, where {OPERATIONS_MIN} a \
                 second are the least"
            )
        })
    }

    fn summary(&self, took: Duration, at_least: usize) -> ExitCode {
        for (name, count) in &self.met {
            println!("{count:>10} {name}");
        }
        let (passed, pace) = (self.passed, self.pace());
        println!("{passed} passed, {pace} in {:.1} s", took.as_secs_f64());
        let mut faults = self.broken_promises();
        faults.extend(self.idleness());
        if !self.failed.is_empty() {
            faults.push(format!("failed: {}", self.failed.join(", ")));
        } else if self.runs() < at_least {
            faults.push(format!("only {} runs were made, {at_least} are wanted", self.runs()));
        }
        for fault in &faults {
            println!("{fault}");
        }
        if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Simulated time of a run that had clients' work in it: all of it when they ended
/// [`PACE_MIN`] operations per second of it, else the seconds in which one ended.
fn worked_ms(counters: &BTreeMap<String, u64>, simulated_ms: u64) -> u64 {
    let counted = |name| counters.get(name).copied().unwrap_or(0);
    if counted("operation") * 1_000 >= PACE_MIN * simulated_ms {
        simulated_ms
    } else {
        counted(WORKED) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ended(scenario: &str, counters: &[&str]) -> Ended {
        let case = Case { scenario: scenario.to_owned(), ..Case::drawn(&SWARM, 1) };
        let counters = counters.iter().map(|name| ((*name).to_owned(), 1)).collect();
        Ended { case, outcome: Outcome { failure: None, counters, simulated_ms: 60_000 } }
    }

    #[test]
    fn a_promise_is_kept_by_any_run_and_broken_by_none() {
        let mut tally = Tally::default();
        (1..RUNS_OF_A_PROMISE).for_each(|_| tally.note(ended("swarm", &["election"])));
        assert_eq!(tally.broken_promises(), Vec::<String>::new(), "chance");
        tally.note(ended("swarm", &["election"]));
        assert_eq!(tally.broken_promises().len(), SWARM.promises.len() - 1);
        tally.note(ended("swarm", SWARM.promises));
        assert_eq!(tally.broken_promises(), Vec::<String>::new());
    }

    #[test]
    fn runs_in_which_nobody_works_fail_together_and_not_alone() {
        let mut tally = Tally::default();
        tally.note(ended("swarm", SWARM.promises));
        assert_eq!(tally.idleness(), None, "one may be cut off");
        (1..RUNS_OF_A_PACE).for_each(|_| tally.note(ended("swarm", SWARM.promises)));
        assert!(tally.idleness().is_some());
        tally.met.insert("operation".to_owned(), OPERATIONS_MIN * 60 * RUNS_OF_A_PACE as u64);
        assert_eq!(tally.idleness(), None);
    }

    #[test]
    fn time_in_which_nobody_works_is_not_counted() {
        let counters = |operations| {
            BTreeMap::from([("operation".to_owned(), operations), (WORKED.to_owned(), 7)])
        };
        assert_eq!(worked_ms(&counters(PACE_MIN * 60), 60_000), 60_000);
        assert_eq!(worked_ms(&counters(PACE_MIN * 60 - 1), 60_000), 7_000);
        assert_eq!(worked_ms(&BTreeMap::new(), 60_000), 0);
    }

    #[test]
    fn too_few_runs_fail() {
        let mut tally = Tally::default();
        tally.note(ended("swarm", SWARM.promises));
        let code = |at_least| format!("{:?}", tally.summary(Duration::ZERO, at_least));
        assert_eq!(code(1), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(2), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn seeds_are_dealt_to_all_scenarios_and_half_of_them_to_the_first() {
        let scenarios = &scenario::ALL;
        let dealt = |seed| deal(scenarios, seed).scenario;
        let runs: Vec<String> = (0..4 * scenarios.len() as u64).map(dealt).collect();
        for scenario in scenarios.iter() {
            assert!(runs.iter().any(|name| name == scenario.name), "{}", scenario.name);
        }
        let first = runs.iter().filter(|name| *name == scenarios[0].name).count();
        assert!(first * 2 >= runs.len());
    }

    #[test]
    fn as_many_seeds_as_there_are_directed_scenarios_run_each_once() {
        let directed = scenarios_named("directed").unwrap();
        let count = directed.len() as u64;
        let runs: BTreeSet<String> =
            (7..7 + count).map(|seed| deal(&directed, seed).scenario).collect();
        assert_eq!(runs.len(), directed.len());
        assert!(!runs.contains(SWARM.name));
        assert_eq!(deal(&scenarios_named("alone").unwrap(), 3).scenario, "alone");
    }
}
