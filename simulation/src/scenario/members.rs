//! Nodes that come and go for good while others die or are cut off. Rows R11 to
//! R16, G1 and G5 of the bug catalogue. Only one node of a run is removed: its
//! removal counts as the destruction of its disk (`world/disks.rs`).

use std::time::Duration;

use super::{
    Scenario,
    directed::{Directed, strike_leader},
};
use crate::{
    disk::Death,
    faults::Fault,
    plan::SPAN,
    stage::{KEEPER, Stage},
    workloads::{listing::Listings, register::Registers},
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of clients that work much.
const BUSY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// The machine whose node is removed, of five.
const REMOVED: u32 = 5;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "the-removed-return",
        rows: &["R11"],
        story: "a removed node is started again and again, and stays removed",
        plan: |seed| {
            Directed {
                nodes: 5,
                round: SECOND * 11,
                faults: &["3.000 +0.500 kill {n}"],
                script: Some(remove_and_return),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["node removed", "removed node refused", "kill"],
    },
    Scenario {
        name: "gossip-of-the-removed",
        rows: &["G1"],
        story: "a peer that was cut off during a removal comes back and gossips the removed node",
        plan: |seed| {
            Directed {
                nodes: 5,
                round: SECOND * 16,
                faults: &["1.000 +9.000 isolate 2"],
                script: Some(remove_and_return),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["node removed", "removed node refused", "cut"],
    },
    Scenario {
        name: "changes-in-a-row",
        rows: &["R12"],
        story: "replicas are replaced and machines join while whoever has a joint configuration dies",
        plan: |seed| {
            Directed {
                nodes: 4,
                shards: 4,
                round: SECOND * 8,
                faults: &[
                    "0.500 +0.100 rot-store 2 {d}",
                    "0.600 +6.000 fail-point 0 change.joint kill",
                    "1.500 +0.100 add-node",
                    "4.000 +0.300 kill {n}",
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "failpoint change.joint",
            "configuration",
            "replica replaced",
            "fault add-node",
        ],
    },
    Scenario {
        name: "replace-beside-a-dead-one",
        rows: &["R15"],
        story: "of three machines one is dead for good; another joins, and the dead one is removed",
        plan: |seed| {
            Directed {
                round: SPAN,
                faults: &[
                    "1.000 +55.000 power-loss {n}",
                    "3.000 +0.100 add-node",
                    "9.000 +46.000 remove-node {n}",
                ],
                workloads: vec![Box::new(Registers::new(4, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["node removed", "snapshot installed", "fault add-node"],
    },
    Scenario {
        name: "changes-after-elections",
        rows: &["R16"],
        story: "replicas of one machine are replaced while leaders are cut off: new ones change voters at once",
        plan: |seed| {
            Directed {
                nodes: 5,
                shards: 3,
                round: SECOND * 4,
                faults: &["0.500 +0.100 rot-store 2 {d}"],
                script: Some(|stage| strike_leader(stage, (SECOND * 2, SECOND * 3), "isolate {n}")),
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "configuration", "replica replaced", "election"],
    },
    Scenario {
        name: "replicas-move-under-cuts",
        rows: &["G5"],
        story: "a node is removed and its replicas move while machines are cut off and clients read",
        plan: |seed| {
            Directed {
                nodes: 4,
                shards: 4,
                round: SECOND * 7,
                faults: &[
                    "1.000 +0.100 add-node",
                    "2.000 +5.000 remove-node 4",
                    "3.000 +3.000 isolate {n}",
                ],
                workloads: vec![
                    Box::new(Registers::new(4, 8, BUSY)),
                    Box::new(Listings::new(2, 2, 5, BUSY)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["node removed", "cut", "snapshot installed"],
    },
];

/// Has a node removed, and starts its machine again and again for the rest of
/// the time: the cluster must never take it back.
fn remove_and_return(stage: &mut Stage) -> Result<(), String> {
    let end = stage.world.now() + SPAN;
    let Some(node) = stage.world.node(REMOVED) else { return Ok(()) };
    stage.pass(SECOND * 2)?;
    Fault::RemoveNode { node: REMOVED }.begin(&mut stage.world);
    while stage.world.trace().counted("node removed") == 0 {
        if stage.world.now() >= end {
            return Ok(());
        }
        stage.pass(SECOND)?;
    }
    while stage.world.now() + SECOND * 5 < end {
        stage.world.crash(node, Death::Kill);
        stage.world.start_removed(REMOVED);
        stage.pass(SECOND * 5)?;
    }
    let client = stage.client(KEEPER);
    let view = stage.ask("the catalog", SECOND * 30, async move { client.catalog().await })?;
    match view {
        Ok(view) if view.active_nodes().any(|active| active.node == node) => {
            Err("a removed node is a member again".to_owned())
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
