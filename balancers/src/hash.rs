//! The hash functions behind the algorithms that keep equal keys together.
//!
//! They are fixed for good: two clients, or two versions of this crate, must agree.

use plimsoll_discovery_api::PickContext;

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 of `bytes`
/// ([specification](https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md)).
pub(crate) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut stripes = bytes.chunks_exact(32);
    let mut hash = if bytes.len() < 32 {
        seed.wrapping_add(PRIME_5)
    } else {
        let mut lanes = [
            seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
            seed.wrapping_add(PRIME_2),
            seed,
            seed.wrapping_sub(PRIME_1),
        ];
        for stripe in &mut stripes {
            for (lane, bytes) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, little_endian(bytes));
            }
        }
        let [a, b, c, d] = lanes;
        let merged = [(a, 1), (b, 7), (c, 12), (d, 18)]
            .iter()
            .fold(0_u64, |sum, &(lane, turn)| {
                sum.wrapping_add(lane.rotate_left(turn))
            });
        lanes.iter().fold(merged, |hash, &lane| {
            (hash ^ round(0, lane))
                .wrapping_mul(PRIME_1)
                .wrapping_add(PRIME_4)
        })
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let mut words = stripes.remainder().chunks_exact(8);
    for word in &mut words {
        hash = (hash ^ round(0, little_endian(word))).rotate_left(27);
        hash = hash.wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let mut rest = words.remainder();
    if let Some((half, tail)) = rest.split_at_checked(4) {
        hash = (hash ^ little_endian(half).wrapping_mul(PRIME_1)).rotate_left(23);
        hash = hash.wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = tail;
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte).wrapping_mul(PRIME_5)).rotate_left(11);
        hash = hash.wrapping_mul(PRIME_1);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
    hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
    hash ^ hash >> 32
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

/// Up to eight bytes as a number.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Spreads every bit of `key` over all bits, one to one: the finalizer of SplitMix64
/// ([Steele, Lea, Flood 2014](https://doi.org/10.1145/2660193.2660195)). A weak hash as key, even a
/// plain number, is made good by it.
#[inline]
pub(crate) fn mix(key: u64) -> u64 {
    let key = (key ^ key >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let key = (key ^ key >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    key ^ key >> 31
}

/// An exponential variate of mean 1 from a good hash. Of several, each over its weight, the least
/// falls to each in proportion to its weight, and so does the next among the others.
#[inline]
pub(crate) fn wait(hash: u64) -> f64 {
    // 53 bits, the middle of the step, so that it is neither 0 nor 1.
    let uniform = ((hash >> 11) as f64 + 0.5) * 2.0_f64.powi(-53);
    -uniform.ln()
}

/// `hash` scaled to below `size`, without a division.
#[inline]
pub(crate) fn below(hash: u64, size: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "smaller than `size`")]
    let index = ((u128::from(hash) * size as u128) >> 64) as usize;
    index
}

/// The request's key; a request without one may go anywhere.
#[inline]
pub(crate) fn key(context: &mut PickContext<'_>) -> u64 {
    context.key().unwrap_or_else(|| context.rng().next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh64_agrees_with_published_digests_of_every_length_class() {
        let cases: [(&str, u64); 4] = [
            ("", 0xEF46_DB37_51D8_E999),
            ("a", 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0x44BC_2CF5_AD77_0999),
            (
                "Nobody inspects the spammish repetition",
                0xFBCE_A83C_8A37_8BF1,
            ),
        ];
        for (text, digest) in cases {
            assert_eq!(xxh64(text.as_bytes(), 0), digest, "{text}");
        }
        assert_eq!(xxh64(b"xxhash", 20_141_025), 0xB559_B98D_844E_0635);
        // By an independent program: one and two whole words, and all kinds of remainder.
        assert_eq!(xxh64(b"orders-1", 1), 0xB3B0_C8E1_F1D4_DD2D);
        assert_eq!(xxh64(b"the quick brown fox, 23", 0), 0x8AF8_FC42_ABE8_2499);
    }

    #[test]
    fn mix_is_one_to_one_and_spreads_small_numbers() {
        let mut high: Vec<u64> = (0..1024).map(|key| mix(key) >> 54).collect();
        high.sort_unstable();
        high.dedup();
        // 1,024 balls in 1,024 bins fill 647 on average, with a standard deviation of 10.
        assert!((590..705).contains(&high.len()), "{}", high.len());
    }
}
