//! Deaths at every named place of the product, one after another.

use std::time::Duration;

use actors::failpoint::FailPoint;
use cluster::units::Instant;

use super::{Scenario, directed::Directed};
use crate::{
    disk::Death,
    faults::{Fault, Planned},
    plan::SPAN,
    workloads::{register::Registers, volumes::Volumes},
};

const SECOND: Duration = Duration::from_secs(1);
/// Time between two traps.
const GAP: Duration = Duration::from_millis(2_500);

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "deaths-at-named-places",
    rows: &[],
    story: "a machine dies at one named place of the product after another: half of them per seed",
    plan: |seed| {
        let rest = (SECOND / 100, SECOND / 10);
        Directed {
            nodes: 4,
            round: SECOND * 9,
            // Damage and removed volumes bring about snapshots, births and ends.
            faults: &["1.000 +0.100 rot-store 2 {d}", "5.000 +0.300 kill {n}"],
            besides: traps(seed),
            workloads: vec![
                Box::new(Registers::new(5, 4, rest)),
                Box::new(Volumes::new(2, 3, (SECOND / 10, SECOND / 2))),
            ],
            pace_min: 1,
            ..Directed::default()
        }
        .plan(seed)
    },
    promises: &["ended by itself", "replica replaced", "operation"],
}];

/// Every second place, those with an even number for an even seed: whichever
/// machine comes there first dies, until all time is over.
fn traps(seed: u64) -> Vec<Planned> {
    let parity = usize::try_from(seed % 2).unwrap_or(0);
    let places = FailPoint::ALL.iter().skip(parity).step_by(2);
    let mut at = Instant::ORIGIN + SECOND;
    let mut planned = Vec::new();
    for (number, point) in places.enumerate() {
        let death = if number % 2 == 0 { Death::Power } else { Death::Kill };
        let life = SPAN.saturating_sub(at.since(Instant::ORIGIN));
        planned.push(Planned {
            at,
            life,
            fault: Fault::FailPoint { node: 0, point: *point, death },
        });
        at = at + GAP;
    }
    planned
}
