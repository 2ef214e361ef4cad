//! What goes wrong, and when: a schedule drawn from the seed, or read from text.
//!
//! Swarm: each seed switches on a random subset of the kinds at random rates,
//! so that some seeds meet only power cuts and others everything at once.
//! Every fault has a life and ends by itself; after the schedule's end the
//! world is whole. A schedule is text, one line per fault, so that a failing
//! one can be kept and made smaller:
//!
//! ```text
//! 5.300 +2.150 kill 2             begins at 5.3 s, lives 2.15 s, on machine 2
//! 6.000 +0.800 one-way-cut 1 3    nothing passes from machine 1 to machine 3
//! ```
//!
//! Source: Groce et al., "Swarm Testing", ISSTA 2012.

mod schedule;
mod strike;
mod swarm;
mod table;
#[cfg(test)]
mod tests;

pub use schedule::{Course, Planned, Schedule};
pub use swarm::Ground;
pub use table::{Fault, Group, Kind, Machines, Millis};
