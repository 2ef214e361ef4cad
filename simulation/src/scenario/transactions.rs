//! Transactions of every kind and ranges in every order, while leaders die and clients lose
//! their quorum. Row A2 of the bug catalogue.

use std::time::Duration;

use super::{
    Scenario,
    directed::{Directed, strike_leader},
};
use crate::workloads::transactions::Transactions;

const SECOND: Duration = Duration::from_secs(1);
const USUAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
const LARGE_VALUES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "transactions-in-doubt",
        rows: &["A2"],
        story: "transactions of every kind, some in doubt for want of a quorum, while leaders die and \
            history is let go of",
        plan: |seed| {
            Directed {
                round: SECOND * 18,
                faults: &[
                    "2.000 +11.500 isolate {n}",
                    "2.000 +11.500 isolate {m}",
                    "13.500 +4.000 drop 150000",
                ],
                workloads: vec![Box::new(Transactions::new(5, 5, USUAL))],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "compares held",
            "compares failed",
            "transaction in a transaction",
            "transaction refused",
            "transaction that reads the past",
            "range deleted",
            "past read",
            "past compacted",
            "compacted",
            "unknown outcome",
            "leader struck",
        ],
    },
    Scenario {
        name: "sorted-ranges",
        rows: &["A2"],
        story: "the first keys in any order are read, now and in the past, among values of which \
                few fit into one answer, while leaders die and history is let go of",
        plan: |seed| {
            Directed {
                round: SECOND * 18,
                faults: &["2.000 +6.000 isolate {n}", "11.000 +5.000 drop 100000"],
                workloads: vec![Box::new(Transactions::new(3, 6, LARGE_VALUES).sorting())],
                script: Some(|stage| strike_leader(stage, (SECOND * 4, SECOND), "kill {n}")),
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "sorted range cut",
            "sorted range of several answers",
            "past read",
            "past compacted",
            "compacted",
            "leader struck",
        ],
    },
];
