//! Scenarios: named situations, each a way to draw a plan from a seed.
//!
//! A scenario promises counters. A single seed may miss its situation; over
//! the seeds of one command a promised counter that stays at zero means that
//! the scenario proves nothing, and the command fails.

mod consensus;
mod directed;
mod service;
mod storage;
mod swarm;

use std::sync::LazyLock;

pub use swarm::SWARM;

use crate::plan::Plan;

/// A situation.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Rows of the bug catalogue it stands for; none if it stands for no one
    /// defect.
    pub rows: &'static [&'static str],
    /// What happens, in one sentence.
    pub story: &'static str,
    /// Draws the plan of a seed.
    pub plan: fn(u64) -> Plan,
    /// Counters that show that it happened.
    pub promises: &'static [&'static str],
}

impl Scenario {
    /// Counters that must not stay at zero over the seeds of one command.
    pub fn promises(&self) -> &'static [&'static str] {
        self.promises
    }
}

/// All scenarios; the first is the default.
pub static ALL: LazyLock<Vec<&'static Scenario>> = LazyLock::new(|| {
    let directed = storage::ALL.iter().chain(consensus::ALL).chain(service::ALL);
    [&SWARM].into_iter().chain(directed).collect()
});

/// The scenario of a name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL.iter() {
            assert_eq!(find(scenario.name).map(|found| found.story), Some(scenario.story));
        }
        assert!(find("no such scenario").is_none());
    }

    #[test]
    fn there_are_more_than_25_and_each_promises_something() {
        assert!(ALL.len() > 25);
        assert!(ALL.iter().all(|scenario| !scenario.promises.is_empty()));
    }

    #[test]
    fn every_plan_bears_its_scenario_and_has_someone_at_work() {
        for scenario in ALL.iter() {
            for seed in 0..20 {
                let plan = Plan::draw(seed, scenario);
                assert_eq!((plan.seed, plan.scenario), (seed, scenario.name));
                assert!(!plan.workloads.is_empty(), "{}: nobody works", scenario.name);
                let acts = !plan.faults.faults().is_empty() || plan.script.is_some();
                assert!(acts || scenario.name == "swarm", "{}: nothing happens", scenario.name);
            }
        }
    }
}
