//! The keys that one id may stand under.

use crate::{escape, foreign_id, unescape};

/// How else the id under a key may be written: what this library escapes, other programs do not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyForm {
    /// In no other way.
    Only,
    /// This is escaped; the other key is the id as it is.
    Escaped(String),
    /// This is the id as it is; the other key is escaped.
    Raw(String),
}

impl KeyForm {
    /// The form of `key`, which stands directly below its service.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte);
        if key.bytes().all(is_plain) && key != "." && key != ".." {
            return Self::Only;
        }
        match unescape(key) {
            // As it is, that id would be the key of another one.
            Ok(id) if unescape(&id).is_ok() => Self::Only,
            Ok(id) => Self::Escaped(id),
            Err(_) => Self::Raw(escape(key)),
        }
    }

    /// Whether this library writes keys so.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        !matches!(self, Self::Raw(_))
    }
}

/// The id under `key`, which stands directly below its service. Programs other than this one may
/// not escape it, and have it as long as they like.
#[must_use]
pub fn id_of(key: &str) -> String {
    unescape(key).map_or_else(|_| foreign_id(key), |id| foreign_id(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_others_wrote_unescaped_are_read_as_they_are() {
        let (escaped, raw) = (
            |id: &str| KeyForm::Escaped(id.into()),
            |key: &str| KeyForm::Raw(key.into()),
        );
        for (key, id, form) in [
            ("a-1_b~", "a-1_b~", KeyForm::Only),
            ("a.b", "a.b", KeyForm::Only),
            ("c%2Fd", "c/d", escaped("c/d")),
            ("c/d", "c/d", raw("c%2Fd")),
            ("c%252Fd", "c%2Fd", KeyForm::Only),
            ("10.0.0.7:8080", "10.0.0.7:8080", raw("10.0.0.7%3A8080")),
            ("%2f", "%2f", raw("%252f")),
            ("%41", "%41", raw("%2541")),
            (".", ".", raw("%2E")),
        ] {
            assert_eq!(id_of(key), id);
            assert_eq!(KeyForm::of(key), form, "{key}");
            assert_eq!(KeyForm::of(key).is_ours(), !matches!(form, KeyForm::Raw(_)));
        }
    }
}
