//! The state machine against a plain model, over the engine in memory.

mod model;

use cluster::{memory::MemoryEngine, mvcc::version::VersionKind};

#[test]
fn a_dense_replica_answers_as_the_model_does() {
    for seed in 0..12 {
        let applied = model::run(&MemoryEngine::default(), VersionKind::Dense, seed, 2_500);
        assert!(applied > 1_000, "seed {seed} applied {applied}");
    }
}

#[test]
fn a_hybrid_replica_answers_as_the_model_does() {
    for seed in 100..112 {
        let applied = model::run(&MemoryEngine::default(), VersionKind::Hybrid, seed, 2_500);
        assert!(applied > 1_000, "seed {seed} applied {applied}");
    }
}
