//! A counter that many threads share, read as a place in a cycle.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where the counter is taken back, give or take one round.
const LAP: u64 = 1 << 32;

/// So many turns that are not wanted are passed over, one atomic write each, before another way is
/// taken.
pub(crate) const MAX_PASSES: usize = 64;

/// A counter read modulo a size. On cache lines of its own, as every pick writes it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Turn(AtomicU64);

impl Turn {
    /// Whose next index is `index`.
    pub(crate) fn at(index: usize) -> Self {
        Self(AtomicU64::new(index as u64))
    }

    /// The index whose turn it is. `size` is not 0.
    pub(crate) fn peek(&self, size: usize) -> usize {
        residue(self.0.load(Ordering::Relaxed), size)
    }

    /// The same, and moves on. `size` is not 0, below 2^31 and the same at every call.
    ///
    /// Whoever draws the last multiple of `size` up to [`LAP`] takes that much off again: no residue
    /// changes, so the cycle has no seam, ever, and the division stays one of 32 bits, which is
    /// several times cheaper on many processors. The other half of the counter is room for those
    /// who draw in between.
    #[inline]
    pub(crate) fn take(&self, size: usize) -> usize {
        let ticket = self.0.fetch_add(1, Ordering::Relaxed);
        let size_wide = size as u64;
        if ticket > LAP - size_wide {
            let lap = LAP - LAP % size_wide;
            if ticket == lap {
                self.0.fetch_sub(lap, Ordering::Relaxed);
            }
        }
        residue(ticket, size)
    }
}

#[inline]
fn residue(ticket: u64, size: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "smaller than `size`")]
    let index = (ticket % size as u64) as usize;
    index
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_cycle_has_no_seam_where_the_counter_turns_over() {
        for size in [2, 3, 7, 10, 1000, 65_537] {
            for before in 0..4 {
                let wide = size as u64;
                let start = LAP - LAP % wide - before;
                let turn = Turn(AtomicU64::new(start));
                let mut due = turn.peek(size);
                for _ in 0..3 * size {
                    assert_eq!(turn.take(size), due);
                    due = (due + 1) % size;
                }
                assert_eq!(turn.peek(size), due);
                assert!(
                    turn.0.load(Ordering::Relaxed) < 4 * wide,
                    "the counter was taken back"
                );
            }
        }
    }

    #[test]
    fn threads_that_share_a_picker_share_its_turns_exactly() {
        let turn = Turn(AtomicU64::new(LAP - 5000));
        let mut total = [0; 7];
        thread::scope(|scope| {
            let share = || {
                let mut counts = [0; 7];
                (0..7000).for_each(|_| counts[turn.take(7)] += 1);
                counts
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(share)).collect();
            for thread in threads {
                let counts: [u32; 7] = thread.join().unwrap();
                total
                    .iter_mut()
                    .zip(counts)
                    .for_each(|(sum, count)| *sum += count);
            }
        });
        assert_eq!(total, [4000; 7]);
    }
}
