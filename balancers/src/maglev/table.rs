//! The table itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use plimsoll_discovery_api::{Endpoints, Error, Result};

use crate::eligible::weights;
use crate::hash;

/// For each slot, the index of the endpoint that owns it.
#[derive(Debug)]
pub(super) struct Table(Box<[u32]>);

/// Any number; the same everywhere, or clients disagree.
const OFFSET_SEED: u64 = 0;
const SKIP_SEED: u64 = 1;

const FREE: u32 = u32::MAX;

impl Table {
    /// Lays out `size` slots, a prime, for `endpoints`, none of which weighs nothing. Empty if
    /// there are fewer than two.
    ///
    /// # Errors
    /// `InvalidArgument` for more endpoints than slots.
    pub(super) fn new(endpoints: &Endpoints, size: usize) -> Result<Self> {
        if endpoints.len() > size {
            return Err(
                Error::invalid("table_size", size, "is below the number of endpoints")
                    .with_context("endpoints", endpoints.len().to_string()),
            );
        }
        if endpoints.len() < 2 {
            return Ok(Self(Box::default()));
        }
        let mut claims: Vec<Claims> = endpoints
            .iter()
            .map(|e| Claims::new(e.id().as_str().as_bytes(), size))
            .collect();
        let mut filling = Filling::new(size);
        let weights = weights(endpoints);
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            for index in (0..claims.len()).cycle().take(size) {
                filling.give(&mut claims[index], index);
            }
        } else {
            // The k-th turn of an endpoint comes at k - 1/2 over its weight, which shares slots
            // out as Webster's method does seats. Positive floats sort like their bits; equal
            // times go in the order of the ids.
            let due =
                |turns: f64, index: usize| Reverse(((turns / weights[index]).to_bits(), index));
            let mut turns = vec![0.5; weights.len()];
            let mut queue: BinaryHeap<_> =
                (0..weights.len()).map(|index| due(0.5, index)).collect();
            for _ in 0..size {
                if let Some(mut next) = queue.peek_mut() {
                    let index = next.0.1;
                    filling.give(&mut claims[index], index);
                    turns[index] += 1.0;
                    *next = due(turns[index], index);
                }
            }
        }
        Ok(Self(filling.slots))
    }

    /// Who owns the slot of `hash`, of which all bits count. The table is not empty.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> usize {
        self.0[hash::below(hash, self.0.len())] as usize
    }
}

/// A table that is not full yet.
struct Filling {
    slots: Box<[u32]>,
    free: usize,
    /// All free slots, once they are few.
    last: Vec<usize>,
    few: usize,
}

impl Filling {
    fn new(size: usize) -> Self {
        Self {
            slots: vec![FREE; size].into_boxed_slice(),
            free: size,
            last: Vec::new(),
            // Trying slots until one is free takes `size / free` steps, and comparing all free
            // ones takes `free`, of about four times the cost.
            few: size.isqrt() / 2,
        }
    }

    /// Gives the first free slot of its order, of which there is one, to `owner`.
    fn give(&mut self, claims: &mut Claims, owner: usize) {
        let slot = if self.free > self.few {
            claims.try_all(&self.slots)
        } else {
            if self.last.is_empty() {
                self.last
                    .extend((0..self.slots.len()).filter(|&slot| self.slots[slot] == FREE));
            }
            claims.compare(&mut self.last, self.slots.len())
        };
        self.slots[slot] = u32::try_from(owner).unwrap_or(FREE);
        self.free -= 1;
    }
}

/// The order in which one endpoint wants the slots: all of them, each once.
struct Claims {
    next: usize,
    skip: usize,
}

impl Claims {
    fn new(id: &[u8], size: usize) -> Self {
        Self {
            next: hash::below(hash::xxh64(id, OFFSET_SEED), size),
            skip: 1 + hash::below(hash::xxh64(id, SKIP_SEED), size - 1),
        }
    }

    /// The first free slot of its order, of which there is one, by trying one after the other.
    fn try_all(&mut self, slots: &[u32]) -> usize {
        loop {
            let slot = self.next;
            self.next += self.skip;
            if self.next >= slots.len() {
                self.next -= slots.len();
            }
            if slots[slot] == FREE {
                return slot;
            }
        }
    }

    /// The same, by working out when each of the `free` ones would be tried; takes it from them.
    fn compare(&mut self, free: &mut Vec<usize>, size: usize) -> usize {
        let per_slot = inverse(self.skip, size);
        // The product is below `size` squared, which is 45 bits for the largest table.
        let tries = |slot: usize| {
            let ahead = if slot < self.next { size } else { 0 } + slot - self.next;
            ahead as u64 * per_slot as u64 % size as u64
        };
        let first = (0..free.len())
            .min_by_key(|&at| tries(free[at]))
            .unwrap_or(0);
        let slot = free.swap_remove(first);
        self.next = (slot + self.skip) % size;
        slot
    }
}

/// What gives 1 modulo `size`, a prime, when multiplied by `number`, which is from 1 to below it:
/// by Euclid's algorithm.
fn inverse(number: usize, size: usize) -> usize {
    let (mut rest, mut next_rest) = (size, number);
    // Factors of `number` that leave these rests, modulo `size`.
    let (mut factor, mut next_factor) = (0, 1);
    while next_rest > 1 {
        let quotient = rest / next_rest;
        (rest, next_rest) = (next_rest, rest % next_rest);
        #[expect(clippy::cast_possible_truncation, reason = "smaller than `size`")]
        let product = (quotient as u64 * next_factor as u64 % size as u64) as usize;
        (factor, next_factor) = (next_factor, (factor + size - product) % size);
    }
    next_factor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, endpoints, views, weighted};

    fn counts(table: &Table, n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        table
            .0
            .iter()
            .for_each(|&owner| counts[owner as usize] += 1);
        counts
    }

    #[test]
    fn equal_weights_share_the_slots_to_within_one() {
        for (n, size) in [(2, 2), (3, 7), (10, 1009), (1000, 65_537)] {
            let counts = counts(&Table::new(&endpoints(n), size).unwrap(), n);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{n} in {size}: {least} to {most}");
        }
    }

    #[test]
    fn unequal_weights_share_the_slots_to_within_one_of_their_due() {
        let weights = [1, 10, 100, 1000, 2000, 7];
        let counts = counts(
            &Table::new(&weighted(&weights), 65_537).unwrap(),
            weights.len(),
        );
        let sum = f64::from(weights.iter().sum::<u32>());
        for (count, weight) in counts.iter().zip(weights) {
            let due = 65_537.0 * f64::from(weight) / sum;
            assert!((*count as f64 - due).abs() <= 1.0, "{count} of {due}");
        }
    }

    #[test]
    fn slots_are_fixed_for_good() {
        // By an independent program. Versions that disagree would send a key to two endpoints.
        const EVEN: [u32; 13] = [2, 0, 0, 2, 1, 0, 2, 2, 0, 0, 1, 1, 1];
        const UNEVEN: [u32; 13] = [2, 2, 0, 2, 1, 0, 2, 2, 2, 2, 1, 1, 1];
        for (weights, slots) in [([1, 1, 1], EVEN), ([1, 2, 4], UNEVEN)] {
            let server = |(id, weight): (&str, u32)| Server::with(id, |b| b.with_weight(weight));
            let ids = ["orders-1", "orders-2", "orders-3"];
            let servers: Vec<_> = ids.into_iter().zip(weights).map(server).collect();
            assert_eq!(*Table::new(&views(&servers), 13).unwrap().0, slots);
        }
    }

    #[test]
    fn the_last_slots_are_given_as_if_all_were_tried() {
        for size in [2, 3, 13, 1009, 65_537] {
            let ids: Vec<_> = (0..size.min(300)).map(|id| format!("{id}")).collect();
            let claims = || ids.iter().map(|id| Claims::new(id.as_bytes(), size));
            let (mut ones, mut others): (Vec<_>, Vec<_>) = (claims().collect(), claims().collect());
            let mut filling = Filling::new(size);
            let mut slots = vec![FREE; size];
            for turn in 0..size {
                let index = turn % ids.len();
                filling.give(&mut ones[index], index);
                let slot = others[index].try_all(&slots);
                slots[slot] = u32::try_from(index).unwrap();
            }
            assert!(*filling.slots == *slots, "{size}");
        }
    }

    #[test]
    fn inverses_multiply_to_one() {
        for size in [2, 3, 13, 1009, 65_537, 5_000_011_usize] {
            for number in (1..size).step_by(size / 1009 + 1).chain([size - 1]) {
                assert_eq!(number * inverse(number, size) % size, 1, "{number}, {size}");
            }
        }
    }

    #[test]
    fn more_endpoints_than_slots_is_an_error_that_says_so() {
        let error = Table::new(&endpoints(8), 7).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid argument: table_size is below the number of endpoints \
             (table_size: 7, endpoints: 8)"
        );
    }
}
