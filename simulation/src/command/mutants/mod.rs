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
    /// Every run passed.
    Survived,
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
        let trial = Trial { patch, yard: &yard, sound: &sound, seeds: arguments.seeds };
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
        let swarm = Swarm { executable, width: self.sound.width, until: None };
        let fate = match self.first_failure(&swarm)? {
            None => Fate::Survived,
            Some(ended) => self.confirm(ended)?,
        };
        Ok(self.row(&fate, began, built))
    }

    fn first_failure(&self, swarm: &Swarm) -> io::Result<Option<Ended>> {
        let (mut caught, mut passed, mut progress) = (None, 0_u64, Progress::begin());
        let scenarios = scenarios_named(&self.patch.scenario)?;
        swarm.run((1..=self.seeds).map(|seed| deal(&scenarios, seed)), |ended| {
            if ended.outcome.failure.is_some() {
                caught = Some(ended);
                return ControlFlow::Break(());
            }
            passed += 1;
            progress.show(|| format!("{}: {passed} of {} seeds", self.patch.name, self.seeds));
            ControlFlow::Continue(())
        })?;
        progress.clear();
        Ok(caught)
    }

    /// The same run must pass without the mutant.
    fn confirm(&self, ended: Ended) -> io::Result<Fate> {
        let mut without = None;
        self.sound.run([ended.case.clone()], |ended| {
            without = ended.outcome.failure;
            ControlFlow::Break(())
        })?;
        Ok(match without {
            None => Fate::Caught(ended),
            Some(_) => Fate::Useless(format!("seed {} fails without it too", ended.case.seed)),
        })
    }

    fn row(&self, fate: &Fate, began: Instant, built: Duration) -> bool {
        let (seed, what) = match fate {
            Fate::Caught(ended) => (ended.case.seed.to_string(), ended.outcome.headline()),
            Fate::Survived => ("-".to_owned(), format!("SURVIVED {} seeds", self.seeds)),
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
