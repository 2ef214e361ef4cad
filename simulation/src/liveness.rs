//! Who holds a cluster up: what a report says when progress is missing.
//!
//! Safety is judged while faults strike; then the world is made whole and must
//! make progress in a stated time. If it does not, the failure says which
//! machines are down, which ways are cut, who leads what, and which replicas
//! were lost, stopped or stand behind the others.
//! Source: TigerBeetle's VOPR, which runs in the same two phases.

use std::fmt::Write;

use crate::stage::Stage;

/// What is to be seen of a world that makes no progress.
pub fn explain(stage: &Stage) -> String {
    let world = &stage.world;
    let mut told = String::new();
    for number in world.numbers() {
        if !world.node(number).is_some_and(|node| world.is_up(node)) {
            // Writing into a String cannot fail.
            let _ = write!(told, "; n{number} is down");
        }
    }
    for (from, to) in world.cut_ways() {
        let _ = write!(told, "; nothing passes from n{from} to n{to}");
    }
    for (shard, leader) in stage.checkers.leaders() {
        let _ = write!(told, "; {shard} was last led by n{leader}");
    }
    for silence in stage.checkers.silent() {
        let _ = write!(told, "; {silence}");
    }
    told
}
