//! The version of the software an instance runs.

use std::fmt;
use std::str::FromStr;

use crate::text::try_from_text;
use crate::{Error, Result};

/// A version that can be ordered, so that a client can ask for the newest or notice a newer one.
///
/// The form is that of [Semantic Versioning 2.0.0](https://semver.org); `2` and `2.1` are read as
/// `2.0.0` and `2.1.0`. Ordering is semver's precedence; build metadata breaks ties.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(semver::Version);

impl Version {
    /// The longest text that is read, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// A release without pre-release or build parts.
    #[must_use]
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(semver::Version::new(major, minor, patch))
    }

    /// The first number: a change in it breaks callers.
    #[must_use]
    pub const fn major(&self) -> u64 {
        self.0.major
    }

    /// The second number: a change in it adds.
    #[must_use]
    pub const fn minor(&self) -> u64 {
        self.0.minor
    }

    /// The third number: a change in it mends.
    #[must_use]
    pub const fn patch(&self) -> u64 {
        self.0.patch
    }

    /// Whether it precedes a release, as `1.0.0-rc.1` precedes `1.0.0`.
    #[must_use]
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }
}

impl FromStr for Version {
    type Err = Error;

    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if `text` is not of the form above.
    fn from_str(text: &str) -> Result<Self> {
        if text.len() > Self::MAX_BYTES {
            return Err(Error::invalid("version", text, "is longer than 64 bytes"));
        }
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let padding = match numbers.bytes().filter(|b| *b == b'.').count() {
            0 => ".0.0",
            1 => ".0",
            _ => "",
        };
        semver::Version::parse(&format!("{numbers}{padding}{rest}"))
            .map(Self)
            .map_err(|e| {
                Error::invalid("version", text, "is not a semantic version").with_source(e)
            })
    }
}

try_from_text!(Version);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn missing_numbers_are_zero_and_order_is_by_number() {
        assert_eq!(version("2"), Version::new(2, 0, 0));
        assert_eq!(version("2.1-rc.1").to_string(), "2.1.0-rc.1");
        assert!(version("1.10.0") > version("1.9.9"));
        assert!(version("1.0.0-rc.1") < version("1.0.0") && version("1.0.0-rc.1").is_prerelease());
    }

    #[test]
    fn nonsense_is_refused() {
        let long = "1.".repeat(40);
        for bad in ["", "v1", "1.2.3.4", "1..2", "01.0.0", "-1", long.as_str()] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?} was taken");
        }
    }
}
