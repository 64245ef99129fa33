//! Keys that any registry can hold.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// Everything but the unreserved characters of RFC 3986 section 2.3, the dot excepted: it is
/// escaped where it would make `.` or `..`.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'!')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'+')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Writes `name` as one path segment: percent-encoded UTF-8, never empty for a valid name, never
/// `.` or `..`, without separators. Different names give different segments.
///
/// ```
/// assert_eq!(plimsoll_backend_kit::escape("a/b c"), "a%2Fb%20c");
/// assert_eq!(plimsoll_backend_kit::escape(".."), "%2E%2E");
/// ```
#[must_use]
pub fn escape(name: &str) -> String {
    if name == "." || name == ".." {
        return name.replace('.', "%2E");
    }
    utf8_percent_encode(name, ESCAPED).to_string()
}

/// Reads what [`escape`] wrote.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) if `segment` is not what [`escape`] would write: a registry
/// must not show one name under two keys.
pub fn unescape(segment: &str) -> Result<String> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "key is not an escaped name");
    let name = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|e| corrupt().with_context("key", segment).with_source(e))?
        .into_owned();
    if escape(&name) == segment {
        Ok(name)
    } else {
        Err(corrupt().with_context("key", segment))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_round_trips_through_one_segment(text in "\\PC{1,40}") {
            let segment = escape(&text);
            prop_assert!(segment.is_ascii() && !segment.contains('/') && segment != "..");
            prop_assert_eq!(unescape(&segment).unwrap(), text);
        }
    }

    #[test]
    fn keys_that_escape_would_not_write_are_refused() {
        for bad in ["a b", "%2e", "%41", "%FF", "a/b", "..", "%"] {
            assert_eq!(
                unescape(bad).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{bad:?}"
            );
        }
    }
}
