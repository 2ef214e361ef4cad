//! An entry that nobody can apply: its shard ends, and nothing else does.

use std::time::Duration;

use cluster::catalog::record::{VolumeKind, VolumePolicy};

use super::{Scenario, directed::Directed};
use crate::{
    disk::Death,
    plan::SPAN,
    stage::{KEEPER, Stage, told},
    workloads::register::Registers,
};

const SECOND: Duration = Duration::from_secs(1);
/// Rests of clients that work much.
const BUSY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// The volume that is poisoned; nobody else uses it.
const VOLUME: &str = "poisoned";
/// Time a step of the script may take.
const STEP_MAX: Duration = Duration::from_secs(20);

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "a-poison-entry",
    rows: &[],
    story: "an entry that cannot be applied ends one shard, and all others serve on",
    plan: |seed| {
        Directed {
            round: SPAN,
            faults: &[
                "36.000 +0.500 kill {n}",
                "40.000 +2.000 isolate {m}",
                "46.000 +0.500 power-loss {m}",
            ],
            workloads: vec![Box::new(Registers::new(4, 4, BUSY))],
            script: Some(poison),
            ..Directed::default()
        }
        .plan(seed)
    },
    promises: &["replica stopped", "refused for poison", "kill", "operation"],
}];

/// Makes a volume, poisons its shard while all machines are down, and asks for
/// what is in it.
fn poison(stage: &mut Stage) -> Result<(), String> {
    let client = stage.client(KEEPER).with_deadline(STEP_MAX);
    let policy = VolumePolicy::new(VolumeKind::Single, 3, 1);
    let made = stage.ask("a volume to poison", STEP_MAX * 2, async move {
        client.create_volume(VOLUME, policy).await?;
        client.put(VOLUME, "key", "value").await?;
        client.show_volume(VOLUME).await
    })?;
    let made = made.map_err(|error| told(&error))?;
    let shard = made.shards.first().ok_or("a volume without a shard")?.shard;
    // What it was told last reaches all its logs.
    stage.pass(SECOND * 2)?;
    stage.world.crash_all(Death::Power);
    stage.pass(SECOND / 10)?;
    stage.checkers.poison(shard)?;
    stage.world.start_all();
    stage.pass(SECOND * 8)?;
    let client = stage.client(KEEPER).with_deadline(SECOND * 3);
    let read = stage
        .ask("a poisoned key", STEP_MAX, async move { client.get(VOLUME, "key").await.is_ok() })?;
    if read {
        return Err("a shard serves though its log cannot be applied".to_owned());
    }
    stage.world.trace().count("refused for poison");
    Ok(())
}
