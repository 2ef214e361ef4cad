//! Disks that lie, rot, forget, come back old, or go. Rows D3 to D16 and R10 of
//! the bug catalogue. Only machine 2 is ever destroyed: a shard keeps two sound
//! copies (`world/disks.rs`).

use std::time::Duration;

use super::{Scenario, directed::Directed};
use crate::{
    plan::SPAN,
    workloads::{register::Registers, volumes::Volumes},
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of clients that work much.
const BUSY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));

/// Registers, and volumes that come and go: what the catalog says changes.
fn with_volumes() -> Vec<Box<dyn crate::workloads::Workload>> {
    vec![
        Box::new(Registers::new(4, 4, BUSY)),
        Box::new(Volumes::new(2, 3, (SECOND / 10, SECOND / 2))),
    ]
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "syncs-fail-once",
        rows: &["D3"],
        story: "a sync of a log fails once, its pages are gone, and the next one would succeed",
        plan: |seed| {
            Directed {
                round: SECOND * 6,
                faults: &["1.000 +0.100 sync-error {n}", "4.000 +0.100 sync-error {m}"],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fenced disk", "fault sync-error", "operation"],
    },
    Scenario {
        name: "commits-fail-once",
        rows: &["D4"],
        story: "a commit of a store fails once, and power fails soon after",
        plan: |seed| {
            Directed {
                round: SECOND * 9,
                faults: &[
                    "1.000 +0.100 commit-error 2",
                    "3.000 +0.500 crash-all power",
                    "6.000 +0.300 kill {n}",
                ],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fault commit-error", "replica lost", "power loss"],
    },
    Scenario {
        name: "one-rotten-disk",
        rows: &["D7"],
        story: "bits, sectors and stores of one disk rot at load, and its machine is killed",
        plan: |seed| {
            Directed {
                round: SECOND * 9,
                faults: &[
                    "1.000 +0.100 rot-log 2 {d}",
                    "2.000 +0.400 kill 2",
                    "4.000 +0.100 rot-store 2 {d}",
                    "6.000 +0.100 misdirected 2 {d}",
                    "7.000 +0.300 power-loss 2",
                ],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["replica lost", "replica replaced", "fault rot-log", "fault misdirected"],
    },
    Scenario {
        name: "logs-cut-short",
        rows: &["D7", "D9"],
        story: "a file of a log ends too early, which is damage and no torn tail",
        plan: |seed| {
            Directed {
                round: SECOND * 8,
                faults: &["1.000 +0.100 truncated 2 {d}", "2.000 +0.400 power-loss 2"],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fault truncated", "replica lost", "replica replaced"],
    },
    Scenario {
        name: "unreadable-catalog-copies",
        rows: &["D8"],
        story: "a node starts, cut off, with an unreadable copy of the catalog, and deletes nothing",
        plan: |seed| {
            Directed {
                round: SECOND * 7,
                faults: &[
                    "1.000 +0.100 rot-copy {n} {d}",
                    "1.200 +0.300 kill {n}",
                    "1.400 +2.500 isolate {n}",
                ],
                workloads: with_volumes(),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fault rot-copy", "kill", "cut", "volume removed"],
    },
    Scenario {
        name: "old-images",
        rows: &["D10"],
        story: "a machine gets a seconds-old copy of its disk back",
        plan: |seed| {
            Directed {
                round: SECOND * 13,
                faults: &["1.000 +8.000 old-image 2"],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["old image restored", "old image found", "log condemned"],
    },
    Scenario {
        name: "a-lost-disk",
        rows: &["D11"],
        story: "a disk is gone: its machine joins as another node, and the old one is removed",
        plan: |seed| {
            Directed {
                round: SPAN,
                faults: &["2.000 +2.000 wiped-disk 2"],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["stranger", "node removed", "snapshot installed"],
    },
    Scenario {
        name: "swapped-disks",
        rows: &["D12"],
        story: "two machines have each other's log and stores, and refuse to start on them",
        plan: |seed| {
            Directed {
                round: SECOND * 9,
                faults: &["1.000 +3.000 swapped-disks {n} {m}"],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["start refused", "fault swapped-disks"],
    },
    Scenario {
        name: "reads-fail",
        rows: &["D15"],
        story: "a disk cannot be read for seconds, or brings flipped bits",
        plan: |seed| {
            Directed {
                round: SECOND * 10,
                faults: &[
                    "1.000 +2.000 read-error 2",
                    "2.000 +0.300 kill 2",
                    "5.000 +0.100 flip-on-read 2 {d}",
                    "5.200 +0.300 kill 2",
                    "8.000 +0.100 rot-store 2 {d}",
                ],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fault read-error", "fault flip-on-read", "replica lost"],
    },
    Scenario {
        name: "names-are-lost",
        rows: &["D16"],
        story: "power fails between a file's new name and the sync of its directory",
        plan: |seed| {
            Directed {
                round: SECOND * 5,
                faults: &[
                    "0.500 +4.000 fail-point {n} catalog.renamed power",
                    "2.500 +2.000 fail-point {m} catalog.written power",
                    "2.500 +2.000 fail-point {n} birth.filled power",
                ],
                workloads: with_volumes(),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["failpoint catalog.renamed", "failpoint catalog.written"],
    },
    Scenario {
        name: "an-id-used-again",
        rows: &["R10"],
        story: "a node comes back under its id and address with an empty log and no stores",
        plan: |seed| {
            Directed {
                round: SECOND * 14,
                faults: &["2.000 +1.000 emptied-disk 2"],
                workloads: vec![Box::new(Registers::new(5, 4, BUSY))],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["fault emptied-disk", "old image found", "log condemned"],
    },
];
