//! Who belongs, and what clients notice of it: nodes that come and go under
//! load, a catalog without a majority, sessions that expire or are evicted.

use std::time::Duration;

use actors::client::Client;
use cluster::{
    catalog::{
        record::{ShardRecord, VolumeKind, VolumePolicy},
        view::CatalogView,
    },
    ids::{CATALOG_SHARD, NodeId},
};

use super::{Scenario, directed::Directed};
use crate::{
    faults::Fault,
    plan::Plan,
    stage::{KEEPER, Stage, VOLUME, told},
    workloads::{append::Appends, counters::Counters, register::Registers, transfers::Transfers},
};

const SECOND: Duration = Duration::from_secs(1);
const USUAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// Rests of clients that only keep a shard's time going.
const SLOW: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(900));
/// Longer than a session may be idle.
const NAP: Duration = Duration::from_secs(15 * 60 + 45);
/// Time a client waits for what must be served at once, a change of leaders
/// included.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "membership-churn",
        rows: &["G1", "R11", "R12"],
        story: "machines are added, replaced, wiped and removed under load, and leaders move",
        plan: |seed| {
            Directed {
                nodes: 5,
                round: SECOND * 18,
                faults: &[
                    "1.000 +2.000 add-node",
                    "4.000 +6.000 remove-node {n}",
                    "6.000 +1.000 transfer-leaders {m}",
                    "11.000 +0.500 wiped-disk {n}",
                    "14.000 +2.000 isolate {m}",
                ],
                workloads: vec![
                    Box::new(Registers::new(3, 3, USUAL)),
                    Box::new(Counters::new(2, USUAL)),
                    Box::new(Transfers::new(2, USUAL)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["node removed", "joint step", "operation", "leadership offered"],
    },
    Scenario {
        name: "catalog-without-quorum",
        rows: &[],
        story: "most catalog replicas are down, and a shard with a majority is served",
        plan: |seed| {
            Directed {
                nodes: 5,
                shards: 1,
                workloads: vec![Box::new(Registers::new(3, 3, USUAL))],
                script: Some(without_catalog),
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["served without catalog"],
    },
    Scenario {
        name: "sessions-evicted",
        rows: &["A4"],
        story: "clients open more sessions than a shard keeps, and retries meet their eviction",
        plan: |seed| {
            Directed {
                shards: 1,
                faults: &[
                    "0.500 +3.000 drop 100000",
                    "3.500 +2.000 slow-syncs {n} 400",
                    "6.000 +0.500 kill {n}",
                ],
                workloads: vec![
                    Box::new(Counters::new(3, USUAL).evicting(800)),
                    Box::new(Appends::new(2, 2, USUAL)),
                ],
                ..Directed::default()
            }
            .plan(seed)
        },
        promises: &["session expired", "eviction", "repeated request"],
    },
    Scenario {
        name: "sessions-expire",
        rows: &["A4"],
        story: "a client rests for longer than its session lives, in shard time",
        plan: |seed| {
            let plan = Directed {
                shards: 1,
                round: SECOND * 20,
                faults: &["3.000 +0.500 kill {n}"],
                workloads: vec![Box::new(Counters::new(3, SLOW).napping(NAP))],
                pace_min: 1,
                ..Directed::default()
            }
            .plan(seed);
            Plan { span: NAP + SECOND * 30, ..plan }
        },
        promises: &["session expired"],
    },
];

/// Again and again takes the catalog its majority, but not the volume.
fn without_catalog(stage: &mut Stage) -> Result<(), String> {
    for _ in 0..4 {
        stage.pass(SECOND * 3)?;
        let client = stage.client(KEEPER).with_deadline(SERVED_WITHIN);
        let down = stage.ask("a look at the catalog", SERVED_WITHIN * 2, async move {
            client.catalog().await.map(|view| whom_to_kill(&view))
        })?;
        let down = down.map_err(|error| told(&error))?;
        if down.is_empty() {
            continue;
        }
        let number = |node: &NodeId| stage.world.nodes().iter().position(|at| at == node);
        let numbers: Vec<usize> = down.iter().filter_map(number).map(|at| at + 1).collect();
        let kills: Result<Vec<Fault>, String> =
            numbers.iter().map(|number| format!("kill {number}").parse()).collect();
        let kills = kills?;
        for kill in &kills {
            kill.begin(&mut stage.world);
        }
        let served = serve_alone(stage);
        for kill in &kills {
            kill.end(&mut stage.world);
        }
        served?;
        stage.pass(SECOND * 5)?;
    }
    Ok(())
}

/// With the machines outside of the volume's shard and one inside down, the
/// shard keeps two replicas of three; nobody, if the catalog keeps a majority.
fn whom_to_kill(view: &CatalogView) -> Vec<NodeId> {
    let of_volume = view.shards().find(|record| record.descriptor.shard != CATALOG_SHARD);
    let nodes = |record: &ShardRecord| -> Vec<NodeId> {
        record.descriptor.replicas.iter().map(|replica| replica.node).collect()
    };
    let held = of_volume.map_or_else(Vec::new, nodes);
    let catalog = view.shard(CATALOG_SHARD).map_or_else(Vec::new, nodes);
    let outside = view.active_nodes().map(|record| record.node);
    let outside = outside.filter(|node| !held.contains(node));
    // One that the catalog has a replica on, if there is.
    let inside = held.iter().max_by_key(|node| catalog.contains(node)).copied();
    let down: Vec<NodeId> = outside.chain(inside).collect();
    let left = catalog.iter().filter(|node| !down.contains(node)).count();
    if left * 2 > catalog.len() { Vec::new() } else { down }
}

/// The volume is written and read, while no volume can be made.
fn serve_alone(stage: &mut Stage) -> Result<(), String> {
    let client = |stage: &Stage| stage.client(KEEPER).with_deadline(SERVED_WITHIN);
    let worker: Client = client(stage);
    let served = stage.ask("work without a catalog", SERVED_WITHIN * 3, async move {
        worker.put(VOLUME, "alone", "served").await?;
        worker.get(VOLUME, "alone").await
    })?;
    let served = served.map_err(|error| format!("nothing is served: {}", told(&error)))?;
    if served.is_none() {
        return Err("what was written without a catalog is not there".to_owned());
    }
    let maker = stage.client(KEEPER).with_deadline(SECOND);
    let policy = VolumePolicy::new(VolumeKind::Single, 3, 1);
    let made = stage.ask("a volume without a catalog", SERVED_WITHIN, async move {
        maker.create_volume("impossible", policy).await.is_ok()
    })?;
    if made {
        return Err("a volume was made though the catalog had no majority".to_owned());
    }
    stage.world.trace().count("served without catalog");
    Ok(())
}
