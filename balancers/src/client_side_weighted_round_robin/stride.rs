//! Turns by weight from nothing but a shared counter and a table.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Weights are in units of 1 / 65,536 of the largest.
const FULL: u32 = 1 << 16;

/// Weights are held to these multiples of their mean: one endpoint cannot take nearly all, and each
/// is asked often enough to report.
const RATIOS: (f64, f64) = (0.1, 10.0);

/// The golden ratio of [`FULL`], odd.
const GOLDEN: u64 = 40_503;

/// Then it is anybody's turn. On average a turn takes 10 at most, as the largest weight is at most
/// ten times the mean; this many are passed over only while weights are being changed.
const MAX_PASSES: usize = 256;

/// Counts who was asked. On cache lines of its own, as every pick writes it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn at(start: u64) -> Self {
        Self(AtomicU64::new(start))
    }
}

/// The weight of each. Changed in place: a reader that meets the change halfway uses old weights
/// for some and new ones for others, which is as good as either.
#[derive(Debug)]
pub(super) struct Table(Box<[AtomicU32]>);

impl Table {
    /// Of equal weights.
    pub(super) fn even(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU32::new(FULL)).collect())
    }

    pub(super) fn make_even(&self) {
        self.0
            .iter()
            .for_each(|weight| weight.store(FULL, Ordering::Relaxed));
    }

    /// Of weights that are given relative to their mean.
    pub(super) fn set(&self, relative: impl Iterator<Item = f64> + Clone) {
        let held = relative.map(|weight| weight.clamp(RATIOS.0, RATIOS.1));
        let largest = held.clone().fold(RATIOS.0, f64::max);
        for (place, weight) in self.0.iter().zip(held) {
            // A report may have come in between the two passes.
            let part = (weight / largest).min(1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "above 0 and at most 65,536"
            )]
            let units = (part * f64::from(FULL)).round() as u32;
            place.store(units.max(1), Ordering::Relaxed);
        }
    }

    /// Relative to the others'; never 0.
    pub(super) fn weight(&self, index: usize) -> f64 {
        f64::from(self.0[index].load(Ordering::Relaxed))
    }

    /// The index whose turn it is. The table is not empty.
    ///
    /// Round r asks each endpoint whether r times its weight, starting from an offset of its own,
    /// passes a multiple of [`FULL`] in this round: so it says yes in exactly its part of the
    /// rounds, evenly spread.
    #[inline]
    pub(super) fn next(&self, counter: &Counter) -> usize {
        let size = self.0.len() as u64;
        let mut index = 0;
        for _ in 0..MAX_PASSES {
            let asked = counter.0.fetch_add(1, Ordering::Relaxed);
            let (round, place) = (asked / size, asked % size);
            #[expect(clippy::cast_possible_truncation, reason = "below the length")]
            let place_index = place as usize;
            index = place_index;
            let weight = u64::from(self.0[index].load(Ordering::Relaxed));
            let offset = place.wrapping_mul(GOLDEN);
            let at = weight.wrapping_mul(round).wrapping_add(offset) % u64::from(FULL);
            if at + weight >= u64::from(FULL) {
                break;
            }
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(table: &Table, counter: &Counter, turns: u32) -> Vec<u32> {
        let mut counts = vec![0; table.0.len()];
        (0..turns).for_each(|_| counts[table.next(counter)] += 1);
        counts
    }

    #[test]
    fn equal_weights_are_plain_turns() {
        let (table, counter) = (Table::even(5), Counter::at(2));
        let turns: Vec<_> = (0..10).map(|_| table.next(&counter)).collect();
        assert_eq!(turns, [2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
    }

    #[test]
    fn shares_are_exact_to_within_a_turn_or_two() {
        let weights = [1.0, 0.5, 2.0, 1.5, 0.25, 0.75];
        let table = Table::even(6);
        table.set(weights.into_iter());
        for start in [0, 12_345, 1 << 40] {
            // 6 is their sum: 1,000 turns for each unit.
            let counts = counts(&table, &Counter::at(start), 6000);
            for (count, weight) in counts.iter().zip(weights) {
                let due = weight * 1000.0;
                assert!((f64::from(*count) - due).abs() < 3.0, "{counts:?}");
            }
        }
    }

    #[test]
    fn extremes_are_held_and_turns_remain_short() {
        let n = 100;
        let table = Table::even(n);
        table.set((0..n).map(|index| if index == 0 { 1e9 } else { 1e-9 }));
        let counter = Counter::at(0);
        let mut longest = 0;
        let mut first = 0;
        for _ in 0..10_900 {
            let before = counter.0.load(Ordering::Relaxed);
            first += u32::from(table.next(&counter) == 0);
            longest = longest.max(counter.0.load(Ordering::Relaxed) - before);
        }
        // 10 against 99 times 0.1, of the largest: 100 rounds have 100 turns of one, 1 of each.
        assert!((5400..5500).contains(&first), "{first}");
        // Nearly one turn in 100 asked on average; 200 is no fallback.
        assert!(longest < 200, "{longest}");
    }

    #[test]
    fn rounds_are_never_empty_where_all_weigh_about_a_tenth() {
        let n = 100;
        let table = Table::even(n);
        table.set((0..n).map(|index| if index == 0 { 10.0 } else { 0.909 }));
        let counter = Counter::at(0);
        let mut asked = Vec::new();
        for _ in 0..10_000 {
            let before = counter.0.load(Ordering::Relaxed);
            table.next(&counter);
            asked.push(counter.0.load(Ordering::Relaxed) - before);
        }
        assert!(asked.iter().max() < Some(&40), "{:?}", asked.iter().max());
    }
}
