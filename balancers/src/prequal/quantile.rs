//! A quantile of what was seen last.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How many are remembered: enough for a quantile to within some 5 %.
const WINDOW: usize = 64;
/// How many new ones it takes to compute it anew.
const BATCH: usize = 32;

/// A quantile of the last 64 numbers. Threads that see numbers at once may overwrite one another's
/// now and then; what is read is the result of some window all the same.
#[derive(Debug)]
pub(super) struct Quantile {
    part: f64,
    /// `f32` as bits.
    window: [AtomicU32; WINDOW],
    seen: AtomicUsize,
    /// `f64` as bits.
    value: AtomicU64,
}

impl Quantile {
    /// The part of the numbers, 0 to 1, that is not above the result.
    pub(super) fn new(part: f64) -> Self {
        Self {
            part,
            window: [const { AtomicU32::new(0) }; WINDOW],
            seen: AtomicUsize::new(0),
            value: AtomicU64::new(f64::INFINITY.to_bits()),
        }
    }

    /// Infinite before the first.
    #[inline]
    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }

    pub(super) fn see(&self, number: f64) {
        let before = self.seen.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "7 digits are enough")]
        let number = number as f32;
        self.window[before % WINDOW].store(number.to_bits(), Ordering::Relaxed);
        let seen = before.wrapping_add(1);
        if seen < BATCH || seen.is_multiple_of(BATCH) {
            self.compute(seen.min(WINDOW));
        }
    }

    fn compute(&self, filled: usize) {
        let mut numbers = [0.0_f32; WINDOW];
        for (number, place) in numbers.iter_mut().zip(&self.window[..filled]) {
            *number = f32::from_bits(place.load(Ordering::Relaxed));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to the length"
        )]
        let rank = ((self.part * filled as f64).ceil() as usize).clamp(1, filled);
        let numbers = &mut numbers[..filled];
        let (_, value, _) = numbers.select_nth_unstable_by(rank - 1, f32::total_cmp);
        self.value
            .store(f64::from(*value).to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_last_64() {
        for (part, expected) in [(0.0, 1.0), (0.25, 16.0), (0.84, 54.0), (1.0, 64.0)] {
            let quantile = Quantile::new(part);
            assert_eq!(quantile.get(), f64::INFINITY);
            (0..1000).for_each(|_| quantile.see(1e9));
            // 37 is prime to 64: all of 1 to 64, in another order.
            (0..64 + 24).for_each(|n| quantile.see(f64::from(n * 37 % 64 + 1)));
            assert_eq!(quantile.get(), expected);
        }
    }

    #[test]
    fn it_is_there_from_the_first_number_on() {
        let quantile = Quantile::new(0.5);
        for (number, expected) in [(8.0, 8.0), (2.0, 2.0), (6.0, 6.0), (7.0, 6.0)] {
            quantile.see(number);
            assert_eq!(quantile.get(), expected);
        }
    }
}
