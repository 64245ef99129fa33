//! Names: validated once, cheap to clone, compared byte by byte.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::try_from_text;
use crate::{Error, Result};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $field:literal, $max:literal) => {
        $(#[$doc])*
        ///
        /// Any UTF-8 text without control characters and without white space at either end.
        /// Text is not normalised: two spellings of one glyph are two names. Backends escape
        /// what their registry cannot hold, so that each name maps to exactly one key.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest allowed, in bytes of UTF-8.
            pub const MAX_BYTES: usize = $max;

            /// Validates `text`.
            ///
            /// # Errors
            /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is empty, longer than
            /// [`MAX_BYTES`](Self::MAX_BYTES), holds a control character, or begins or ends with
            /// white space.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref();
                check($field, text, Self::MAX_BYTES)?;
                Ok(Self(text.into()))
            }

            /// The text as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        try_from_text!($type);

        impl From<&$type> for $type {
            fn from(name: &$type) -> Self {
                name.clone()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The name of a service: what several instances serve.
    ServiceName, "service", 128
}

name! {
    /// The name of one server within its service.
    InstanceId, "id", 128
}

name! {
    /// Where an instance runs: a failure domain such as a data centre, rack or availability zone.
    Zone, "zone", 64
}

impl InstanceId {
    /// A new id that no other process will choose: 128 random bits from the operating system's
    /// entropy, as 32 hexadecimal digits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", crate::rng::entropy()).into())
    }
}

fn check(field: &'static str, text: &str, max_bytes: usize) -> Result<()> {
    let why = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > max_bytes {
        format!("is longer than {max_bytes} bytes")
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else if text.trim() != text {
        "begins or ends with white space".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(field, text, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_naming_field_and_value() {
        let long = "x".repeat(129);
        for bad in ["", " a", "a\n", "a\u{0}b", "a ", long.as_str()] {
            let error = ServiceName::new(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument, "{bad:?}");
            assert!(error.to_string().contains("service "), "{error}");
            assert_eq!(
                error.context().next().map(|(name, _)| name),
                Some("service")
            );
        }
    }

    #[test]
    fn unicode_separators_and_maximal_names_are_kept_as_given() {
        let maximal = "ü".repeat(64);
        for good in [
            "a",
            "foo/bar",
            "..",
            "注文 サービス",
            "a%2Fb",
            maximal.as_str(),
        ] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(InstanceId::random(), InstanceId::random());
    }
}
