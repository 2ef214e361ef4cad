//! What clients and operators meet: lost answers, wrong wall clocks, floods,
//! many shards, restart storms, volumes that come and go. Rows G, A and O of
//! the bug catalogue, as far as the product has what they speak of.

use std::time::Duration;

use super::{
    Scenario,
    directed::{Directed, strike_leader},
};
use crate::workloads::{
    accounts::Accounts, append::Appends, bank::Bank, bursts::Bursts, counters::Counters,
    doors::Doors, leases::Leases, listing::Listings, locks::Locks, register::Registers,
    volumes::Volumes, watches::Watches,
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of usual clients, and of a flood: about 300 operations per second.
const FLOOD: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
const USUAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "lost-answers",
        rows: &["A4"],
        story: "a quarter of all messages is lost, so retries meet what was executed",
        plan: |seed| {
            Directed {
                faults: &["0.500 +7.000 drop 250000", "8.000 +0.500 kill {n}"],
                workloads: vec![
                    Box::new(Appends::new(4, 2, USUAL)),
                    Box::new(Registers::new(3, 2, USUAL)),
                    Box::new(Counters::new(2, USUAL).paired()),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["compare failed", "operation", "kill", "repeated request"],
    },
    Scenario {
        name: "quorum-gone-for-long",
        rows: &["A4"],
        story: "all machines are cut off from each other for longer than clients wait for an answer",
        plan: |seed| {
            Directed {
                round: SECOND * 18,
                faults: &["2.000 +11.500 isolate {n}", "2.000 +11.500 isolate {m}"],
                workloads: vec![Box::new(Registers::new(6, 3, USUAL))],
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["unknown outcome", "cut", "operation"],
    },
    Scenario {
        name: "wrong-wall-clocks",
        rows: &["A7"],
        story: "wall clocks are up to 200 ms apart, and order still comes from the log",
        plan: |seed| {
            Directed {
                offset_ms: 200,
                faults: &[
                    "1.000 +0.100 transfer-leaders {n}",
                    "2.000 +0.100 transfer-leaders {m}",
                    "3.000 +2.000 isolate {n}",
                    "7.000 +0.100 transfer-leaders {n}",
                    "8.000 +0.100 transfer-leaders {m}",
                ],
                workloads: vec![
                    Box::new(Registers::new(5, 2, USUAL)),
                    Box::new(Listings::new(2, 1, 10, USUAL)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["operation", "cut", "leadership offered"],
    },
    Scenario {
        name: "restart-storm",
        rows: &["G2"],
        story: "machines restart so often that gossip has hardly settled before the next one",
        plan: |seed| {
            Directed {
                nodes: 5,
                round: SECOND * 3 / 2,
                faults: &["0.200 +0.200 kill {n}", "0.300 +0.400 kill {m}"],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["kill", "start", "operation"],
    },
    Scenario {
        name: "volumes-under-cuts",
        rows: &[],
        story: "volumes are placed, used and removed while machines are cut off",
        plan: |seed| {
            Directed {
                nodes: 5,
                // Where volumes come to lie is judged once all were there for ten seconds.
                round: SECOND * 20,
                faults: &[
                    "1.000 +2.000 isolate {n}",
                    "3.500 +0.500 kill {m}",
                    "5.000 +2.000 isolate {m}",
                ],
                workloads: vec![
                    Box::new(Volumes::new(3, 3, (SECOND / 10, SECOND))),
                    Box::new(Registers::new(3, 3, USUAL)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["volume created", "volume removed", "cut", "placement judged"],
    },
    Scenario {
        name: "watch-hops",
        rows: &["A1", "A2"],
        story: "streams go on from member to member while leaders die and history is let go of",
        plan: |seed| {
            Directed {
                workloads: vec![
                    Box::new(Watches::new(3, 3, 4, USUAL)),
                    Box::new(Registers::new(2, 2, USUAL)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "watch event",
            "watch resumed",
            "watch compacted",
            "watch from the future",
            "weak range",
            "weak look",
            "past read",
            "past compacted",
            "leader struck",
            "watcher at a door",
        ],
    },
    Scenario {
        name: "reads-beside-flushes",
        rows: &["A1"],
        story: "on slow disks stores go on between the beginning of a read and its turn",
        plan: |seed| {
            Directed {
                overlay_bytes: Some(4 << 10),
                round: SECOND * 40,
                faults: &["1.000 +38.000 slow-disk {n} 200"],
                workloads: vec![Box::new(Watches::new(3, 1, 6, USUAL).with_readers(8))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["weak range", "weak look", "slow disk"],
    },
    Scenario {
        name: "progress-at-doors",
        rows: &["A1"],
        story: "slow readers of streams with several watches ask for progress, and go on behind \
                it, while leaders die",
        plan: |seed| {
            Directed {
                faults: &["5.000 +1.500 isolate {m}"],
                workloads: vec![Box::new(Doors::new(4, 2, 3, USUAL))],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["event at a door", "progress at a door", "stream left", "leader struck"],
    },
    Scenario {
        name: "leases-change-leaders",
        rows: &["A3"],
        story: "leases are granted, kept and left while leaders die and clocks err by 3 %",
        plan: |seed| {
            Directed {
                rate_ppm: 30_000,
                workloads: vec![
                    Box::new(Leases::new(4, (SECOND / 20, SECOND / 2))),
                    Box::new(Registers::new(2, 2, USUAL)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["lease granted", "lease ended", "lease revoked", "leader struck"],
    },
    Scenario {
        name: "holders-sleep",
        rows: &["A3"],
        story: "holders of a lock sleep through the end of their lease, and write, while leaders die",
        plan: |seed| {
            Directed {
                workloads: vec![
                    Box::new(Locks::new(4, USUAL)),
                    Box::new(Registers::new(2, 2, USUAL)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 4, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["guarded write", "holder fenced off", "leader struck"],
    },
    Scenario {
        name: "accounts-switched",
        rows: &["A6"],
        story: "rights come and go and accounts are switched while users write and leaders die",
        plan: |seed| {
            Directed {
                faults: &["5.000 +1.000 isolate {m}"],
                workloads: vec![
                    Box::new(Accounts::new(4, USUAL)),
                    Box::new(Registers::new(2, 2, USUAL)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["write permitted", "write denied", "accounts switched", "leader struck"],
    },
    Scenario {
        name: "flood",
        rows: &["O1"],
        story: "many clients that hardly rest, in front of slow disks",
        plan: |seed| {
            Directed {
                shards: 4,
                faults: &["1.000 +3.000 slow-disk {n} 30"],
                workloads: vec![Box::new(Registers::new(12, 60, FLOOD))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["operation", "slow disk"],
    },
    Scenario {
        name: "bursts",
        rows: &["O1"],
        story: "clients put more at once than one replica lets wait, in front of slow disks",
        plan: |seed| {
            Directed {
                shards: 1,
                // Two of three, so that what waits does so for some looks.
                faults: &["0.100 +8.500 slow-disk {n} 40", "0.100 +8.500 slow-disk {m} 40"],
                workloads: vec![Box::new(Bursts::new(5, 256))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["burst", "queue full", "operation"],
    },
    Scenario {
        name: "crowds-on-a-busy-machine",
        rows: &["O1"],
        story: "many clients of a leader that is short of processor time: they gather for its \
                rounds, while a machine dies",
        plan: |seed| {
            Directed {
                shards: 1,
                faults: &[
                    "0.100 +8.500 slow-processor 1 5",
                    "0.100 +8.500 slow-processor 2 5",
                    "0.100 +8.500 slow-processor 3 5",
                    "5.000 +1.000 kill {n}",
                ],
                workloads: vec![Box::new(Registers::new(60, 60, FLOOD))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["crowd gathered", "kill", "operation"],
    },
    Scenario {
        name: "many-shards",
        rows: &["O3"],
        story: "a volume of 48 shards, whose leaders die with their machine",
        plan: |seed| {
            Directed {
                shards: 48,
                round: SECOND * 14,
                faults: &["3.000 +3.000 kill {n}"],
                workloads: vec![Box::new(Registers::new(4, 60, USUAL))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["election", "kill"],
    },
    Scenario {
        name: "cuts-under-lists",
        rows: &[],
        story: "lists over several shards go on while leaders are cut off",
        plan: |seed| {
            Directed {
                shards: 4,
                workloads: vec![
                    Box::new(Listings::new(3, 2, 5, USUAL)),
                    Box::new(Bank::new(3, USUAL)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND * 2), "isolate {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["leader struck", "list of several pages"],
    },
];
