//! What an instance says of itself beyond the fields that plimsoll knows.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Error, Result};

/// Key–value pairs of the user's own, in the order of their keys.
///
/// The limits are the tightest among the registries (Consul's service meta: 64 pairs, keys of 128
/// bytes from `A-Z a-z 0-9 - _`, values of 512 bytes), less 16 pairs that a backend may need for
/// plimsoll's own fields, so that what one backend takes, every backend takes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// The most pairs.
    pub const MAX_PAIRS: usize = 48;
    /// The longest key, in bytes.
    pub const MAX_KEY_BYTES: usize = 128;
    /// The longest value, in bytes.
    pub const MAX_VALUE_BYTES: usize = 512;

    /// No pairs.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// These pairs; of several with one key the last stands.
    ///
    /// By name and not by `collect`, as [`FromIterator`] could not say that a pair is refused.
    ///
    /// ```
    /// use plimsoll_discovery_api::Metadata;
    ///
    /// let metadata = Metadata::try_from_iter([("commit", "3f2a9c1"), ("team", "orders")])?;
    /// assert_eq!(metadata.len(), 2);
    /// # Ok::<(), plimsoll_discovery_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Self::insert), for the first pair that is refused.
    pub fn try_from_iter<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let mut metadata = Self::new();
        for (key, value) in pairs {
            metadata.insert(key, value)?;
        }
        Ok(metadata)
    }

    /// Sets `key` to `value`, replacing what it had.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a limit is exceeded, the key is
    /// empty or holds anything but ASCII letters, digits, `-` and `_`, or the value holds a
    /// control character.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        let key_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if key.is_empty() || key.len() > Self::MAX_KEY_BYTES || !key.bytes().all(key_byte) {
            let why = "is not 1 to 128 of A-Z a-z 0-9 - _";
            return Err(Error::invalid("metadata key", key, why));
        }
        if value.len() > Self::MAX_VALUE_BYTES || value.chars().any(char::is_control) {
            let why = "is longer than 512 bytes or holds a control character";
            return Err(Error::invalid("metadata value", value, why).with_context("key", key));
        }
        if self.0.len() == Self::MAX_PAIRS && !self.0.contains_key(&key) {
            return Err(Error::invalid("metadata", key, "has more than 48 pairs"));
        }
        self.0.insert(key, value);
        Ok(())
    }

    /// Takes the pair of `key` out, and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_name_what_is_at_fault() {
        let mut metadata = Metadata::new();
        for index in 0..Metadata::MAX_PAIRS {
            metadata.insert(format!("k{index}"), "v").unwrap();
        }
        metadata.insert("k0", "replaced").unwrap();
        assert_eq!(metadata.get("k0"), Some("replaced"));
        assert!(metadata.insert("one-more", "v").is_err());

        let mut metadata = Metadata::new();
        for (key, value) in [("", "v"), ("a b", "v"), ("ü", "v"), ("k", "a\nb")] {
            assert!(metadata.insert(key, value).is_err(), "{key:?}");
        }
        assert!(metadata.insert("k".repeat(129), "v").is_err());
        let error = metadata.insert("big", "v".repeat(513)).unwrap_err();
        assert!(error.to_string().contains("key: big"), "{error}");
        assert!(metadata.is_empty());
    }

    #[test]
    fn pairs_are_taken_together_or_the_first_that_is_refused_is_named() {
        let pairs = [("b", "1"), ("a", "2"), ("b", "3")];
        let metadata = Metadata::try_from_iter(pairs).unwrap();
        let taken: Vec<_> = metadata.iter().collect();
        assert_eq!(taken, [("a", "2"), ("b", "3")]);
        let again = Metadata::try_from_iter(taken).unwrap();
        assert_eq!(again, metadata);

        let error = Metadata::try_from_iter([("good", "v"), ("a b", "v"), ("", "v")]).unwrap_err();
        assert!(error.to_string().contains("a b"), "{error}");
        let many = (0..=Metadata::MAX_PAIRS).map(|index| (format!("k{index}"), "v"));
        let error = Metadata::try_from_iter(many).unwrap_err();
        assert!(error.to_string().contains("k48"), "{error}");
    }
}
