//! Chance from the operating system.

use cluster::ports::entropy::Entropy;
use ring::rand::{SecureRandom, SystemRandom};

/// The operating system's generator, good enough for keys.
#[derive(Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The generator of this machine.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    #[expect(clippy::expect_used, reason = "ids and keys without chance would be worse than death")]
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let entropy = SystemEntropy::new();
        assert_ne!(entropy.next_u128(), entropy.next_u128());
    }
}
