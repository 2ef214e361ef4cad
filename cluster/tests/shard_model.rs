//! The state machine against a plain model, over the engine in memory.

mod model;

use cluster::{memory::MemoryEngine, mvcc::version::VersionKind};

#[test]
fn a_dense_replica_answers_as_the_model_does() {
    for seed in 0..3 {
        let applied = model::run(&MemoryEngine::default(), VersionKind::Dense, seed, 1_500);
        assert!(applied > 600, "seed {seed} applied {applied}");
    }
}

#[test]
fn a_hybrid_replica_answers_as_the_model_does() {
    for seed in 100..103 {
        let applied = model::run(&MemoryEngine::default(), VersionKind::Hybrid, seed, 1_500);
        assert!(applied > 600, "seed {seed} applied {applied}");
    }
}
