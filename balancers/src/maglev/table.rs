//! The table itself.

use plimsoll_discovery_api::{Endpoints, Error, Result};

use super::turns::in_turns;
use crate::hash;

/// For each slot, the index of the endpoint that owns it.
#[derive(Debug)]
pub(super) struct Table(Box<[u32]>);

/// Any number; the same everywhere, or clients disagree.
const OFFSET_SEED: u64 = 0;
const SKIP_SEED: u64 = 1;

const FREE: u32 = u32::MAX;

impl Table {
    /// Lays out `size` slots, a prime, for `endpoints` of these weights, none of which is 0. Empty
    /// if there are fewer than two.
    ///
    /// # Errors
    /// `InvalidArgument` for more endpoints than slots.
    pub(super) fn new(endpoints: &Endpoints, weights: &[f64], size: usize) -> Result<Self> {
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
        in_turns(weights, size, |index| {
            filling.give(&mut claims[index], index);
        });
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
    /// 2^64 times what one slot is of the table.
    slot: u128,
}

impl Filling {
    fn new(size: usize) -> Self {
        Self {
            slots: vec![FREE; size].into_boxed_slice(),
            free: size,
            last: Vec::new(),
            // Trying slots until one is free takes `size / free` steps, and comparing all free
            // ones takes `free`, of about half the cost.
            few: size.isqrt() * 3 / 2,
            slot: u128::MAX / size as u128,
        }
    }

    /// Gives the first free slot of its order, of which there is one, to `owner`.
    #[inline]
    fn give(&mut self, claims: &mut Claims, owner: usize) {
        let slot = if self.free > self.few {
            claims.try_all(&self.slots)
        } else {
            self.compare(claims)
        };
        self.slots[slot] = u32::try_from(owner).unwrap_or(FREE);
        self.free -= 1;
    }

    /// The first free slot of its order, by working out when each of them would be tried.
    fn compare(&mut self, claims: &mut Claims) -> usize {
        if self.last.is_empty() {
            let is_free = |&slot: &usize| self.slots[slot] == FREE;
            self.last.extend((0..self.slots.len()).filter(is_free));
        }
        // A slot so many places ahead of the next one is tried after so many times this number of
        // tries, modulo the size. In units of 2^-64 of the table that wraps around by itself. A
        // unit too many at most for each place ahead makes less than the size in all, and slots
        // are 2^64 / size units apart.
        let tries = inverse(claims.skip, self.slots.len()) as u128;
        let per_place = ((tries * self.slot) >> 64) as u64 + 1;
        let next = claims.next as u64;
        let when = |slot: usize| (slot as u64).wrapping_sub(next).wrapping_mul(per_place);
        let first = (0..self.last.len())
            .min_by_key(|&at| when(self.last[at]))
            .unwrap_or(0);
        let slot = self.last.swap_remove(first);
        claims.next = claims.after(slot, self.slots.len());
        slot
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

    /// What comes after `slot`.
    #[inline]
    fn after(&self, slot: usize, size: usize) -> usize {
        let next = slot + self.skip;
        if next < size { next } else { next - size }
    }

    /// The first free slot of its order, of which there is one, by trying one after the other.
    ///
    /// In pairs, of which the second is looked at in any case: whether the first is free cannot be
    /// foreseen, and to be wrong costs more than to look.
    #[inline]
    fn try_all(&mut self, slots: &[u32]) -> usize {
        loop {
            let one = self.next;
            let other = self.after(one, slots.len());
            let after = self.after(other, slots.len());
            // No owner is above "free": the higher of two is that if either is.
            let first = slots[one];
            if first.max(slots[other]) == FREE {
                let (slot, next) = if first == FREE {
                    (one, other)
                } else {
                    (other, after)
                };
                self.next = next;
                return slot;
            }
            self.next = after;
        }
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
    use crate::eligible::weights;
    use crate::testing::{Server, endpoints, views, weighted};

    fn table(endpoints: &Endpoints, size: usize) -> Result<Table> {
        Table::new(endpoints, &weights(endpoints), size)
    }

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
            let counts = counts(&table(&endpoints(n), size).unwrap(), n);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{n} in {size}: {least} to {most}");
        }
    }

    #[test]
    fn unequal_weights_share_the_slots_to_within_one_of_their_due() {
        let weights = [1, 10, 100, 1000, 2000, 7];
        let counts = counts(&table(&weighted(&weights), 65_537).unwrap(), weights.len());
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
            assert_eq!(*table(&views(&servers), 13).unwrap().0, slots);
        }
    }

    #[test]
    fn slots_of_full_sized_tables_are_fixed_for_good() {
        // By another program, which has the turns in a heap and tries slots one by one.
        let digest = |weight: fn(u32) -> u32, n: u32, size| {
            let weights: Vec<u32> = (0..n).map(weight).collect();
            let table = table(&weighted(&weights), size).unwrap();
            table.0.iter().fold(0_u64, |digest, &owner| {
                digest
                    .wrapping_mul(0x0100_0000_01B3)
                    .wrapping_add(u64::from(owner))
            })
        };
        assert_eq!(digest(|_| 100, 1000, 65_537), 0xA185_26DD_6FBE_6B38);
        assert_eq!(digest(|n| n % 10 + 1, 1000, 65_537), 0x3F9A_004C_DE7B_6365);
        let mixed = |n: u32| n.wrapping_mul(2_654_435_761) % 1_000_000 + 1;
        assert_eq!(digest(mixed, 100, 65_537), 0xDDF9_7D41_2E6B_822C);
        assert_eq!(
            digest(|n| 1_000_000 - n, 1000, 10_007),
            0x930A_B785_8AE4_EFD9
        );
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
        let error = table(&endpoints(8), 7).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid argument: table_size is below the number of endpoints \
             (table_size: 7, endpoints: 8)"
        );
    }
}
