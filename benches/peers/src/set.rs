//! What is picked from, and by which keys.

use std::net::{Ipv4Addr, SocketAddr};

/// A set of endpoints numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    pub size: usize,
    /// Whether weights go 1, 2, … 10, 1, 2, … rather than all being 1.
    pub weighted: bool,
}

impl Set {
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        0..self.size as u64
    }

    pub fn weight(self, number: u64) -> u32 {
        if self.weighted {
            u32::try_from(number % 10).unwrap() + 1
        } else {
            1
        }
    }

    pub fn weights(self) -> Vec<u32> {
        self.numbers().map(|number| self.weight(number)).collect()
    }
}

/// The address of an endpoint, from which [`number_at`] reads its number again.
pub fn address(number: u64) -> SocketAddr {
    let number = u32::try_from(number).unwrap();
    SocketAddr::from((Ipv4Addr::from_bits(0x0A00_0000 | number), 80))
}

#[inline]
pub fn number_at(address: &SocketAddr) -> u64 {
    match address {
        SocketAddr::V4(address) => u64::from(address.ip().to_bits() & 0x00FF_FFFF),
        SocketAddr::V6(_) => u64::MAX,
    }
}

/// As long as a UUID.
pub type Key = [u8; 16];

/// So many that no branch predictor learns them, so few (64 KiB) that reading them is cheap. A power
/// of two.
pub const KEYS: usize = 4096;

pub fn keys() -> Box<[Key]> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..KEYS).map(|_| rng.u128(..).to_le_bytes()).collect()
}

/// A fast hash of a key, for subjects that take a hash rather than bytes and bring none of their
/// own.
#[inline]
pub fn hash(key: &Key) -> u64 {
    let word = u128::from_le_bytes(*key);
    let fold = |word: u128| word as u64 ^ (word >> 64) as u64;
    let (low, high) = (word as u64, (word >> 64) as u64);
    let product =
        u128::from(low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xD6E8_FEB8_6659_FD93);
    fold(u128::from(fold(product)) * 0xA076_1D64_78BD_642F)
}
