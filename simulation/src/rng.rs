//! Chance of the world: splitmix64 streams, one per purpose, all from one seed.
//!
//! A stream per purpose keeps one part's draws from shifting another's: adding
//! a fault kind does not change the latencies a kept seed once met.
//! Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators".

use std::time::Duration;

/// One stream of numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed` named `purpose`, for the `member`-th of its kind.
    pub fn stream(seed: u64, purpose: &str, member: u64) -> Self {
        let name = xxhash_rust::xxh3::xxh3_64_with_seed(purpose.as_bytes(), seed);
        let mut mixed = Self(name ^ member.rotate_left(29).wrapping_mul(0x2545_F491_4F6C_DD1D));
        mixed.next();
        mixed
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "an endless stream needs no Option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A small number below `bound`; 0 for a bound of 0.
    pub fn number(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap_or(0)
    }

    /// An index below `len`; 0 for an empty collection.
    pub fn index(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    /// One of `items`, if there is one.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// True with a probability of `ppm` in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// A span in `from..to`.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
        from + Duration::from_nanos(self.below(span))
    }

    /// A random order of `items` (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_are_independent_and_repeat() {
        let draw = |purpose, member| Rng::stream(7, purpose, member).next();
        assert_eq!(draw("network", 0), draw("network", 0));
        assert_ne!(draw("network", 0), draw("network", 1));
        assert_ne!(draw("network", 0), draw("disk", 0));
        assert_ne!(Rng::stream(8, "network", 0).next(), draw("network", 0));
    }

    #[test]
    fn draws_stay_below_their_bound_and_reach_it() {
        let mut rng = Rng::stream(1, "test", 0);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.index(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0));
        assert!(rng.chance(1_000_000));
    }
}
