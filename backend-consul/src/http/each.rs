//! Lists in answers, each element understood by itself: what somebody else has registered may be of
//! any shape, and hides nobody.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use plimsoll_discovery_api::{Error, ErrorKind};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The elements of a list.
#[derive(Debug)]
pub(crate) struct Each<T> {
    pub(crate) good: Vec<T>,
    /// Those that are of another shape.
    pub(crate) bad: Vec<Unread>,
}

/// An element that is of another shape.
#[derive(Debug)]
pub(crate) struct Unread {
    text: Box<str>,
    cause: serde_json::Error,
}

/// Reads a list. Its elements are looked at one by one only if there are bad ones among them, so
/// that good lists are read in one go.
///
/// # Errors
/// If it is no list.
pub(crate) fn each<T: DeserializeOwned>(body: &[u8]) -> Result<Each<T>, serde_json::Error> {
    if let Ok(good) = serde_json::from_slice(body) {
        let bad = Vec::new();
        return Ok(Each { good, bad });
    }
    let text = String::from_utf8_lossy(body);
    let elements: Vec<&RawValue> = serde_json::from_str(&text)?;
    let (mut good, mut bad) = (Vec::with_capacity(elements.len()), Vec::new());
    for element in elements {
        match serde_json::from_str(element.get()) {
            Ok(element) => good.push(element),
            Err(cause) => bad.push(Unread {
                text: element.get().into(),
                cause,
            }),
        }
    }
    Ok(Each { good, bad })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outline<'a> {
    #[serde(borrow, default)]
    node: Option<&'a RawValue>,
    #[serde(borrow, default)]
    service: Option<&'a RawValue>,
}

impl Unread {
    /// Of an entry of a service's health: the name of its service and its key there, as far as they
    /// can be read. One without a name has a key of its own all the same, and always the same.
    pub(crate) fn outline(&self) -> (Option<String>, String) {
        let outline = serde_json::from_str::<Outline<'_>>(&self.text).ok();
        let of = |part: Option<&RawValue>, field| text_in(part?.get(), field);
        let (node, service) = outline.map_or((None, None), |o| (o.node, o.service));
        let key = match (of(node, "Node"), of(service, "ID")) {
            (Some(node), Some(id)) => format!("{node}/{id}"),
            _ => {
                let mut hasher = DefaultHasher::new();
                self.text.hash(&mut hasher);
                format!("unreadable entry {:016x}", hasher.finish())
            }
        };
        (of(service, "Service"), key)
    }

    pub(crate) fn cause(&self) -> Error {
        Error::new(ErrorKind::Corrupt, "not an entry of Consul's catalog")
            .with_context("cause", self.cause.to_string())
            .with_context("bytes", self.text.len().to_string())
    }
}

/// The text in `field` of an object.
fn text_in(object: &str, field: &str) -> Option<String> {
    let object: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(object).ok()?;
    serde_json::from_str(object.get(field)?.get()).ok()
}

/// The keys of an object, whatever it holds under them; without those that are no text.
#[derive(Debug)]
pub(crate) struct Keys(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((Bytes(key), IgnoredAny)) = map.next_entry()? {
                    keys.extend(String::from_utf8(key));
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A text that need not be one.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_owned()))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_owned()))
            }
        }

        deserializer.deserialize_bytes(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Number {
        n: u8,
    }

    #[test]
    fn a_bad_element_costs_itself_and_no_other() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let bads: [&[u8]; 9] = [
            b"null",
            b"7",
            b"{}",
            b"{\"n\":-1}",
            b"{\"n\":5000000000}",
            b"{\"n\":1e999}",
            b"{\"n\":\"\\ud800\"}",
            b"{\"n\":\"\xff\"}",
            deep.as_bytes(),
        ];
        for bad in bads {
            let list = [&b"[{\"n\":1},"[..], bad, b",{\"n\":2}]"].concat();
            let read = each::<Number>(&list).unwrap();
            let shown = String::from_utf8_lossy(&bad[..bad.len().min(20)]);
            assert_eq!(read.good, [Number { n: 1 }, Number { n: 2 }], "{shown}");
            assert_eq!(read.bad.len(), 1, "{shown}");
        }
        for none in [&b""[..], b"{}", b"[1", b"[1]]", b"\xff"] {
            assert!(each::<Number>(none).is_err());
        }
    }

    #[test]
    fn what_can_be_read_of_a_bad_entry_names_it() {
        let outline = |text: &str| {
            let read = each::<Number>(format!("[{text}]").as_bytes()).unwrap();
            read.bad[0].outline()
        };
        let whole =
            r#"{"Node":{"Node":"n1","Meta":[]},"Service":{"ID":"a","Service":"s","Port":"x"}}"#;
        assert_eq!(outline(whole), (Some("s".into()), "n1/a".into()));
        let (service, key) = outline(r#"{"Node":7,"Service":{"Service":"s"}}"#);
        assert_eq!(service.as_deref(), Some("s"));
        assert!(key.starts_with("unreadable entry "), "{key}");
        assert_eq!(outline(r#"{"Node":7}"#), outline(r#"{"Node":7}"#));
        assert_ne!(outline(r#"{"Node":7}"#).1, outline(r#"{"Node":8}"#).1);
    }

    #[test]
    fn a_key_that_is_no_text_costs_itself_and_no_other() {
        let body = b"{\"a\":[1],\"\xff\":{},\"\\ud800\":null,\"b\":\"\\ud800\"}";
        let Keys(keys) = serde_json::from_slice(body).unwrap();
        assert_eq!(keys, ["a", "b"]);
    }
}
