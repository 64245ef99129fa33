//! One life of a registration.

use std::fmt;
use std::str::FromStr;

use crate::text::try_from_text;
use crate::{Error, Result};

/// One life of a registration: every write is fenced by it.
///
/// A server that loses its lease and registers again is the same instance in a new incarnation,
/// and nothing that was still on its way for the old one may touch the new one. Values are
/// compared for equality only; they have no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(u128);

impl Incarnation {
    /// A new one: 128 random bits, so that no two are ever the same.
    #[must_use]
    pub fn random() -> Self {
        Self(crate::rng::entropy())
    }

    /// One made from what the registry itself counts (a creation revision or transaction id), for
    /// records that were not written by plimsoll.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        self.0
    }
}

impl FromStr for Incarnation {
    type Err = Error;

    /// Reads the 32 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(bits) if digits => Ok(Self(bits)),
            _ => Err(Error::invalid(
                "incarnation",
                text,
                "is not 32 hexadecimal digits",
            )),
        }
    }
}

try_from_text!(Incarnation);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let one = Incarnation::random();
        assert_eq!(one.to_string().parse::<Incarnation>().unwrap(), one);
        assert_eq!(Incarnation::from_bits(7).to_string().len(), 32);
        for bad in ["", "7", "+0000000000000000000000000000001", "zz"] {
            assert!(bad.parse::<Incarnation>().is_err(), "{bad:?}");
        }
    }
}
