//! Snapshots are restored in the place of what there is, and history is kept or let go
//! of as a volume is told. Row B2 of the bug catalogue.

use std::time::Duration;

use super::{
    Scenario,
    directed::{Directed, strike_leader},
};
use crate::{
    faults::Fault,
    plan::SPAN,
    stage::Stage,
    workloads::{histories::Histories, register::Registers, restores::Restores},
};

const SECOND: Duration = Duration::from_secs(1);
const USUAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// Rests so long that a restore outlasts leases, elections and the log of who is away.
const SLOW: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(600));

/// Long enough for a leader to flush and to trim its log for want of a follower.
const AWAY: Duration = Duration::from_secs(12);
/// Time for a copy to be begun, looked for every so often.
const BEGUN_WITHIN: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(2);

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "restores-cut-off",
        rows: &["B2"],
        story: "restores are cut off, resumed and begun anew beside readers and watchers, while \
                leaders die, links break and disks are slow",
        plan: |seed| {
            Directed {
                faults: &["1.000 +4.000 slow-disk {m} 30", "5.000 +1.500 isolate {m}"],
                workloads: vec![
                    Box::new(Restores::new(2, 3, 8, USUAL)),
                    Box::new(Registers::new(2, 2, USUAL)),
                ],
                script: Some(|stage| strike_leader(stage, (SECOND * 3, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "snapshot saved",
            "restore begun",
            "restore cut off",
            "restore resumed",
            "restore ended",
            "another restore refused",
            "read refused during a restore",
            "restored state compared",
            "restored lease compared",
            "watch compacted",
            "past compacted",
            "leader struck",
        ],
    },
    Scenario {
        name: "restores-behind-the-absent",
        rows: &["B2"],
        story: "a machine is away while a volume is restored slowly, comes back in the middle, \
                and is cut off from the copy it begins to get until more of the restore is there",
        plan: |seed| {
            Directed {
                workloads: vec![
                    Box::new(Restores::new(2, 2, 8, SLOW)),
                    Box::new(Registers::new(2, 2, USUAL)),
                ],
                script: Some(cut_off_from_copies),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "restore ended",
            "restored state compared",
            "snapshot installed",
            "cut off from a copy",
            "copy compared",
        ],
    },
    Scenario {
        name: "policies-change",
        rows: &[],
        story: "a volume is told to keep more of its past or less while clients read it and \
                leaders die",
        plan: |seed| {
            Directed {
                faults: &["1.000 +4.000 slow-disk {m} 30", "6.000 +1.000 isolate {m}"],
                workloads: vec![Box::new(Histories::new(3, 3, 6, USUAL))],
                script: Some(|stage| strike_leader(stage, (SECOND * 4, SECOND), "kill {n}")),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &[
            "history policy changed",
            "past read",
            "past compacted",
            "watch compacted",
            "leader struck",
        ],
    },
];

/// Lets a machine be away until the log has passed it by, and cuts it off as soon as a
/// copy is begun for it.
fn cut_off_from_copies(stage: &mut Stage) -> Result<(), String> {
    let end = stage.world.now() + SPAN;
    let trace = stage.world.trace().clone();
    for turn in 0_u32.. {
        if stage.world.now() + AWAY * 2 + BEGUN_WITHIN + SECOND * 3 > end {
            break;
        }
        stage.pass(SECOND)?;
        let node = 1 + turn % 3;
        let away = Fault::PowerLoss { node };
        away.begin(&mut stage.world);
        stage.pass(AWAY)?;
        let begun = trace.counted("reached snapshot.pinned");
        away.end(&mut stage.world);
        let until = stage.world.now() + BEGUN_WITHIN;
        while stage.world.now() < until && trace.counted("reached snapshot.pinned") == begun {
            stage.pass(LOOK)?;
        }
        if trace.counted("reached snapshot.pinned") > begun {
            trace.count("cut off from a copy");
        }
        let cut = Fault::Isolate { node };
        cut.begin(&mut stage.world);
        stage.pass(AWAY)?;
        cut.end(&mut stage.world);
        stage.pass(SECOND * 2)?;
    }
    Ok(())
}
