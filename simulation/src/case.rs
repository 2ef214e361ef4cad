//! A case: one run as text, to be kept, replayed and made smaller.
//!
//! A seed alone names a run only as long as nothing changes what it draws. A
//! case adds what a shrinker changed: it leaves workloads out, makes others
//! smaller, shortens the span, and may hold the faults themselves.
//!
//! ```text
//! found: a client that met a restarted node gave up at once
//! scenario: swarm
//! seed: 122
//! span: 8.000
//! shards: 1
//! without: bank
//! smaller: registers 2
//! faults:
//! 5.300 +2.150 kill 2
//! ```

use std::{fmt, str::FromStr, time::Duration};

use clap::ValueEnum;

use crate::{
    disk::StorageMode,
    faults::Schedule,
    plan::Plan,
    scenario::{self, Scenario},
    world::NetworkMode,
};

/// A run as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it found, in a sentence; empty as long as nobody knows.
    pub found: String,
    /// Name of the scenario that draws the plan.
    pub scenario: String,
    /// Of which seed.
    pub seed: u64,
    /// What lies below the network port, if not what is drawn.
    pub network: Option<NetworkMode>,
    /// What machines keep their data on, if not what is drawn.
    pub storage: Option<StorageMode>,
    /// Another time under faults.
    pub span: Option<Duration>,
    /// Another number of shards.
    pub shards: Option<u32>,
    /// Workloads that are left out.
    pub without: Vec<String>,
    /// Workloads that were made smaller, and how often.
    pub smaller: Vec<(String, u32)>,
    /// Other faults than those drawn.
    pub faults: Option<Schedule>,
}

impl Case {
    /// The run of a seed, as drawn.
    pub fn drawn(scenario: &Scenario, seed: u64) -> Self {
        Self {
            found: String::new(),
            scenario: scenario.name.to_owned(),
            seed,
            network: None,
            storage: None,
            span: None,
            shards: None,
            without: Vec::new(),
            smaller: Vec::new(),
            faults: None,
        }
    }

    /// The plan to run. Draw it on the seeded thread that runs it.
    ///
    /// # Errors
    /// If its scenario is not there any more.
    pub fn plan(&self) -> Result<Plan, String> {
        let scenario = scenario::find(&self.scenario)
            .ok_or_else(|| format!("no scenario is called `{}`", self.scenario))?;
        let mut plan = Plan::draw(self.seed, scenario);
        plan.setup.network = self.network.unwrap_or(plan.setup.network);
        plan.setup.storage = self.storage.unwrap_or(plan.setup.storage);
        plan.span = self.span.unwrap_or(plan.span);
        plan.shards = self.shards.unwrap_or(plan.shards);
        if let Some(faults) = &self.faults {
            plan.faults = faults.clone();
        }
        plan.workloads.retain(|workload| self.without.iter().all(|name| name != workload.name()));
        for (name, times) in &self.smaller {
            for workload in plan.workloads.iter_mut().filter(|workload| workload.name() == name) {
                for _ in 0..*times {
                    workload.make_smaller();
                }
            }
        }
        let (network, storage) = (self.network, self.storage);
        let drawn = Self { network, storage, ..Self::drawn(scenario, self.seed) };
        if *self != drawn.found(&self.found) {
            // Whoever takes clients away takes their operations away.
            plan.pace_min = 0;
        }
        Ok(plan)
    }

    /// The same with a sentence on what it found.
    #[must_use]
    pub fn found(self, found: &str) -> Self {
        Self { found: found.to_owned(), ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "found: {}", self.found)?;
        writeln!(f, "scenario: {}", self.scenario)?;
        writeln!(f, "seed: {}", self.seed)?;
        if let Some(network) = self.network.as_ref().and_then(ValueEnum::to_possible_value) {
            writeln!(f, "network: {}", network.get_name())?;
        }
        if let Some(storage) = self.storage {
            writeln!(f, "storage: {storage}")?;
        }
        if let Some(span) = self.span {
            writeln!(f, "span: {}.{:03}", span.as_secs(), span.subsec_millis())?;
        }
        if let Some(shards) = self.shards {
            writeln!(f, "shards: {shards}")?;
        }
        self.without.iter().try_for_each(|name| writeln!(f, "without: {name}"))?;
        self.smaller.iter().try_for_each(|(name, times)| writeln!(f, "smaller: {name} {times}"))?;
        match &self.faults {
            Some(faults) => write!(f, "faults:\n{faults}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut case = Self::drawn(&scenario::SWARM, 0);
        let mut lines = text.lines().map(str::trim);
        let (mut named, mut faults) = (false, None);
        for line in lines.by_ref() {
            if line == "faults:" {
                faults = Some(String::new());
                break;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("what is `{line}`?"))?;
            named |= name == "seed";
            case.set(name, value.trim())?;
        }
        if !named {
            return Err("a case names its seed".to_owned());
        }
        if let Some(text) = &mut faults {
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
            case.faults = Some(text.parse()?);
        }
        Ok(case)
    }
}

impl Case {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let bad = |error: &dyn fmt::Display| format!("{name} cannot be `{value}`: {error}");
        match name {
            "found" => value.clone_into(&mut self.found),
            "scenario" => value.clone_into(&mut self.scenario),
            "seed" => self.seed = value.parse().map_err(|error| bad(&error))?,
            "network" => {
                let mode = <NetworkMode as ValueEnum>::from_str(value, false)
                    .map_err(|error| bad(&error))?;
                self.network = Some(mode);
            }
            "storage" => self.storage = Some(value.parse().map_err(|error| bad(&error))?),
            "shards" => self.shards = Some(value.parse().map_err(|error| bad(&error))?),
            "span" => {
                let seconds: f64 = value.parse().map_err(|error| bad(&error))?;
                let span = Duration::try_from_secs_f64(seconds).map_err(|error| bad(&error))?;
                self.span = Some(span);
            }
            "without" => self.without.push(value.to_owned()),
            "smaller" => {
                let (workload, times) = value.rsplit_once(' ').ok_or_else(|| bad(&"no number"))?;
                let times = times.parse().map_err(|error| bad(&error))?;
                self.smaller.push((workload.to_owned(), times));
            }
            _ => return Err(format!("a case has no `{name}`")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SWARM;

    fn small() -> Case {
        Case {
            network: Some(NetworkMode::Quinn),
            storage: Some(StorageMode::Memory),
            span: Some(Duration::from_millis(8_250)),
            shards: Some(1),
            without: vec!["bank".to_owned()],
            smaller: vec![("registers".to_owned(), 2)],
            faults: Some("5.300 +2.150 kill 2\n".parse().unwrap()),
            ..Case::drawn(&SWARM, 122).found("it broke")
        }
    }

    #[test]
    fn a_case_reads_what_it_prints() {
        for case in [small(), Case::drawn(&SWARM, 7)] {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        let remarked = format!("# kept because …\n\n{}", small());
        assert_eq!(remarked.parse(), Ok(small()));
    }

    #[test]
    fn a_bad_case_is_refused_with_its_line() {
        let bad = |text: &str| text.parse::<Case>().unwrap_err();
        assert_eq!(bad("scenario: swarm\n"), "a case names its seed");
        assert_eq!(bad("seed: 1\nmood: good\n"), "a case has no `mood`");
        assert!(bad("seed: one\n").starts_with("seed cannot be `one`"));
        assert!(bad("seed: 1\nfaults:\nnonsense\n").starts_with("line 1"));
        let neither = "storage cannot be `tape`: `tape` is neither memory nor real";
        assert_eq!(bad("storage: tape\n"), neither);
        if !cfg!(feature = "real") {
            assert!(bad("storage: real\n").ends_with("build with `--features real`"));
        }
    }

    #[test]
    fn a_case_changes_the_plan_that_was_drawn() {
        let (drawn, plan) = (Plan::draw(122, &SWARM), small().plan().unwrap());
        assert_eq!((plan.seed, plan.scenario), (122, "swarm"));
        assert_eq!((plan.span, plan.shards), (Duration::from_millis(8_250), 1));
        assert_eq!(plan.faults.faults().len(), 1);
        let clients = |plan: &Plan| plan.workloads.iter().map(|work| work.clients()).sum::<u32>();
        assert!(clients(&plan) < clients(&drawn), "nothing became smaller");
        assert!(Case { scenario: "gone".to_owned(), ..small() }.plan().is_err());
    }
}
