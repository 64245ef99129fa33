//! The values: JSON as etcd's own naming endpoints write it, our record as its metadata.

use std::borrow::Cow;

use plimsoll_backend_kit::{
    Decoded, Entry, Foreign, Reading, Record, RecordMark, Skipped, decode, id_of,
};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `Update` of etcd's package `client/v3/naming/endpoints/internal`, by the names of its JSON.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    op: u8,
    addr: Cow<'a, str>,
    metadata: Option<&'a RawValue>,
}

/// The same as anybody may have written it: nothing but the address need be of any one shape.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(borrow, default)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    addr: Cow<'a, str>,
    /// Not looked into here: a list may have ten thousand of them.
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl Wire<'_> {
    /// Our record, or nothing.
    fn record(&self) -> Option<(&str, RecordMark<'_>)> {
        let text = self.metadata?.get();
        Some((text, RecordMark::of(text)?))
    }

    fn is_deleted(&self) -> bool {
        self.op.is_some_and(|op| op.get() == "1")
    }
}

const ADD: u8 = 0;
/// The endpoint is about to be deleted by its owner, by the number that is read above. What a crash
/// deletes was never marked so.
const DELETE: u8 = 1;

/// Whose record a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) incarnation: Incarnation,
    pub(crate) departed: bool,
    /// Whether it was written as a record of ours is.
    pub(crate) is_record: bool,
}

pub(crate) fn write(record: &Record) -> Result<Vec<u8>> {
    let metadata = plimsoll_backend_kit::encode(record)?;
    to_bytes(&Written {
        op: ADD,
        addr: record.instance.authority().into(),
        metadata: Some(serde_json::from_slice(&metadata).map_err(unwritten)?),
    })
}

/// The same value, marked as departed.
pub(crate) fn departed(bytes: &[u8]) -> Result<Vec<u8>> {
    let Wire { addr, metadata, .. } = serde_json::from_slice(bytes).map_err(unreadable)?;
    to_bytes(&Written {
        op: DELETE,
        addr,
        metadata,
    })
}

fn to_bytes(wire: &Written<'_>) -> Result<Vec<u8>> {
    serde_json::to_vec(wire).map_err(unwritten)
}

fn unwritten(error: serde_json::Error) -> Error {
    Error::new(
        ErrorKind::Unexpected,
        "the record could not be written as JSON",
    )
    .with_source(error)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "not a naming endpoint in JSON").with_source(error)
}

/// Whose record `bytes` is; what was not written here has the life of its key.
pub(crate) fn owner(bytes: &[u8], create_revision: u64) -> Owner {
    let wire = serde_json::from_slice::<Wire<'_>>(bytes).ok();
    let written = wire
        .as_ref()
        .and_then(|wire| wire.record()?.1.incarnation());
    Owner {
        incarnation: written.unwrap_or_else(|| foreign(create_revision)),
        // Others may fill the field with what they like.
        departed: written.is_some() && wire.is_some_and(|wire| wire.is_deleted()),
        is_record: written.is_some(),
    }
}

/// Whether a program other than ours has written the entry of a key that was created then.
pub(crate) fn is_foreign(entry: &Entry, create_revision: u64) -> bool {
    entry.incarnation == foreign(create_revision)
}

fn foreign(create_revision: u64) -> Incarnation {
    Incarnation::from_bits(u128::from(create_revision))
}

/// Understands the value under `key` of `service`.
pub(crate) fn read(
    service: &ServiceName,
    key: &str,
    bytes: &[u8],
    create_revision: u64,
) -> Result<Reading, Skipped> {
    let id = id_of(key);
    let skipped = |cause: Error| Skipped::new(&*id, cause);
    let wire: Wire<'_> = serde_json::from_slice(bytes)
        .map_err(|e| skipped(unreadable(e).with_context("bytes", bytes.len().to_string())))?;
    let Some((record, _)) = wire.record() else {
        let entry = read_foreign(service, &id, &wire, create_revision).map_err(skipped)?;
        return Ok(Reading::Present(entry));
    };
    let Decoded {
        instance,
        incarnation,
        registered_at,
        left_out,
        ..
    } = decode(service, record.as_bytes()).map_err(skipped)?;
    if instance.id().as_str() != id {
        let cause = Error::new(ErrorKind::Corrupt, "the record is of another instance");
        return Err(skipped(cause.with_context("id", instance.id().as_str())));
    }
    if wire.is_deleted() {
        return Ok(Reading::Departed);
    }
    let mut entry = Entry::new(instance, incarnation);
    entry.registered_at = registered_at;
    entry.left_out = left_out;
    Ok(Reading::Present(entry))
}

/// An endpoint of another program: an address, and metadata of any shape.
fn read_foreign(
    service: &ServiceName,
    id: &str,
    wire: &Wire<'_>,
    create_revision: u64,
) -> Result<Entry> {
    let corrupt = |why: &str| {
        Error::new(ErrorKind::Corrupt, why)
            .with_context("addr", wire.addr.chars().take(80).collect::<String>())
    };
    let (host, port) = wire
        .addr
        .rsplit_once(':')
        .ok_or_else(|| corrupt("the address has no port"))?;
    let port = port
        .parse()
        .map_err(|e| corrupt("the address has no port").with_source(e))?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let mut instance = Foreign::new(service, id, bare.unwrap_or(host), port);
    if let Some(metadata) = wire.metadata {
        instance.says_in_json(metadata.get());
    }
    let (instance, left_out) = instance
        .build()
        .map_err(|cause| corrupt("the endpoint holds a value that cannot be").with_source(cause))?;
    let mut entry = Entry::new(instance, foreign(create_revision));
    entry.left_out = left_out;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use plimsoll_discovery_api::{Instance, Status, Zone};
    use serde_json::Value;

    use super::*;

    fn service() -> ServiceName {
        "orders".parse().unwrap()
    }

    fn present(reading: Reading) -> Entry {
        match reading {
            Reading::Present(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    fn record() -> Record {
        let instance = Instance::builder("orders", "2001:db8::7", 8443)
            .with_id("a/b")
            .with_secure(true)
            .with_capacity(u64::MAX)
            .with_status(Status::Draining)
            .with_metadata("k", "v")
            .build()
            .unwrap();
        let life = Incarnation::random();
        Record::new(Arc::new(instance), life, SystemTime::now(), 3)
    }

    #[test]
    fn what_is_written_is_read_and_has_the_shape_of_naming_endpoints() {
        let record = record();
        let bytes = write(&record).unwrap();
        let entry = present(read(&service(), "a%2Fb", &bytes, 9).unwrap());
        assert_eq!(entry.instance, *record.instance);
        assert_eq!(entry.incarnation, record.incarnation);
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["Op"], 0);
        assert_eq!(json["Addr"], "[2001:db8::7]:8443");
        assert_eq!(json["Metadata"]["id"], "a/b");
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(3));
        assert_eq!(read(&service(), "c", &bytes, 9).unwrap_err().key, "c");
    }

    #[test]
    fn a_departed_record_is_still_its_owners_and_no_instance() {
        let record = record();
        let bytes = departed(&write(&record).unwrap()).unwrap();
        assert!(matches!(
            read(&service(), "a%2Fb", &bytes, 9),
            Ok(Reading::Departed)
        ));
        let owner = owner(&bytes, 9);
        assert_eq!(
            (owner.incarnation, owner.departed, owner.is_record),
            (record.incarnation, true, true)
        );
    }

    #[test]
    fn endpoints_of_other_programs_are_instances() {
        for (text, authority) in [
            (
                r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"zone":"a","n":1}}"#,
                "10.0.0.1:80",
            ),
            (r#"{"Op":1,"Addr":"h:80","Metadata":null}"#, "h:80"),
            (r#"{"Addr":"h.example.:80"}"#, "h.example.:80"),
            (r#"{"Addr":"[::1]:80","Metadata":"any"}"#, "[::1]:80"),
        ] {
            let entry = present(read(&service(), "10.0.0.1:80", text.as_bytes(), 77).unwrap());
            assert_eq!(entry.instance.authority(), authority);
            assert_eq!(entry.instance.id().as_str(), "10.0.0.1:80");
            assert_eq!(entry.incarnation, Incarnation::from_bits(77));
            assert_eq!(owner(text.as_bytes(), 77).incarnation, entry.incarnation);
            let owner = owner(text.as_bytes(), 77);
            assert!(!owner.departed && !owner.is_record);
        }
    }

    #[test]
    fn what_an_endpoint_of_others_says_of_itself_is_understood() {
        let text = r#"{"Addr":"h:80","Metadata":{"zone":"eu-1a","weight":2.5,"version":"v2",
            "secure":true,"instance_status":"DOWN"}}"#;
        let entry = present(read(&service(), "h:80", text.as_bytes(), 7).unwrap());
        let instance = &entry.instance;
        assert_eq!(instance.zone().map(Zone::as_str), Some("eu-1a"));
        assert_eq!(instance.weight().get(), 250);
        assert_eq!(
            instance.version().map(ToString::to_string).as_deref(),
            Some("2.0.0")
        );
        assert_eq!(
            (instance.is_secure(), instance.status()),
            (true, Status::OutOfService)
        );
        assert_eq!(
            (instance.metadata().get("weight"), entry.left_out.count()),
            (Some("2.5"), 0)
        );
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out_of_an_endpoint_of_others_and_no_more() {
        let (long, many) = ("v".repeat(600), (0..60).map(|n| format!(r#""k{n}":"v""#)));
        let many = many.collect::<Vec<_>>().join(",");
        for (pair, left_out) in [
            (r#""a.dotted.key":"x""#, 1),
            (&*format!(r#""long":"{long}""#), 1),
            (r#""lines":"a\nb""#, 1),
            (r#""a list":[1],"an object":{}"#, 2),
            (r#""":"no key""#, 1),
            (&many, 12),
        ] {
            let text = format!(r#"{{"Addr":"h:80","Metadata":{{"team":"a",{pair}}}}}"#);
            let entry = present(read(&service(), "h:80", text.as_bytes(), 7).unwrap());
            assert_eq!(
                entry.left_out.count(),
                left_out + usize::from(left_out == 12),
                "{pair}"
            );
            assert_eq!(entry.instance.authority(), "h:80");
        }
        let id = "x".repeat(200);
        let entry = present(read(&service(), &id, br#"{"Addr":"h:80"}"#, 7).unwrap());
        assert_eq!(entry.instance.id().as_str(), id_of(&id));
    }

    #[test]
    fn garbage_is_skipped_and_never_a_panic() {
        for bad in [
            "",
            "null",
            "[]",
            "7",
            "{}",
            "{\"Addr\":\"h\"}",
            "{\"Addr\":\"h:0\"}",
            "{\"Addr\":\"h:x\"}",
            "{\"Addr\":\"a b:1\"}",
            "{\"Addr\":7}",
            "{\"Addr\":\"h:1\",\"Metadata\":{\"schema\":1,\"incarnation\":\"x\"}}",
            "\u{0}",
        ] {
            let skipped = read(&service(), "k", bad.as_bytes(), 1).unwrap_err();
            assert_eq!(
                (&*skipped.key, skipped.cause.kind()),
                ("k", ErrorKind::Corrupt),
                "{bad:?}"
            );
        }
    }
}
