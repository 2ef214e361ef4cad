//! Disks: power that fails, logs that are torn, syncs that take long, no room.
//! Rows D1 to D16 of the bug catalogue, as far as a world without damage has
//! them.

use std::time::Duration;

use super::{Scenario, directed::Directed};
use crate::{
    disk::OFFERED_BYTES,
    faults::Fault,
    plan::{Plan, SPAN},
    stage::{KEEPER, Stage, VOLUME, told},
    workloads::{
        append::Appends, bank::Bank, filling::Fillings, listing::Listings, register::Registers,
    },
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of clients that work much.
const BUSY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// Disks that some hundred large values fill. A store keeps 8 MiB of its pages
/// free once they are full, so smaller ones would have no room to give back.
const SCARCE_BYTES: u64 = 64 << 20;
const SCARCE_SPAN: Duration = Duration::from_mins(2);
/// Limit of a store; a third of it is kept for what makes room.
const LIMIT_BYTES: u64 = 32 << 20;
/// How long a disk stalls.
const STALL: Duration = Duration::from_secs(10);
/// Time to the next acknowledgement: five seconds until a leader gives up, and
/// an election that may fail once.
const STALL_BORNE: Duration = Duration::from_secs(9);

/// In the end somebody adds space: a replica whose own disk could not take what
/// its leader's could waits for that.
fn space_is_added(stage: &mut Stage) -> Result<(), String> {
    stage.pass(SECOND * 110)?;
    for node in stage.world.nodes() {
        if let Some(storage) = stage.world.storage(node) {
            storage.offer(OFFERED_BYTES);
        }
    }
    Ok(())
}

/// Stalls the syncs of whoever leads; a write must be acknowledged meanwhile.
fn stall_leaders(stage: &mut Stage) -> Result<(), String> {
    let end = stage.world.now() + SPAN;
    while stage.world.now() + STALL + SECOND * 4 < end {
        stage.pass(SECOND * 4)?;
        let Some(n) = stage.checkers.leaders().into_values().next_back() else { continue };
        let stall: Fault = format!("stalled-disk {n}").parse()?;
        stage.world.trace().count("leader struck");
        stall.begin(&mut stage.world);
        let until = stage.world.now() + STALL;
        let client = stage.client(KEEPER).with_deadline(STALL_BORNE);
        let put = stage.ask("a write beside a stalled disk", STALL, async move {
            client.put(VOLUME, "stalled", "served").await
        })?;
        put.map_err(|error| format!("a leader keeps a stalled disk: {}", told(&error)))?;
        stage.world.trace().count("served beside a stall");
        stage.pass(until.since(stage.world.now()))?;
        stall.end(&mut stage.world);
    }
    Ok(())
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "blackout",
        rows: &["D1"],
        story: "all machines lose power at one instant, at load, again and again",
        plan: |seed| {
            Directed {
                faults: &["2.000 +0.500 crash-all power"],
                workloads: vec![Box::new(Registers::new(6, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["power loss", "operation"],
    },
    Scenario {
        name: "power-loss-in-election",
        rows: &["D2"],
        story: "a leader is cut off while syncs are slow, and its voters lose power",
        plan: |seed| {
            Directed {
                faults: &[
                    "1.000 +6.000 slow-syncs {n} 40",
                    "1.000 +6.000 slow-syncs {m} 40",
                    "2.000 +3.000 isolate {n}",
                    "3.500 +0.300 power-loss {m}",
                    "5.000 +0.300 power-loss {n}",
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["power loss", "election", "cut"],
    },
    Scenario {
        name: "alone",
        rows: &["D5"],
        story: "one machine with one copy loses power and is killed at load",
        plan: |seed| {
            Directed {
                nodes: 1,
                round: SECOND * 4,
                faults: &["1.000 +0.200 power-loss 1", "3.000 +0.200 kill 1"],
                workloads: vec![Box::new(Registers::new(4, 3, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["power loss", "kill", "operation"],
    },
    Scenario {
        name: "kills-in-apply",
        rows: &["D6"],
        story: "processes are killed every two seconds while entries are applied and flushed",
        plan: |seed| {
            Directed {
                round: SECOND * 2,
                faults: &["0.500 +0.400 kill {n}", "1.000 +0.900 fail-point 0 flush.commit kill"],
                workloads: vec![Box::new(Registers::new(5, 6, BUSY)), Box::new(Bank::new(2, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["kill", "failpoint flush.commit", "operation"],
    },
    Scenario {
        name: "torn-tails",
        rows: &["D9"],
        story: "single machines lose power while batches are being written",
        plan: |seed| {
            Directed {
                round: SECOND * 3,
                faults: &["0.500 +2.000 slow-syncs {n} 60", "1.500 +0.500 power-loss {n}"],
                workloads: vec![Box::new(Registers::new(6, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["torn tail", "power loss"],
    },
    Scenario {
        name: "full-disks",
        rows: &["D13"],
        story: "disks fill up and get room again, one, then two",
        plan: |seed| {
            Directed {
                round: SECOND * 14,
                faults: &[
                    "1.000 +4.000 full-disk {n}",
                    "7.000 +4.000 full-disk {n}",
                    "7.000 +4.000 full-disk {m}",
                ],
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fault full-disk", "operation"],
    },
    Scenario {
        name: "scarce-disks",
        rows: &["D13"],
        story: "large values fill small disks, deletes make room, and machines die meanwhile",
        plan: |seed| {
            let plan = Directed {
                disk_bytes: SCARCE_BYTES,
                round: SECOND * 30,
                faults: &["12.000 +0.500 kill {n}", "24.000 +0.500 power-loss {n}"],
                workloads: vec![
                    Box::new(Fillings::new(2, (SECOND / 100, SECOND / 20))),
                    Box::new(Registers::new(2, 2, BUSY)),
                ],
                script: Some(space_is_added),
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed);
            Plan { span: SCARCE_SPAN, ..plan }
        },
        promises: &["put refused for room", "room again", "operation"],
    },
    Scenario {
        name: "stores-at-their-limit",
        rows: &["D13"],
        story: "large values fill stores to their limit on roomy disks, deletes make room, and \
                machines die meanwhile",
        plan: |seed| {
            Directed {
                store_bytes: Some(LIMIT_BYTES),
                round: SECOND * 30,
                faults: &["12.000 +0.500 kill {n}", "24.000 +0.500 power-loss {n}"],
                workloads: vec![
                    Box::new(Fillings::new(2, (SECOND / 100, SECOND / 20))),
                    Box::new(Registers::new(2, 2, BUSY)),
                ],
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["put refused for room", "room again", "operation"],
    },
    Scenario {
        name: "long-lists-and-churn",
        rows: &["D14"],
        story: "slow lists in small pages read on while what they list is overwritten",
        plan: |seed| {
            Directed {
                shards: 3,
                faults: &["4.000 +0.500 kill {n}"],
                workloads: vec![
                    Box::new(Listings::new(4, 3, 2, (SECOND / 100, SECOND / 20))),
                    Box::new(Registers::new(3, 2, BUSY)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["list resumed", "list of several pages", "kill"],
    },
    Scenario {
        name: "completions-in-any-order",
        rows: &["R6"],
        story: "many shards share a slow log, whose batches are told in drawn order",
        plan: |seed| {
            Directed {
                shards: 12,
                faults: &["1.000 +5.000 slow-disk {n} 20", "6.500 +0.500 power-loss {n}"],
                workloads: vec![Box::new(Registers::new(8, 30, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["group commit", "power loss"],
    },
    Scenario {
        name: "stalled-leader",
        rows: &["O2"],
        story: "the disk of whoever leads stalls for ten seconds, and writes are acknowledged meanwhile",
        plan: |seed| {
            Directed { shards: 1, script: Some(stall_leaders), ..Directed::default() }.plan(seed)
        },
        promises: &["leader struck", "election", "served beside a stall"],
    },
    Scenario {
        name: "one-slow-disk",
        rows: &["R14"],
        story: "one machine's disk is two hundred times slower, at load",
        plan: |seed| {
            Directed {
                round: SECOND * 18,
                faults: &["1.000 +14.000 slow-disk {n} 200"],
                workloads: vec![
                    Box::new(Registers::new(8, 6, BUSY)),
                    Box::new(Appends::new(2, 2, (SECOND / 100, SECOND / 20))),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["slow disk", "operation"],
    },
];
