//! A fixed hash for request keys.

use std::hash::Hasher;

/// 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads every bit of `x` over all bits: the finaliser of SplitMix64 ([Steele, Lea, Flood
/// 2014](https://doi.org/10.1145/2660193.2660195)), a bijection.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The number at position `index` of the sequence that `seed` begins, as SplitMix64 draws it.
pub(super) fn nth(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Any odd numbers with as many ones as zeros; the same everywhere, or clients disagree.
const START: u64 = 0x2D35_8DCC_AA6C_78A5;
const WORD: u64 = 0x5899_65CC_7537_4CC3;
const BYTES: u64 = 0xE703_7ED1_A0B4_28DB;
const END: [u64; 2] = [0xA076_1D64_78BD_642F, 0x8EBC_6AF0_9C88_C6E3];

/// Hashes the key of a request: the same in every process of every run, so that all clients send
/// a key to the same endpoint. Not for untrusted keys in a hash table.
///
/// The step is that of [wyhash](https://github.com/wangyi-fudan/wyhash) and its kin: two words are
/// multiplied to 128 bits, whose halves are joined. A word takes one step, bytes one for each 16
/// begun, the last read from the end, and the end one more. Integers are widened and taken the
/// same way on all machines; only slices of integers other than bytes arrive as they lie in memory.
#[derive(Debug)]
pub(super) struct KeyHasher(u64);

impl Default for KeyHasher {
    #[inline]
    fn default() -> Self {
        Self(START)
    }
}

/// Multiplies to 128 bits and joins the halves.
#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves are what is wanted"
    )]
    let joined = product as u64 ^ (product >> 64) as u64;
    joined
}

/// The first and the last eight bytes of up to 16, which overlap if there are fewer; of fewer than
/// eight, the first and the last four; of fewer than four, all.
#[inline]
fn ends(bytes: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        [first, last].map(|half| u32::from_le_bytes(*half).into())
    } else {
        let all = bytes
            .iter()
            .fold(0, |all, &byte| all << 8 | u64::from(byte));
        [all, 0]
    }
}

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((block, more)) = rest.split_first_chunk::<16>()
            && !more.is_empty()
        {
            let [first, last] = ends(block);
            self.0 = fold(first ^ self.0, last ^ WORD);
            rest = more;
        }
        // Before a short rest there are 16 bytes, of which it takes some once more.
        let tail = bytes.last_chunk::<16>().map_or(rest, |tail| tail);
        let [first, last] = ends(tail);
        let len = bytes.len() as u64;
        self.0 = fold(first ^ self.0, last ^ BYTES.wrapping_add(len));
    }

    #[inline]
    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    #[inline]
    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = fold(word ^ self.0, WORD);
    }

    #[inline]
    fn write_u128(&mut self, word: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
        [word as u64, (word >> 64) as u64]
            .into_iter()
            .for_each(|half| self.write_u64(half));
    }

    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    #[inline]
    fn write_isize(&mut self, word: isize) {
        self.write_i64(word as i64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let [one, other] = END;
        fold(self.0 ^ one, other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    fn hash(key: impl Hash) -> u64 {
        let mut hasher = KeyHasher::default();
        key.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_key_hashes_the_same_in_every_process() {
        // By a program in another language. Other values would send keys elsewhere.
        assert_eq!(hash(""), 0x1597_732C_644C_122D);
        assert_eq!(hash("a"), 0x8098_2317_C044_D605);
        assert_eq!(hash("user-1"), 0x9F0F_F80F_3AC7_A6FF);
        assert_eq!(
            hash("a key of some 16 bytes or more"),
            0x9438_CC65_5362_17FF
        );
        assert_eq!(hash(*b"0123456789abcdef"), 0xF05D_CB5C_44B5_F229);
        assert_eq!(hash(7_u64), 0xAC2E_7515_9033_ACC8);
        assert_eq!(hash((1_u128 << 100) + 5), 0x2EDA_1181_6B3D_35F9);
        assert_eq!(hash(7_u32), hash(7_usize));
        assert_eq!(hash(-7_isize), hash(-7_i64));
    }

    #[test]
    fn keys_that_differ_hash_apart() {
        let numbers = (0..100_000_u64).map(hash);
        let texts = (0..100_000).map(|n| hash(format!("user-{n}")));
        let lengths = (0..64).map(|n| hash(vec![0_u8; n]));
        let parts = (0..64).map(|n| hash(("a".repeat(n), "a".repeat(64 - n))));
        let halves = (0..64).map(|bit| hash(1_u128 << 64 | 1 << bit));
        // 200,192 values of 64 bits after four steps at most, each of which joins two like a random
        // function: a collision has p < 4 * 2^35.3 / 2^65 < 6e-9, and the input is fixed.
        let all = numbers.chain(texts).chain(lengths);
        let seen: HashSet<u64> = all.chain(parts).chain(halves).collect();
        assert_eq!(seen.len(), 200_192);
    }

    /// Fails unless flipping any bit of a key flips each bit of its hash every other time.
    fn assert_avalanche<const BYTES: usize>(hash: impl Fn([u8; BYTES]) -> u64) {
        for bit in 0..8 * BYTES {
            let mut flips = [0_u32; 64];
            for key in 0..2_000_u64 {
                // Keys that are much alike, as they are: the number at the end.
                let mut bytes = [b'-'; BYTES];
                for (byte, part) in bytes.iter_mut().rev().zip(key.to_le_bytes()) {
                    *byte = part;
                }
                let before = hash(bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
                let differing = before ^ hash(bytes);
                for (at, count) in flips.iter_mut().enumerate() {
                    *count += u32::from(differing >> at & 1 == 1);
                }
            }
            // Pairs of keys may be met from both sides, so binomial with n = 1,000, counted
            // twice: sigma 31.6. 7 sigma at 64 places of each of at most 320 bits fails with
            // p < 6e-8.
            assert!(
                flips.iter().all(|count| count.abs_diff(1_000) < 222),
                "bit {bit} of {BYTES} bytes: {flips:?}"
            );
        }
    }

    #[test]
    fn every_bit_of_a_hash_depends_on_every_bit_of_the_key() {
        assert_avalanche(|key: [u8; 8]| hash(u64::from_be_bytes(key)));
        assert_avalanche(|key: [u8; 3]| hash(key));
        assert_avalanche(|key: [u8; 5]| hash(key));
        assert_avalanche(|key: [u8; 16]| hash(key));
        assert_avalanche(|key: [u8; 17]| hash(key));
        assert_avalanche(|key: [u8; 40]| hash(key));
    }

    #[test]
    fn keys_that_are_much_alike_spread_evenly_by_any_bits_of_their_hashes() {
        let texts = |n: u64| hash(format!("user-{n}"));
        let padded = |n: u64| hash(format!("{n:016}").as_bytes());
        let steps = |n: u64| hash(n << 32);
        let pairs = |n: u64| hash((n & 255, n >> 8));
        let kinds: [(&str, &dyn Fn(u64) -> u64); 5] = [
            ("numbers", &|n| hash(n)),
            ("texts", &texts),
            ("padded", &padded),
            ("steps", &steps),
            ("pairs", &pairs),
        ];
        for (kind, hash) in kinds {
            for shift in (0..=56).step_by(8) {
                let mut bins = [0_u32; 256];
                (0..65_536).for_each(|n| bins[(hash(n) >> shift & 255) as usize] += 1);
                let square = |&count: &u32| (f64::from(count) - 256.0).powi(2) / 256.0;
                let chi_square: f64 = bins.iter().map(square).sum();
                // 255 degrees of freedom: above 400 with p < 2e-8, below 150 with p < 1e-8.
                assert!(
                    (150.0..400.0).contains(&chi_square),
                    "{kind} >> {shift}: {chi_square}"
                );
            }
        }
    }
}
