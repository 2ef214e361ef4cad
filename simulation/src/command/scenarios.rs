//! The table of scenarios.

use std::process::ExitCode;

use simulation::scenario;

/// Prints name, catalogue rows and story of every scenario.
pub(crate) fn scenarios() -> ExitCode {
    for scenario in scenario::ALL.iter() {
        println!("{:<24} {:<12} {}", scenario.name, scenario.rows.join(" "), scenario.story);
    }
    ExitCode::SUCCESS
}
