//! How much an instance should be given, and how much it can carry.

use std::fmt;
use std::num::NonZeroU64;

use crate::{Error, Result};

/// An instance's share of the traffic relative to its siblings: 0 to 1,000,000, by default 100.
///
/// The default is 100 so that one instance can be given half of the usual share without touching
/// the others. 0 means no new traffic. The ceiling keeps the sum over any list far from overflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// What an instance weighs unless it says otherwise: 100.
    pub const DEFAULT: Self = Self(100);
    /// The largest: 1,000,000.
    pub const MAX: Self = Self(1_000_000);
    /// No new traffic.
    pub const ZERO: Self = Self(0);

    /// Validates `value`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) above [`MAX`](Self::MAX).
    pub fn new(value: u32) -> Result<Self> {
        if value > Self::MAX.0 {
            return Err(Error::invalid("weight", value, "is above 1000000"));
        }
        Ok(Self(value))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u32> for Weight {
    type Error = Error;
    fn try_from(value: u32) -> Result<Self> {
        Self::new(value)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The load at which an instance is full, in the unit of its load (by default connections).
///
/// Balancers that compare loads divide by it, so that a large server at 50 of 100 counts as less
/// loaded than a small one at 10 of 10.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capacity(NonZeroU64);

impl Capacity {
    /// Validates `value`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for 0: an instance that can carry
    /// nothing has [`Weight::ZERO`].
    pub fn new(value: u64) -> Result<Self> {
        NonZeroU64::new(value)
            .map(Self)
            .ok_or_else(|| Error::invalid("capacity", value, "is zero"))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl TryFrom<u64> for Capacity {
    type Error = Error;
    fn try_from(value: u64) -> Result<Self> {
        Self::new(value)
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_is_refused() {
        assert!(Weight::new(1_000_001).is_err());
        assert!(Capacity::new(0).is_err());
        assert_eq!(Weight::new(1_000_000).unwrap(), Weight::MAX);
        assert_eq!(Weight::default().get(), 100);
    }
}
