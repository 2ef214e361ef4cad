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

/// Real time is the command's own business, not the world's.
#[expect(clippy::disallowed_methods, reason = "limits the command, never a simulated world")]
fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}
