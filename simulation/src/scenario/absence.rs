//! A machine that is away for longer than history is kept. Row A5 of the bug
//! catalogue.

use std::time::Duration;

use cluster::ids::ShardId;

use super::{Scenario, directed::Directed};
use crate::{
    faults::Fault,
    plan::SPAN,
    stage::Stage,
    workloads::{deletions::Deletions, watches::Watches},
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of clients that work much, and of those that mostly rest.
const BUSY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(150));
const LAZY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// What is put goes to stores within ten seconds: keys that live when a machine goes
/// away lie in its store.
const PRESENT: Duration = Duration::from_secs(8);
/// Long enough for keys to end, for history to be let go of beyond their ends, and for
/// a leader to flush and to trim its log for want of a follower.
const AWAY: Duration = Duration::from_secs(15);
/// Time for a snapshot to be offered, fetched and installed.
const BACK: Duration = Duration::from_secs(3);
/// Offers of leadership to whoever is up to date until the returned one has it: one
/// in two is for it.
const OFFERS_MAX: u32 = 10;

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "away-beyond-history",
    rows: &["A5"],
    story: "a machine is away while keys end and history is let go of, comes back, and leads",
    plan: |seed| {
        Directed {
            workloads: vec![
                Box::new(Watches::new(2, 2, 8, LAZY)),
                Box::new(Deletions::new(5, 2, BUSY)),
            ],
            script: Some(outlast_history),
            ..Directed::default()
        }
        .plan(seed)
    },
    promises: &[
        "gone one by one",
        "gone as a range",
        "gone by a transaction",
        "gone with a lease revoked",
        "gone with a lease that was over",
        "history gone behind the absent",
        "the absent got a snapshot",
        "machine read alone",
    ],
}];

/// Lets a machine lose power for long, then cuts another one off for as long: that one
/// comes back with all its memory. Either gets to lead.
fn outlast_history(stage: &mut Stage) -> Result<(), String> {
    let end = stage.world.now() + SPAN;
    for turn in 0_u32.. {
        if stage.world.now() + PRESENT + AWAY + BACK > end {
            break;
        }
        stage.pass(PRESENT)?;
        // The last shard is that of the keys that end.
        let Some((shard, leader)) = stage.checkers.leaders().pop_last() else { continue };
        let (node, fault) = if turn % 2 == 0 {
            let node = 1 + leader % 3;
            (node, Fault::PowerLoss { node })
        } else {
            (leader, Fault::Isolate { node: leader })
        };
        stay_away(stage, &fault)?;
        lead(stage, shard, node)?;
    }
    Ok(())
}

/// Lets a fault live for so long that history passes by whom it strikes.
fn stay_away(stage: &mut Stage, fault: &Fault) -> Result<(), String> {
    let trace = stage.world.trace().clone();
    let compacted = trace.counted("compacted");
    fault.begin(&mut stage.world);
    stage.pass(AWAY)?;
    if trace.counted("compacted") > compacted {
        trace.count("history gone behind the absent");
    }
    let installed = trace.counted("snapshot installed");
    fault.end(&mut stage.world);
    stage.pass(BACK)?;
    if trace.counted("snapshot installed") > installed {
        trace.count("the absent got a snapshot");
    }
    Ok(())
}

/// Has leadership handed on until this machine leads.
fn lead(stage: &mut Stage, shard: ShardId, node: u32) -> Result<(), String> {
    for _ in 0..OFFERS_MAX {
        let Some(leader) = stage.checkers.leaders().get(&shard).copied() else { break };
        if leader == node {
            stage.world.trace().count("the returned led");
            return stage.pass(SECOND);
        }
        Fault::TransferLeaders { node: leader }.begin(&mut stage.world);
        stage.pass(SECOND / 2)?;
    }
    Ok(())
}
