//! The `Entropy` port over the world's seed.

use std::sync::{Mutex, PoisonError};

use cluster::ports::entropy::Entropy;

use crate::rng::Rng;

/// Chance of one start of one node.
///
/// A lock, though there is one thread: the port is `Sync` by contract.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<Rng>);

impl SeededEntropy {
    /// Entropy that draws from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self(Mutex::new(rng))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}
