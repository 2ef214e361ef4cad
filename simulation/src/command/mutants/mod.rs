//! Planted bugs: proof that the checkers bark.
//!
//! Each mutant is a patch in `simulation/mutants`. It is applied to a copy of
//! the sources, never by a switch in the product; the copy is built, and runs
//! seeds until one fails. The same seed must pass without the mutant, or what
//! failed was not what was planted.

mod patch;
mod yard;

use std::{
    io,
    ops::ControlFlow,
    process::ExitCode,
    time::{Duration, Instant},
};

use patch::Patch;
use yard::Yard;

use simulation::case::Case;

use super::{
    progress::Progress,
    real_now,
    run::{deal, scenarios_named},
    swarm::{Ended, Swarm},
    tree,
};

/// What to plant.
#[derive(Debug, clap::Args)]
pub(crate) struct MutantsArguments {
    /// Only those whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Seeds a mutant may survive before it counts as a hole in the checkers.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Real minutes of runs after which a mutant counts as a hole as well.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Runs at a time; as many as there are cores unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Only names them.
    #[arg(long)]
    list: bool,
}

/// How a mutant fared.
#[derive(Debug)]
enum Fate {
    /// A run failed that passes without it.
    Caught(Ended),
    /// So many runs passed, and none failed.
    Survived(u64),
    /// It could not be tried.
    Useless(String),
}

/// Plants each mutant in turn and prints a table.
pub(crate) fn mutants(arguments: &MutantsArguments) -> io::Result<ExitCode> {
    let root = tree::root()?;
    let mut patches = Patch::all(&root.join(patch::FOLDER))?;
    if let Some(only) = &arguments.only {
        patches.retain(|patch| patch.name.contains(only.as_str()));
    }
    if patches.is_empty() {
        return Err(io::Error::other("no mutant has such a name"));
    }
    if arguments.list {
        for patch in &patches {
            println!("{:<32} {:<8} {}", patch.name, patch.row, patch.breaks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let yard = Yard::open(&root)?;
    let sound = Swarm::of_myself(arguments.jobs, None)?;
    println!("{:<32} {:>6} {:>7} {:>7}  by what", "mutant", "seed", "build s", "seeds s");
    let mut holes = 0;
    for patch in &patches {
        let (seeds, minutes) = (arguments.seeds, arguments.minutes);
        let trial = Trial { patch, yard: &yard, sound: &sound, seeds, minutes };
        holes += u32::from(!trial.run()?);
    }
    println!("{} of {} caught", patches.len() - holes as usize, patches.len());
    Ok(if holes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One mutant on trial.
#[derive(Debug)]
struct Trial<'a> {
    patch: &'a Patch,
    yard: &'a Yard,
    sound: &'a Swarm,
    seeds: u64,
    minutes: u64,
}

impl Trial<'_> {
    /// Plants it, runs seeds, prints its row; whether it was caught.
    fn run(&self) -> io::Result<bool> {
        let began = real_now();
        let executable = match self.yard.plant(self.patch)? {
            Ok(executable) => executable,
            Err(cause) => return Ok(self.row(&Fate::Useless(cause), began, Duration::ZERO)),
        };
        let built = began.elapsed();
        let until = Some(real_now() + Duration::from_secs(60 * self.minutes));
        let swarm = Swarm { executable, width: self.sound.width, until };
        let fate = self.try_seeds(&swarm)?;
        Ok(self.row(&fate, began, built))
    }

    /// Runs seeds until one fails that passes without the mutant.
    fn try_seeds(&self, swarm: &Swarm) -> io::Result<Fate> {
        let mut passed = 0;
        let mut first = 1;
        while let Some(ended) = self.first_failure(swarm, first, &mut passed)? {
            if self.passes_without(&ended.case)? {
                return Ok(Fate::Caught(ended));
            }
            first = ended.case.seed + 1;
        }
        Ok(Fate::Survived(passed))
    }

    fn first_failure(
        &self,
        swarm: &Swarm,
        first: u64,
        passed: &mut u64,
    ) -> io::Result<Option<Ended>> {
        let (mut caught, mut progress) = (None, Progress::begin());
        let scenarios = scenarios_named(&self.patch.scenario)?;
        swarm.run((first..=self.seeds).map(|seed| deal(&scenarios, seed)), |ended| {
            if ended.outcome.failure.is_some() {
                caught = Some(ended);
                return ControlFlow::Break(());
            }
            *passed += 1;
            progress.show(|| format!("{}: {passed} of {} seeds", self.patch.name, self.seeds));
            ControlFlow::Continue(())
        })?;
        progress.clear();
        Ok(caught)
    }

    fn passes_without(&self, case: &Case) -> io::Result<bool> {
        let mut passes = false;
        self.sound.run([case.clone()], |ended| {
            passes = ended.outcome.failure.is_none();
            ControlFlow::Break(())
        })?;
        Ok(passes)
    }

    fn row(&self, fate: &Fate, began: Instant, built: Duration) -> bool {
        let (seed, what) = match fate {
            Fate::Caught(ended) => (ended.case.seed.to_string(), ended.outcome.headline()),
            Fate::Survived(runs) => ("-".to_owned(), format!("SURVIVED {runs} seeds")),
            Fate::Useless(cause) => ("-".to_owned(), format!("USELESS: {cause}")),
        };
        let ran = began.elapsed().saturating_sub(built);
        let name = &self.patch.name;
        println!(
            "{name:<32} {seed:>6} {:>7.1} {:>7.1}  {what}",
            built.as_secs_f64(),
            ran.as_secs_f64()
        );
        matches!(fate, Fate::Caught(_))
    }
}
