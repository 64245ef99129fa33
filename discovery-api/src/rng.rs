//! Randomness, injected so that every choice can be repeated under test.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 128 bits that no other process will draw.
///
/// The standard library keys each `RandomState` from the operating system's entropy and never
/// keys two alike, so two of its hashes are two independent draws without a further dependency.
pub(crate) fn entropy() -> u128 {
    let word = || u128::from(RandomState::new().build_hasher().finish());
    word() << 64 | word()
}

/// A small, fast generator for picking and for jitter (wyrand). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Seeded from the operating system's entropy.
    #[must_use]
    pub fn from_entropy() -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "half of the entropy is enough"
        )]
        Self::from_seed(entropy() as u64)
    }

    /// Seeded by `seed`: the same seed draws the same numbers.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Uniform in `[0, 1)`.
    #[inline]
    pub fn next_f64(&mut self) -> f64 {
        self.0.f64()
    }

    /// Uniform in `0..bound`, by multiply-shift with rejection, so without modulo bias.
    ///
    /// # Panics
    /// If `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// Two different uniform indices below `bound`, in random order.
    ///
    /// # Panics
    /// If `bound` is below 2.
    #[inline]
    pub fn two_below(&mut self, bound: usize) -> (usize, usize) {
        let first = self.below(bound);
        let second = self.below(bound - 1);
        (first, if second >= first { second + 1 } else { second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_below_never_repeats_and_reaches_every_ordered_pair() {
        let mut rng = Rng::from_seed(1);
        let mut seen = std::collections::HashSet::new();
        // Each of the 12 ordered pairs is missed by all 500 draws with p < 12 * (11/12)^500 < 1e-17.
        for _ in 0..500 {
            let (a, b) = rng.two_below(4);
            assert_ne!(a, b);
            seen.insert((a, b));
        }
        assert_eq!(seen.len(), 12);
    }

    #[test]
    fn a_seed_repeats_and_entropy_does_not() {
        assert_eq!(Rng::from_seed(7).next_u64(), Rng::from_seed(7).next_u64());
        assert_ne!(entropy(), entropy());
    }
}
