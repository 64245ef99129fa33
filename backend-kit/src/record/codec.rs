//! The record as text: one JSON object with a schema version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, Instance, Metadata, Result, ServiceName, Status,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::{LeftOut, Record};

/// Raised only with additions that old readers may ignore; anything else gets a new root key.
const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    schema: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    host: Cow<'a, str>,
    port: u16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    secure: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    incarnation: Cow<'a, str>,
    #[serde(default)]
    registered_unix_ms: Option<u64>,
}

/// What tells a record of ours from what other programs keep in the same place: JSON objects too.
#[derive(Deserialize)]
pub struct RecordMark<'a> {
    #[serde(rename = "schema")]
    _schema: IgnoredAny,
    #[serde(borrow)]
    incarnation: Cow<'a, str>,
}

impl RecordMark<'_> {
    /// That of the record in `text`; `None`, if that is no record.
    #[must_use]
    pub fn of(text: &str) -> Option<RecordMark<'_>> {
        // A list could be taken for an object without names.
        let text = Some(text).filter(|text| text.starts_with('{'))?;
        serde_json::from_str(text).ok()
    }

    /// The life it was written for, if that can be read.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.parse().ok()
    }
}

impl fmt::Debug for RecordMark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordMark")
            .field(&self.incarnation)
            .finish()
    }
}

/// Writes `record`, its load aside, as JSON.
///
/// # Errors
/// None in practice; [`Unexpected`](ErrorKind::Unexpected) if the JSON writer fails.
pub fn encode(record: &Record) -> Result<Vec<u8>> {
    let instance = &record.instance;
    let since_epoch = record
        .registered_at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wire = Wire {
        schema: SCHEMA,
        id: instance.id().as_str().into(),
        host: instance.host().to_string().into(),
        port: instance.port(),
        secure: instance.is_secure(),
        zone: instance.zone().map(|zone| zone.as_str().into()),
        version: instance.version().map(|version| version.to_string().into()),
        weight: Some(instance.weight().get()),
        capacity: instance.capacity().map(|capacity| capacity.get()),
        status: Some(instance.status().as_str().into()),
        metadata: instance
            .metadata()
            .iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        incarnation: record.incarnation.to_string().into(),
        registered_unix_ms: u64::try_from(since_epoch.as_millis()).ok(),
    };
    serde_json::to_vec(&wire).map_err(|e| {
        Error::new(
            ErrorKind::Unexpected,
            "the record could not be written as JSON",
        )
        .with_source(e)
    })
}

/// A record that was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Decoded {
    /// What the instance says of itself.
    pub instance: Instance,
    /// The life it was written for.
    pub incarnation: Incarnation,
    /// When that life began.
    pub registered_at: Option<SystemTime>,
    /// What it says beyond the limits of [`Metadata`].
    pub left_out: LeftOut,
}

/// Reads what [`encode`] wrote for an instance of `service`, this version or a later one.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) if it is not such a record, or holds a value that is nonsense.
pub fn decode(service: &ServiceName, bytes: &[u8]) -> Result<Decoded> {
    let corrupt = |source: Error| {
        Error::new(
            ErrorKind::Corrupt,
            "the record holds a value that cannot be",
        )
        .with_source(source)
    };
    let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "not a record in JSON")
            .with_context("bytes", bytes.len().to_string())
            .with_source(e)
    })?;
    let incarnation = wire.incarnation.parse().map_err(corrupt)?;
    let status = match wire.status {
        Some(word) => word.parse().map_err(corrupt)?,
        None => Status::Up,
    };
    let mut builder = Instance::builder(service, &wire.host, wire.port)
        .with_id(&wire.id)
        .with_secure(wire.secure)
        .with_status(status);
    if let Some(zone) = wire.zone {
        builder = builder.with_zone(zone);
    }
    if let Some(version) = wire.version {
        builder = builder.with_version(version);
    }
    if let Some(weight) = wire.weight {
        builder = builder.with_weight(weight);
    }
    if let Some(capacity) = wire.capacity {
        builder = builder.with_capacity(capacity);
    }
    let (mut metadata, mut left_out) = (Metadata::new(), LeftOut::default());
    for (key, value) in wire.metadata {
        // A later version may allow more, and another program may write what it likes.
        if metadata.insert(&*key, value).is_err() {
            left_out.note(&key);
        }
    }
    let registered_at = wire
        .registered_unix_ms
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let instance = builder.build().map_err(corrupt)?;
    Ok(Decoded {
        instance: instance.with_metadata(metadata),
        incarnation,
        registered_at,
        left_out,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn record(instance: Instance) -> Record {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Record::new(Arc::new(instance), Incarnation::random(), at, 5)
    }

    #[test]
    fn every_field_survives_the_round_trip() {
        let instance = Instance::builder("注文", "2001:db8::1", 65_535)
            .with_id("id \"quoted\" / ü")
            .with_secure(true)
            .with_zone("z")
            .with_version("1.2.3-rc.1+b")
            .with_weight(0)
            .with_capacity(u64::MAX)
            .with_metadata("k", "v \"ü\" \\")
            .with_status(Status::OutOfService)
            .build()
            .unwrap();
        let record = record(instance);
        let service = ServiceName::new("注文").unwrap();
        let read = decode(&service, &encode(&record).unwrap()).unwrap();
        assert_eq!(read.instance, *record.instance);
        assert_eq!(read.incarnation, record.incarnation);
        assert_eq!(read.registered_at, Some(record.registered_at));
    }

    #[test]
    fn a_record_is_told_from_what_others_write_by_its_schema_and_its_life() {
        let life = |text: &str| RecordMark::of(text).map(|mark| mark.incarnation());
        let ours = r#"{"schema":9,"incarnation":"00000000000000000000000000000007","x":1}"#;
        assert_eq!(life(ours), Some(Some(Incarnation::from_bits(7))));
        assert_eq!(life(r#"{"schema":1,"incarnation":"x"}"#), Some(None));
        for foreign in [
            "",
            "7",
            "null",
            r#"["1","2"]"#,
            r#"{"schema":1}"#,
            r#"{"incarnation":"7"}"#,
        ] {
            assert!(RecordMark::of(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn a_later_schema_with_unknown_fields_is_read() {
        let service = ServiceName::new("s").unwrap();
        let text = br#"{"schema":2,"id":"a","host":"h","port":1,"new":{"x":[1]},
            "incarnation":"00000000000000000000000000000007"}"#;
        let read = decode(&service, text).unwrap();
        assert_eq!(read.instance.authority(), "h:1");
        assert_eq!(read.incarnation, Incarnation::from_bits(7));
    }

    #[test]
    fn metadata_beyond_the_limits_is_left_out_of_a_record_and_counted() {
        let service = ServiceName::new("s").unwrap();
        let text = br#"{"schema":2,"id":"a","host":"h","port":1,"metadata":{"a.b":"x","k":"v",
            "lines":"a\nb"},"incarnation":"00000000000000000000000000000007"}"#;
        let read = decode(&service, text).unwrap();
        assert_eq!(
            (read.instance.metadata().len(), read.left_out.count()),
            (1, 2)
        );
    }

    #[test]
    fn garbage_is_corrupt_and_never_a_panic() {
        let service = ServiceName::new("s").unwrap();
        let good = encode(&record(Instance::builder("s", "h", 1).build().unwrap())).unwrap();
        for end in 0..good.len() {
            assert_eq!(
                decode(&service, &good[..end]).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        for bad in ["", "null", "[]", "7", "{\"schema\":1}", "\u{0}\u{1}"] {
            assert_eq!(
                decode(&service, bad.as_bytes()).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        let text = String::from_utf8(good).unwrap();
        let port_zero = text.replace("\"port\":1,", "\"port\":0,");
        assert_eq!(
            decode(&service, port_zero.as_bytes()).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}
