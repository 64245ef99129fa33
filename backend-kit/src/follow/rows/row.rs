//! What a registry of keys and values holds of an instance.

use std::borrow::Cow;

use plimsoll_discovery_api::{Incarnation, ServiceName};

use crate::{Entry, Skipped};

/// A key and its value, as the registry has it: of an identity, or of a load.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row<'a> {
    /// Below its service: what [`id_of`](crate::id_of) reads.
    pub key: Cow<'a, str>,
    /// The value.
    pub bytes: &'a [u8],
    /// Where in the registry's history the key was created.
    pub created: u64,
    /// Where in it the value was written last. Of a load that can be told from those of former lives
    /// by its creation alone: its creation.
    pub modified: u64,
    /// The lease or the session that the key ends with; none, if it ends with nobody.
    pub owner: Option<i64>,
}

impl<'a> Row<'a> {
    /// A row of which everything is known.
    pub fn new(
        key: impl Into<Cow<'a, str>>,
        bytes: &'a [u8],
        (created, modified): (u64, u64),
        owner: Option<i64>,
    ) -> Self {
        Self {
            key: key.into(),
            bytes,
            created,
            modified,
            owner,
        }
    }
}

/// What the value of an identity says.
#[derive(Debug)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart as soon as it is returned"
)]
pub enum Reading {
    /// Who is there.
    Present(Entry),
    /// Its owner has left, and the key is about to go.
    Departed,
}

/// How a registry's values are understood: those of this library and those of other programs.
pub type Read = fn(&ServiceName, &Row<'_>) -> Result<Reading, Skipped>;

/// The load that a value holds; anything but a decimal is none.
#[must_use]
pub fn read_load(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// What was last seen of an identity, to tell a change from a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) owner: Option<i64>,
    pub(super) incarnation: Incarnation,
    /// Whether it could be understood.
    pub(super) sound: bool,
}

/// A load, and what tells whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) modified: u64,
    pub(super) owner: Option<i64>,
    pub(super) value: u64,
}

impl Load {
    /// Whether it is of the life that `identity` is of: an owner writes both in one transaction, and
    /// the load again and again under the same lease or session.
    pub(super) fn is_of(&self, identity: &Seen) -> bool {
        self.owner == identity.owner && self.modified >= identity.created
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_decimal_and_anything_else_is_none() {
        assert_eq!(read_load(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"x", b"\xff", b"18446744073709551616"] {
            assert_eq!(read_load(bad), None);
        }
    }
}
