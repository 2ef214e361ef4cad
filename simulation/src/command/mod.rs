//! The simulator as a command: many seeds, one seed, a smaller one, and bugs
//! planted to see whether the checkers bark.
//!
//! Everything here runs on real time and outside of any world: it starts
//! processes, reads what they print, and says how it went.

pub(crate) mod mutants;
mod outcome;
mod progress;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod scenarios;
mod seeds;
pub(crate) mod shrink;
mod swarm;
mod tree;

use simulation::{case::Case, disk::StorageMode, world::NetworkMode};

/// How a command is given by hand, to a build like this one.
const COMMAND: &str = if cfg!(feature = "real") {
    "cargo run -p simulation --release --features real --"
} else {
    "cargo run -p simulation --release --"
};

/// What takes the place of fakes, whatever the seeds say.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Modes {
    /// What lies below the network port.
    #[arg(long)]
    network: Option<NetworkMode>,
    /// What machines keep their data on: `memory`, or `real` in a build that has it.
    #[arg(long, value_parser = str::parse::<StorageMode>)]
    storage: Option<StorageMode>,
}

impl Modes {
    fn force(self, case: Case) -> Case {
        Case {
            network: self.network.or(case.network),
            storage: self.storage.or(case.storage),
            ..case
        }
    }
}

/// Real time is the command's own business, not the world's.
#[expect(clippy::disallowed_methods, reason = "limits the command, never a simulated world")]
fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}
