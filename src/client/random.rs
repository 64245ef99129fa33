//! Where picks draw their randomness.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_discovery_api::Rng;

use super::hash;

thread_local! {
    static RNG: Cell<Option<Rng>> = const { Cell::new(None) };
}

/// Randomness that many threads draw from without a lock.
#[derive(Debug)]
pub(super) enum Randomness {
    /// Each thread has its own, from the operating system's entropy.
    Entropy,
    /// One sequence for all threads: the n-th draw is the same in every run.
    Seeded { seed: u64, drawn: AtomicU64 },
}

impl Randomness {
    pub(super) fn new(seed: Option<u64>) -> Self {
        seed.map_or(Self::Entropy, |seed| Self::Seeded {
            seed,
            drawn: AtomicU64::new(0),
        })
    }

    /// Lends a generator to `draw`.
    #[inline]
    pub(super) fn with<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        match self {
            // Taken out and put back, so that a picker which picks from another client finds
            // the cell empty rather than borrowed.
            Self::Entropy => RNG.with(|cell| {
                let mut rng = cell.take().unwrap_or_else(Rng::from_entropy);
                let drawn = draw(&mut rng);
                cell.set(Some(rng));
                drawn
            }),
            Self::Seeded { .. } => draw(&mut self.fork()),
        }
    }

    /// A generator of its own.
    pub(super) fn fork(&self) -> Rng {
        match self {
            Self::Entropy => Rng::from_entropy(),
            Self::Seeded { seed, drawn } => {
                Rng::from_seed(hash::nth(*seed, drawn.fetch_add(1, Ordering::Relaxed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_sequence_and_draws_differ() {
        let draws = |seed| {
            let randomness = Randomness::new(Some(seed));
            (0..100)
                .map(|_| randomness.with(Rng::next_u64))
                .collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let mut sorted = draws(7);
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 100);
    }

    #[test]
    fn a_draw_within_a_draw_is_possible() {
        let randomness = Randomness::new(None);
        let (outer, inner) =
            randomness.with(|rng| (rng.next_u64(), randomness.with(Rng::next_u64)));
        assert_ne!(outer, inner);
    }
}
