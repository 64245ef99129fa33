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
        assert_ne!(bound, 0, "nothing is below 0");
        let (index, place) = self.draw(bound as u64);
        // Bounds are small, so places below them are as rare as 1 in 2^64 / bound.
        if place < bound as u64 {
            return self.below_evenly(bound as u64, index, place);
        }
        index
    }

    /// Which of `bound` equal parts of 2^64 the next 64 bits fall in, and where in it, in steps of
    /// `bound`.
    #[inline]
    fn draw(&mut self, bound: u64) -> (usize, u64) {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        #[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
        ((wide >> 64) as usize, wide as u64)
    }

    /// As 2^64 is no multiple of most bounds, some parts have one place more: the first of each
    /// are left out, so that all have as many
    /// ([Lemire 2019](https://doi.org/10.1145/3230636)).
    #[cold]
    fn below_evenly(&mut self, bound: u64, mut index: usize, mut place: u64) -> usize {
        let left_out = bound.wrapping_neg() % bound;
        while place < left_out {
            (index, place) = self.draw(bound);
        }
        index
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
    fn below_is_even_where_parts_differ_most_and_stays_below() {
        // Of 2^64 places, a bound of 3 * 2^62 gives two to every third index and one to the
        // others, unless some are left out: then a third of 30,000 falls to each class.
        let bound = 3 * (usize::MAX / 4 + 1);
        let mut rng = Rng::from_seed(9);
        let mut classes = [0_u32; 3];
        for _ in 0..30_000 {
            let index = rng.below(bound);
            assert!(index < bound);
            classes[index % 3] += 1;
        }
        // Binomial, sigma 82: 6 sigma fails with p < 6e-9.
        let fair = 10_000 - 490..10_000 + 490;
        assert!(
            classes.iter().all(|count| fair.contains(count)),
            "{classes:?}"
        );
        assert!((0..100).all(|_| rng.below(1) == 0));
    }

    #[test]
    #[should_panic(expected = "nothing is below 0")]
    fn below_nothing_panics() {
        Rng::from_seed(1).below(0);
    }

    #[test]
    fn a_seed_repeats_and_entropy_does_not() {
        assert_eq!(Rng::from_seed(7).next_u64(), Rng::from_seed(7).next_u64());
        assert_ne!(entropy(), entropy());
    }
}
