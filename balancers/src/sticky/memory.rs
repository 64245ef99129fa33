//! Which endpoint a key is at, in a table of fixed size.

use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_discovery_api::Rng;

use crate::hash;

/// So many places where a key may be: with twice as much room as keys, fewer than one key in
/// twenty finds all of them taken.
const WAYS: usize = 4;

/// A set-associative table. Each place is one word, so threads need no lock: the high half is a
/// part of the key's hash, the low half the index of the endpoint plus one; 0 is empty.
///
/// Two keys of one set are confused with a probability of 2^-32, and then share an endpoint.
#[derive(Debug)]
pub(super) struct Memory {
    sets: Box<[[AtomicU64; WAYS]]>,
    /// For requests without a key.
    keyless: AtomicU64,
}

impl Memory {
    /// With room for this many keys, at least.
    pub(super) fn new(keys: usize) -> Self {
        Self {
            sets: (0..keys.div_ceil(WAYS))
                .map(|_| Default::default())
                .collect(),
            keyless: AtomicU64::new(0),
        }
    }

    /// The same keys, each endpoint at its new place; without the keys of those that have none.
    pub(super) fn moved(&self, places: &[Option<usize>]) -> Self {
        let moved = |word: &AtomicU64| {
            let word = word.load(Ordering::Relaxed);
            let place = index(word).and_then(|index| *places.get(index)?);
            AtomicU64::new(place.map_or(0, |place| pack(tag(word), place)))
        };
        Self {
            sets: self
                .sets
                .iter()
                .map(|set| set.each_ref().map(moved))
                .collect(),
            keyless: moved(&self.keyless),
        }
    }

    /// The index of the endpoint that was last put for `key`.
    #[inline]
    pub(super) fn get(&self, key: Option<u64>) -> Option<usize> {
        let Some(key) = key else {
            return index(self.keyless.load(Ordering::Relaxed));
        };
        let hash = hash::mix(key);
        let words = self
            .set(hash)
            .iter()
            .map(|place| place.load(Ordering::Relaxed));
        let mut own = words.filter(|word| *word != 0 && tag(*word) == tag_of(hash));
        own.next().and_then(index)
    }

    pub(super) fn put(&self, key: Option<u64>, index: usize, rng: &mut Rng) {
        let Some(key) = key else {
            return self.keyless.store(pack(0, index), Ordering::Relaxed);
        };
        let hash = hash::mix(key);
        let set = self.set(hash);
        let find = |wanted: &dyn Fn(u64) -> bool| {
            set.iter()
                .find(|place| wanted(place.load(Ordering::Relaxed)))
        };
        let own = find(&|word| word != 0 && tag(word) == tag_of(hash));
        let place = own.or_else(|| find(&|word| word == 0));
        let place = place.unwrap_or_else(|| &set[rng.below(WAYS)]);
        place.store(pack(tag_of(hash), index), Ordering::Relaxed);
    }

    #[inline]
    fn set(&self, hash: u64) -> &[AtomicU64; WAYS] {
        &self.sets[hash::below(hash, self.sets.len())]
    }
}

/// The set goes by the high bits of the hash, the tag by the low ones.
#[inline]
fn tag_of(hash: u64) -> u64 {
    hash & u64::from(u32::MAX)
}

#[inline]
fn tag(word: u64) -> u64 {
    word >> 32
}

#[inline]
fn index(word: u64) -> Option<usize> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let plus_one = word as u32;
    plus_one.checked_sub(1).map(|index| index as usize)
}

/// An index that does not fit is not remembered.
#[inline]
fn pack(tag: u64, index: usize) -> u64 {
    let plus_one = u32::try_from(index + 1).unwrap_or(0);
    tag << 32 | u64::from(plus_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_twice_the_room_nearly_all_keys_are_remembered() {
        let (memory, mut rng) = (Memory::new(4096), Rng::from_seed(1));
        for key in 0..2048_u32 {
            memory.put(Some(key.into()), key as usize % 100, &mut rng);
        }
        let kept = |key: &u32| memory.get(Some((*key).into())) == Some(*key as usize % 100);
        let lost = 2048 - (0..2048).filter(kept).count();
        // A set gets Poisson(2) keys and keeps four: what is beyond is 0.108 on average, so of
        // 1,024 sets 110, with a deviation of 15; 5 of them have a probability below 1e-6.
        assert!(lost.abs_diff(110) < 75, "{lost} of 2,048");
    }

    #[test]
    fn a_key_has_one_place_whatever_is_put() {
        let (memory, mut rng) = (Memory::new(4), Rng::from_seed(1));
        for index in 0..100 {
            memory.put(Some(7), index, &mut rng);
            memory.put(None, index + 1, &mut rng);
            assert_eq!(
                (memory.get(Some(7)), memory.get(None)),
                (Some(index), Some(index + 1))
            );
        }
        for other in 0..3 {
            memory.put(Some(other), 5, &mut rng);
        }
        assert_eq!(memory.get(Some(7)), Some(99), "there was room for all");
        assert_eq!(memory.get(Some(8)), None);
    }

    #[test]
    fn a_move_keeps_what_has_a_place() {
        let (memory, mut rng) = (Memory::new(64), Rng::from_seed(1));
        (0..3_u32).for_each(|key| memory.put(Some(key.into()), key as usize, &mut rng));
        memory.put(None, 2, &mut rng);
        let moved = memory.moved(&[Some(1), None, Some(0)]);
        let kept = [Some(0), Some(1), Some(2), None].map(|key| moved.get(key));
        assert_eq!(kept, [Some(1), None, Some(0), Some(0)]);
    }

    #[test]
    fn an_index_too_large_is_not_remembered() {
        let memory = Memory::new(4);
        memory.put(Some(1), u32::MAX as usize, &mut Rng::from_seed(1));
        assert_eq!(memory.get(Some(1)), None);
    }
}
