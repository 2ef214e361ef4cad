//! Scenarios: named situations, each a way to draw a plan from a seed.
//!
//! A scenario promises counters. A single seed may miss its situation; over
//! the seeds of one command a promised counter that stays at zero means that
//! the scenario proves nothing, and the command fails.

mod absence;
mod consensus;
mod damage;
mod deaths;
mod directed;
mod members;
mod membership;
mod poison;
mod restores;
mod service;
mod storage;
mod swarm;
mod transactions;

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
    let directed = storage::ALL
        .iter()
        .chain(consensus::ALL)
        .chain(service::ALL)
        .chain(absence::ALL)
        .chain(damage::ALL)
        .chain(members::ALL)
        .chain(deaths::ALL)
        .chain(membership::ALL)
        .chain(poison::ALL)
        .chain(transactions::ALL)
        .chain(restores::ALL);
    [&SWARM].into_iter().chain(directed).collect()
});

/// The scenario of a name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

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
    fn each_promises_something() {
        assert!(ALL.iter().all(|scenario| !scenario.promises.is_empty()));
    }

    /// Where scenarios stand.
    const FILES: &[(&str, &[Scenario])] = &[
        ("storage.rs", storage::ALL),
        ("consensus.rs", consensus::ALL),
        ("service.rs", service::ALL),
        ("absence.rs", absence::ALL),
        ("damage.rs", damage::ALL),
        ("members.rs", members::ALL),
        ("membership.rs", membership::ALL),
        ("poison.rs", poison::ALL),
        ("deaths.rs", deaths::ALL),
        ("transactions.rs", transactions::ALL),
        ("restores.rs", restores::ALL),
    ];

    #[test]
    fn the_table_of_the_readme_is_that_of_the_scenarios() {
        let mut rows: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
        for (file, scenarios) in FILES {
            for scenario in *scenarios {
                for row in scenario.rows {
                    let (names, files) = rows.entry(row).or_default();
                    names.insert(scenario.name);
                    files.insert(format!("`{file}`"));
                }
            }
        }
        assert_eq!(FILES.iter().map(|(_, all)| all.len()).sum::<usize>() + 1, ALL.len());
        assert!(rows.len() >= 35, "{} rows of the catalogue", rows.len());
        let readme = include_str!("../../README.md");
        let begin = readme.find("| row | scenarios | file |").unwrap();
        let lines = readme[begin..].lines().skip(2).take_while(|line| line.starts_with('|'));
        let told: BTreeMap<_, _> = lines
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let files = cells[3].split(", ").map(str::to_owned).collect();
                (cells[1], (cells[2].split(", ").collect(), files))
            })
            .collect();
        assert_eq!(told, rows);
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
