//! A smaller run that still fails: delta debugging over a case.
//!
//! Faults are taken away in halves, quarters and so on, as far as the run still
//! fails in the same way; then workloads, clients, keys, shards and time. All
//! candidates of a round run side by side, and the first that fails is taken.
//!
//! Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
//! Input", IEEE TSE 2002.

use std::{io, ops::ControlFlow, process::ExitCode, time::Duration};

use simulation::{
    case::Case,
    faults::{Planned, Schedule},
};

use super::{
    progress::Progress,
    real_now,
    replay::ReplayArguments,
    seeds,
    swarm::{Ended, Swarm},
};

/// What to make smaller.
#[derive(Debug, clap::Args)]
pub(crate) struct ShrinkArguments {
    #[command(flatten)]
    what: ReplayArguments,
    /// Ends after so many minutes of real time, with the smallest so far.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Runs at a time; as many as there are cores unless given.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Shrinks, prints the smallest and writes it down.
pub(crate) fn shrink(arguments: &ShrinkArguments) -> io::Result<ExitCode> {
    let case = arguments.what.case()?;
    let until = real_now() + Duration::from_secs(60 * arguments.minutes);
    let swarm = Swarm::of_myself(arguments.jobs, Some(until))?;
    let faults = case.plan().map_err(io::Error::other)?.faults;
    let drawn = Case { faults: Some(faults), ..case };
    let mut shrinker = Shrinker::new(&swarm, drawn)?;
    let Some(manner) = shrinker.first()? else {
        println!("this run passes: there is nothing to shrink");
        return Ok(ExitCode::FAILURE);
    };
    println!("it fails: {manner}");
    shrinker.run()?;
    let Shrinker { smallest, failure, tries, .. } = shrinker;
    let name = format!("{}-{}-small", smallest.scenario, smallest.seed);
    let file = seeds::write(&smallest, &name, &failure)?;
    println!("{tries} runs later, the smallest that fails so:\n\n{smallest}\n{failure}\n");
    let file = file.display();
    println!("replay with: cargo run -p simulation --release -- replay --case {file}");
    Ok(ExitCode::SUCCESS)
}

struct Shrinker<'a> {
    swarm: &'a Swarm,
    smallest: Case,
    failure: String,
    /// How it fails, in a word: another failure is another bug.
    manner: String,
    workloads: Vec<&'static str>,
    tries: usize,
    progress: Progress,
}

impl<'a> Shrinker<'a> {
    fn new(swarm: &'a Swarm, smallest: Case) -> io::Result<Self> {
        let plan = smallest.plan().map_err(io::Error::other)?;
        let workloads = plan.workloads.iter().map(|workload| workload.name()).collect();
        let (failure, manner) = (String::new(), String::new());
        let progress = Progress::begin();
        Ok(Self { swarm, smallest, failure, manner, workloads, tries: 0, progress })
    }

    /// Runs the case as it came; how it fails, if it does.
    fn first(&mut self) -> io::Result<Option<String>> {
        let mut found = None;
        self.swarm.run([self.smallest.clone()], |ended| {
            found = ended.outcome.failure.as_ref().map(|_| ended.outcome.headline());
            ControlFlow::Break(())
        })?;
        if let Some(headline) = &found {
            self.failure.clone_from(headline);
            self.manner = manner(headline);
        }
        Ok(found)
    }

    /// Takes away, round after round, until nothing more can go.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let before = self.smallest.clone();
            self.fewer_faults()?;
            while self.take_any(self.simpler())? {}
            if self.smallest == before || self.swarm.is_late() {
                self.progress.clear();
                return Ok(());
            }
        }
    }

    /// Takes faults away: all but one part of them, or one part.
    fn fewer_faults(&mut self) -> io::Result<()> {
        let mut parts = 1;
        loop {
            let faults = self.faults();
            if faults.is_empty() || parts > faults.len() {
                return Ok(());
            }
            let candidates = without_parts(&faults, parts)
                .into_iter()
                .map(|faults| Case { faults: Some(Schedule::of(faults)), ..self.smallest.clone() });
            if self.take_any(candidates.collect())? {
                parts = parts.saturating_sub(1).max(1);
            } else if parts == faults.len() || self.swarm.is_late() {
                return Ok(());
            } else {
                parts = (parts * 2).min(faults.len());
            }
        }
    }

    fn faults(&self) -> Vec<Planned> {
        self.smallest.faults.as_ref().map_or_else(Vec::new, |faults| faults.faults().to_vec())
    }

    /// Everything but faults, each one step simpler.
    fn simpler(&self) -> Vec<Case> {
        let now = || self.smallest.clone();
        let mut simpler = Vec::new();
        let Ok(plan) = self.smallest.plan() else { return simpler };
        let present: Vec<_> = plan.workloads.iter().map(|workload| workload.name()).collect();
        for name in self.workloads.iter().filter(|name| present.contains(name)) {
            if present.len() > 1 {
                let mut case = now();
                case.without.push((*name).to_owned());
                simpler.push(case);
            }
        }
        for mut workload in plan.workloads {
            if workload.make_smaller() {
                simpler.push(made_smaller(now(), workload.name()));
            }
        }
        if plan.shards > 1 {
            simpler.push(Case { shards: Some(plan.shards.div_ceil(2)), ..now() });
        }
        if plan.script.is_none() && plan.span > Duration::from_secs(1) {
            let parts = [plan.span / 2, plan.span * 3 / 4, plan.span * 9 / 10];
            let whole = |span: Duration| Duration::from_secs(span.as_secs().max(1));
            simpler.extend(parts.map(|span| Case { span: Some(whole(span)), ..now() }));
        }
        simpler
    }

    /// Runs candidates; takes the first that fails in the same manner.
    fn take_any(&mut self, candidates: Vec<Case>) -> io::Result<bool> {
        let (mut taken, mut tries) = (None::<Ended>, self.tries);
        let (manner_now, faults) = (&self.manner, self.faults().len());
        let progress = &mut self.progress;
        self.swarm.run(candidates, |ended| {
            tries += 1;
            progress.show(|| format!("{tries} runs, {faults} faults left"));
            let same =
                ended.outcome.failure.is_some() && manner(&ended.outcome.headline()) == *manner_now;
            if !same {
                return ControlFlow::Continue(());
            }
            taken = Some(ended);
            ControlFlow::Break(())
        })?;
        self.tries = tries;
        let Some(Ended { case, outcome }) = taken else { return Ok(false) };
        self.failure = outcome.headline();
        self.smallest = case;
        Ok(true)
    }
}

fn made_smaller(mut case: Case, workload: &str) -> Case {
    match case.smaller.iter_mut().find(|(name, _)| name == workload) {
        Some((_, times)) => *times += 1,
        None => case.smaller.push((workload.to_owned(), 1)),
    }
    case
}

/// What two failures of one bug have in common: their words without numbers,
/// up to the first that names something.
fn manner(headline: &str) -> String {
    let plain = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
    headline.split_whitespace().take(6).take_while(plain).collect::<Vec<_>>().join(" ")
}

/// `items` without one of so many equal parts, each in turn; with one part,
/// nothing.
fn without_parts<T: Clone>(items: &[T], parts: usize) -> Vec<Vec<T>> {
    let size = items.len().div_ceil(parts.max(1)).max(1);
    let cut = |from: usize| {
        let to = (from + size).min(items.len());
        [items.get(..from), items.get(to..)].into_iter().flatten().flatten().cloned().collect()
    };
    (0..items.len()).step_by(size).map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_away_one_at_a_time() {
        assert_eq!(without_parts(&[1, 2, 3, 4], 1), [Vec::<i32>::new()]);
        assert_eq!(without_parts(&[1, 2, 3, 4], 2), [vec![3, 4], vec![1, 2]]);
        assert_eq!(without_parts(&[1, 2, 3], 3), [vec![2, 3], vec![1, 3], vec![1, 2]]);
        assert_eq!(without_parts(&[1, 2, 3], 2), [vec![3], vec![1, 2]]);
    }

    #[test]
    fn failures_of_one_bug_have_one_manner() {
        let one = manner("registers: key key-1 is not linearizable; no place for: c3 read");
        assert_eq!(one, manner("registers: key key-7 is not linearizable; no place for: c2 put"));
        assert_ne!(one, manner("panic: index out of bounds"));
        assert_eq!(
            manner("no progress of registers after the faults"),
            "no progress of registers after the"
        );
    }
}
