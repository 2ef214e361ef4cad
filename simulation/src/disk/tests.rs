//! The simulated log acknowledges only what a power cut keeps.

use cluster::{
    ids::{LogIndex, ReplicaId, ShardId, StoreId, Term, VolumeId},
    ports::log::{LogRecord, LogStore},
    raft::types::{Entry, HardState, Payload},
    units::Instant,
};

use super::*;
use crate::host::Host;

const REPLICA: ReplicaId = ReplicaId(7);
const STAMP: (ClusterId, NodeId) = (ClusterId(1), NodeId(2));

fn created() -> LogRecord {
    LogRecord::Created {
        shard: ShardId(1),
        volume: VolumeId(1),
        store: StoreId(1),
        index: LogIndex(0),
        term: Term(0),
    }
}

fn entry(index: u64) -> LogRecord {
    LogRecord::Ready {
        hard_state: Some(HardState { term: Term(1), vote: REPLICA, commit: LogIndex(0) }),
        entries: vec![Entry {
            index: LogIndex(index),
            term: Term(1),
            payload: Payload::Command(vec![7; 700]),
        }],
    }
}

/// Appends an entry per tick until a cut; how many were acknowledged, and how
/// many are there after it.
fn run(seed: u64, death: Death) -> (u64, u64) {
    let storage = Storage::default();
    let trace = Trace::new(false);
    let mut rng = Rng::stream(seed, "test", 0);
    let host = Host::new(Arc::default(), Instant::ORIGIN);
    let (log, recovery) =
        storage.open_log(STAMP, (false, None), rng.clone(), &trace, None).unwrap();
    assert!(recovery.fresh);
    let acknowledged = Arc::new(AtomicU32::new(0));
    let appended = rng.below(100);
    for index in 0..=appended {
        let record = if index == 0 { created() } else { entry(index) };
        let acknowledged = acknowledged.clone();
        host.inside(|| {
            log.append(
                REPLICA,
                record,
                Box::new(move |outcome| {
                    outcome.unwrap();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }),
            );
        });
        host.step_to(Instant::ORIGIN + Duration::from_millis(index + 1));
    }
    host.crash();
    storage.die(death, &mut rng);
    let (_log, recovery) = storage.open_log(STAMP, (false, None), rng, &trace, None).unwrap();
    assert_eq!(recovery.damage, []);
    let kept = recovery.replicas.first().map_or(0, |replica| 1 + replica.entries.len() as u64);
    (u64::from(acknowledged.load(Ordering::Relaxed)), kept)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_some_of_the_rest_does_not() {
    let (mut lost, mut behind) = (0, 0);
    for seed in 0..200 {
        let (acknowledged, kept) = run(seed, Death::Power);
        assert!(kept >= acknowledged, "seed {seed}: {acknowledged} acknowledged, {kept} kept");
        lost += u32::from(kept == acknowledged);
        behind += u32::from(kept > acknowledged);
    }
    assert!(lost > 10 && behind > 10, "{lost} cuts lost everything unsynced, {behind} kept some");
}

#[test]
fn a_killed_process_leaves_what_it_wrote() {
    for seed in 0..20 {
        let (acknowledged, kept) = run(seed, Death::Kill);
        assert!(kept >= acknowledged, "seed {seed}");
    }
}

#[test]
fn a_slow_disk_takes_its_time() {
    let pace = Pace::default();
    let mut rng = Rng::stream(1, "test", 0);
    pace.set(1_000);
    assert!(pace.draw(&mut rng) >= Duration::from_millis(100));
}
