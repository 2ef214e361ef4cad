//! Each fault really bites, and the product does what it promises on it.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use actors::failpoint::FailPoint;
use cluster::units::Instant;
use simulation::{
    faults::{Course, Planned, Schedule},
    hooks::on_seeded_thread,
    plan::Plan,
    scenario,
    stage::Stage,
    trial,
    world::Setup,
};

/// Lets a schedule strike a founded cluster of three; what it met is counted.
/// Times in the schedule are the world's; a cluster stands after ten seconds.
fn play(seed: u64, schedule: &str, counters: &'static [&'static str]) -> Vec<u64> {
    let schedule: Schedule = schedule.parse().expect("a schedule");
    on_seeded_thread(seed, move || {
        let mut stage = Stage::product(&Setup::calm(seed));
        stage.found(1).expect("a cluster");
        let mut course: Course = schedule.course(Instant::ORIGIN);
        let ends = schedule.faults().iter().map(|Planned { at, life, .. }| *at + *life).max();
        let end = ends.expect("a fault") + Duration::from_secs(8);
        while stage.world.now() < end {
            course.advance(&mut stage.world);
            stage.pass(Duration::from_millis(1)).expect("a live world");
        }
        counters.iter().map(|counter| stage.world.trace().counted(counter)).collect()
    })
}

#[test]
fn a_failed_sync_fences_the_disk_and_the_node_recovers() {
    let met = play(
        1,
        "20.000 +0.100 sync-error 1\n21.000 +0.100 restart-loop 2 50ms",
        &["fenced disk", "start"],
    );
    assert_eq!(met.first(), Some(&1));
    assert!(met.get(1) >= Some(&5), "{met:?}");
}

#[test]
fn an_old_image_is_found_and_its_replicas_come_back_under_new_ids() {
    let met = play(
        1,
        "20.000 +6.000 old-image 2",
        &["old image restored", "old image found", "log condemned", "stranger"],
    );
    assert_eq!(met, [1, 1, 1, 0]);
}

#[test]
fn swapped_disks_are_refused_until_they_are_back() {
    let met = play(1, "20.000 +5.000 swapped-disks 2 3", &["start refused", "stranger"]);
    assert!(met.first() >= Some(&4), "{met:?}");
    assert_eq!(met.get(1), Some(&0));
}

#[test]
fn a_machine_dies_at_a_named_place_and_is_started_again() {
    let met = play(
        1,
        "20.000 +9.000 fail-point 1 log.handed power\n21.000 +0.100 kill 2",
        &["failpoint log.handed", "ended by itself"],
    );
    assert_eq!(met, [1, 1]);
}

/// Seeds of the scenario within which every place is met; each has half of them.
const PLACES_SEEDS: std::ops::RangeInclusive<u64> = 1..=6;

#[test]
fn a_machine_dies_at_every_fail_point_within_six_seeds_of_a_scenario() {
    let mut never: BTreeSet<FailPoint> = FailPoint::ALL.iter().copied().collect();
    for seed in PLACES_SEEDS {
        let verdict = on_seeded_thread(seed, move || {
            let scenario = scenario::find("deaths-at-named-places").expect("it is there");
            trial::play(Plan::draw(seed, scenario))
        });
        assert_eq!(verdict.failure, None, "seed {seed}");
        let met = |point: &FailPoint| {
            let name = format!("failpoint {point}");
            verdict.counters.iter().any(|(counter, _)| *counter == name)
        };
        never.retain(|point| !met(point));
        if never.is_empty() {
            return;
        }
    }
    panic!("nobody died at {never:?}");
}

#[test]
fn a_second_disk_is_never_destroyed() {
    let met = play(
        1,
        "20.000 +1.000 wiped-disk 2\n22.000 +1.000 wiped-disk 3",
        &["stranger", "destruction spared"],
    );
    assert_eq!(met, [1, 1]);
}
