//! Leaders, followers and snapshots: cuts, late acknowledgements, clocks that
//! err, followers that were away. Rows R1 to R16 of the bug catalogue, as far
//! as shards do not split.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Scenario,
    directed::{Directed, strike_leader},
};
use crate::{
    faults::Fault,
    plan::SPAN,
    stage::Stage,
    workloads::{append::Appends, bank::Bank, levels::Levels, register::Registers},
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of clients that work much, and of those that mostly rest.
const BUSY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// Rests of clients that hardly rest.
const EAGER: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
const LAZY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(900));

/// Cuts leaders off until others lead, and takes their power as they come back: a
/// tail of their own is cut by then, and not yet overwritten.
fn kill_who_returns(stage: &mut Stage) -> Result<(), String> {
    let millis = |number: u32| SECOND / 1_000 * number;
    let end = stage.world.now() + SPAN;
    for turn in 0_u32.. {
        if stage.world.now() + SECOND * 5 > end {
            break;
        }
        stage.pass(SECOND)?;
        let Some(node) = stage.checkers.leaders().into_values().next_back() else { continue };
        stage.world.trace().count("leader struck");
        let away = [
            (Fault::Isolate { node }, millis(900 + 150 * (turn % 8))),
            (Fault::PowerLoss { node }, SECOND / 2),
        ];
        for (fault, life) in away {
            fault.begin(&mut stage.world);
            stage.pass(life)?;
            fault.end(&mut stage.world);
            stage.pass(millis(7 * (turn % 9)))?;
        }
    }
    Ok(())
}

/// Stores that are slow, and so slow to apply, while syncs of logs are not.
const SLOW_STORES: u32 = 80;

/// Gives leadership to machines that have not yet applied what is committed.
fn transfer_to_the_slow(stage: &mut Stage) -> Result<(), String> {
    let end = stage.world.now() + SPAN;
    let pace = |stage: &Stage, factor: u32| {
        for node in stage.world.nodes() {
            if let Some(storage) = stage.world.storage(node) {
                storage.pace.set(factor);
            }
        }
    };
    while stage.world.now() + SECOND * 3 < end {
        pace(stage, SLOW_STORES);
        stage.pass(SECOND / 5)?;
        let leaders: BTreeSet<u32> = stage.checkers.leaders().into_values().collect();
        for n in leaders {
            Fault::TransferLeaders { node: n }.begin(&mut stage.world);
        }
        stage.pass(SECOND)?;
        pace(stage, 1);
        stage.pass(SECOND)?;
    }
    Ok(())
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "reads-after-transfers",
        rows: &["R9"],
        story: "leaders take over, and are read, before they have applied what is committed",
        plan: |seed| {
            Directed {
                workloads: vec![Box::new(Registers::new(8, 2, EAGER))],
                script: Some(transfer_to_the_slow),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leadership offered", "election", "operation"],
    },
    Scenario {
        name: "commit-needs-a-quorum",
        rows: &["R1"],
        story: "five machines are cut into two and three, and acknowledgements overtake each other",
        plan: |seed| {
            Directed {
                nodes: 5,
                round: SECOND * 7,
                faults: &["1.000 +3.500 cut {n},{m}", "0.500 +6.000 reorder 150000"],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["cut", "election", "log truncated"],
    },
    Scenario {
        name: "late-acknowledgements",
        rows: &["R2"],
        story: "acknowledgements take up to 400 ms while leaders are cut off and come back",
        plan: |seed| {
            Directed {
                faults: &["0.500 +8.000 delay 400ms", "0.500 +8.000 duplicate 100000"],
                script: Some(|stage| strike_leader(stage, (SECOND * 2, SECOND * 3), "isolate {n}")),
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "election"],
    },
    Scenario {
        name: "leadership-given-to-nobody",
        rows: &["R3"],
        story: "a leader whose disk stalls gives leadership away while one way out of it is cut",
        plan: |seed| {
            Directed {
                round: SECOND * 5,
                faults: &["1.000 +2.500 one-way-cut {n} {m}"],
                script: Some(|stage| {
                    strike_leader(stage, (SECOND, SECOND * 4), "slow-syncs {n} 5000")
                }),
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "one-way cut"],
    },
    Scenario {
        name: "clocks-drift",
        rows: &["R4"],
        story: "clocks run up to 5 % wrong while leaders are cut off and reads go on",
        plan: |seed| {
            Directed {
                rate_ppm: 50_000,
                offset_ms: 150,
                script: Some(|stage| strike_leader(stage, (SECOND * 2, SECOND * 4), "isolate {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "operation"],
    },
    Scenario {
        name: "idle-follower-returns",
        rows: &["R7"],
        story: "machines restart one after another in a cluster where hardly anybody works",
        plan: |seed| {
            Directed {
                round: SECOND * 12,
                faults: &["1.000 +5.000 power-loss {n}"],
                workloads: vec![Box::new(Registers::new(2, 2, (SECOND * 6, SECOND * 9)))],
                pace_min: 0,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["hibernation change", "power loss"],
    },
    Scenario {
        name: "snapshots-for-the-absent",
        rows: &["R8"],
        story: "a machine is away so long under load that only a snapshot brings it back",
        plan: |seed| {
            Directed {
                round: SECOND * 28,
                faults: &[
                    "1.000 +20.000 power-loss {n}",
                    "22.000 +1.000 isolate {n}",
                    "24.000 +0.300 kill {n}",
                ],
                workloads: vec![Box::new(Registers::new(8, 8, BUSY)), Box::new(Bank::new(3, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["snapshot installed", "power loss"],
    },
    Scenario {
        name: "reads-after-restart",
        rows: &["R9"],
        story: "machines are killed and are back within 100 ms, and are read at once",
        plan: |seed| {
            Directed {
                round: SECOND,
                faults: &["0.300 +0.100 kill {n}"],
                workloads: vec![
                    Box::new(Registers::new(6, 3, BUSY)),
                    Box::new(Levels::new(2, SECOND, BUSY)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["kill", "weak read"],
    },
    Scenario {
        name: "flapping-links",
        rows: &["R13"],
        story: "machines are cut off and reached again several times a second",
        plan: |seed| {
            Directed {
                round: SECOND,
                faults: &["0.100 +0.250 isolate {n}", "0.600 +0.300 one-way-cut {m} {n}"],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["cut", "one-way cut", "operation"],
    },
    Scenario {
        name: "stale-term-cohort",
        rows: &["R13"],
        story: "a minority is cut off for long and returns with its own idea of terms",
        plan: |seed| {
            Directed {
                nodes: 5,
                round: SECOND * 14,
                faults: &["1.000 +9.000 cut {n},{m}"],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["cut", "election"],
    },
    Scenario {
        name: "the-cut-off-return-and-die",
        rows: &["R13", "D9"],
        story: "a leader with a tail of its own comes back, has it cut, and loses power",
        plan: |seed| {
            Directed {
                script: Some(kill_who_returns),
                workloads: vec![Box::new(Registers::new(24, 24, LAZY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "log truncated", "power loss"],
    },
    Scenario {
        name: "leaders-die",
        rows: &["D1", "R2"],
        story: "whoever leads loses power, again and again",
        plan: |seed| {
            Directed {
                script: Some(|stage| {
                    strike_leader(stage, (SECOND * 2, SECOND * 2), "power-loss {n}")
                }),
                workloads: vec![
                    Box::new(Registers::new(4, 3, BUSY)),
                    Box::new(Appends::new(3, 2, BUSY)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "power loss", "election"],
    },
    Scenario {
        name: "sleep-and-wake",
        rows: &[],
        story: "shards fall asleep between rare requests and are woken while links break",
        plan: |seed| {
            Directed {
                shards: 6,
                round: SECOND * 15,
                faults: &["9.000 +2.000 isolate {n}"],
                workloads: vec![Box::new(Registers::new(2, 6, (SECOND * 4, SECOND * 8)))],
                pace_min: 0,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["hibernation change", "operation"],
    },
    Scenario {
        name: "weak-levels",
        rows: &[],
        story: "reads and writes below strong while leaders are cut off",
        plan: |seed| {
            Directed {
                workloads: vec![
                    Box::new(Levels::new(5, SECOND, BUSY)),
                    Box::new(Registers::new(1, 1, LAZY)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 2, SECOND * 4), "isolate {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["weak read", "weak write", "leader struck"],
    },
];
