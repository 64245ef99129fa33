//! The identity node: JSON as Curator's x-discovery writes it, our record as its payload.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use plimsoll_backend_kit::{
    Decoded, Entry, Foreign, KeyForm, Record, RecordMark, Skipped, decode, id_of,
};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, ServiceName, Status};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `ServiceInstance` of Curator's x-discovery, by the names of its JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    name: &'a str,
    id: &'a str,
    address: String,
    port: Option<u16>,
    ssl_port: Option<u16>,
    payload: &'a RawValue,
    #[serde(rename = "registrationTimeUTC")]
    registered_ms: Option<u64>,
    service_type: &'static str,
    uri_spec: (),
    /// Added by Curator 2.9; who does not know of it is enabled.
    enabled: bool,
}

/// The same as anybody may have written it: nothing but the address and the ports need be of any
/// one shape.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, default)]
    address: Option<Cow<'a, str>>,
    #[serde(default)]
    port: Option<i64>,
    #[serde(default)]
    ssl_port: Option<i64>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "registrationTimeUTC")]
    registered_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    enabled: Option<&'a RawValue>,
}

/// `ZookeeperInstance` of Spring Cloud Zookeeper, the payload of its nodes.
#[derive(Deserialize)]
struct Spring<'a> {
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl Wire<'_> {
    /// Our record, or nothing.
    fn record(&self) -> Option<(&str, RecordMark<'_>)> {
        let text = self.payload?.get();
        Some((text, RecordMark::of(text)?))
    }
}

pub(crate) fn write(record: &Record) -> Result<Vec<u8>> {
    let instance = &record.instance;
    let unwritten = |e| {
        Error::new(
            ErrorKind::Unexpected,
            "the record could not be written as JSON",
        )
        .with_source(e)
    };
    let payload = plimsoll_backend_kit::encode(record)?;
    let since_epoch = record
        .registered_at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let secure = instance.is_secure();
    let wire = Written {
        name: instance.service().as_str(),
        id: instance.id().as_str(),
        address: instance.host().to_string(),
        port: (!secure).then_some(instance.port()),
        ssl_port: secure.then_some(instance.port()),
        payload: serde_json::from_slice(&payload).map_err(unwritten)?,
        registered_ms: u64::try_from(since_epoch.as_millis()).ok(),
        service_type: "DYNAMIC",
        uri_spec: (),
        enabled: instance.status() == Status::Up,
    };
    serde_json::to_vec(&wire).map_err(unwritten)
}

/// The life that wrote `bytes`; what was not written here has the life of its node.
pub(crate) fn incarnation(bytes: &[u8], czxid: u64) -> Incarnation {
    let written = serde_json::from_slice::<Wire<'_>>(bytes)
        .ok()
        .and_then(|wire| wire.record()?.1.incarnation());
    written.unwrap_or_else(|| foreign(czxid))
}

/// Whether no session keeps alive what was written here in `life`, at the node that `czxid` created: it
/// is a copy or a backup. Containers name an owner that is none.
pub(crate) fn is_unkept(life: Incarnation, czxid: u64, owner: Option<i64>) -> bool {
    owner.is_none() && life != foreign(czxid)
}

fn foreign(czxid: u64) -> Incarnation {
    Incarnation::from_bits(u128::from(czxid))
}

/// Understands the node `key` of `service`.
pub(crate) fn read(
    service: &ServiceName,
    key: &str,
    bytes: &[u8],
    czxid: u64,
) -> Result<Entry, Skipped> {
    let id = id_of(key);
    let skipped = |cause| Skipped::new(&*id, cause);
    let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(|e| {
        let cause = Error::new(ErrorKind::Corrupt, "not a service instance in JSON");
        skipped(
            cause
                .with_context("bytes", bytes.len().to_string())
                .with_source(e),
        )
    })?;
    let Some((record, _)) = wire.record() else {
        return read_foreign(service, &id, &wire, czxid).map_err(skipped);
    };
    let Decoded {
        instance,
        incarnation,
        registered_at,
        left_out,
        ..
    } = decode(service, record.as_bytes()).map_err(skipped)?;
    // What this library writes is escaped.
    if instance.id().as_str() != id || !KeyForm::of(key).is_ours() {
        let cause = Error::new(ErrorKind::Corrupt, "the record is of another instance");
        return Err(skipped(cause.with_context("id", instance.id().as_str())));
    }
    let mut entry = Entry::new(instance, incarnation);
    entry.registered_at = registered_at;
    entry.left_out = left_out;
    Ok(entry)
}

/// A node of Curator, or of Spring Cloud Zookeeper, which keeps its metadata in the payload. What
/// of that is beyond the limits here is left out: it is no reason to do without a good server.
fn read_foreign(service: &ServiceName, id: &str, wire: &Wire<'_>, czxid: u64) -> Result<Entry> {
    let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, why);
    let address = wire
        .address
        .as_deref()
        .ok_or_else(|| corrupt("no address"))?;
    let usable = |port: Option<i64>| u16::try_from(port?).ok().filter(|port| *port != 0);
    let (plain, secure) = (usable(wire.port), usable(wire.ssl_port));
    let port = plain.or(secure).ok_or_else(|| corrupt("no port"))?;
    let mut instance = Foreign::new(service, id, address, port);
    if plain.is_none() {
        instance.is_secure();
    }
    if wire.enabled.is_some_and(|enabled| enabled.get() == "false") {
        instance.is_out_of_service();
    }
    let spring = wire
        .payload
        .and_then(|payload| serde_json::from_str::<Spring<'_>>(payload.get()).ok());
    if let Some(metadata) = spring.and_then(|spring| spring.metadata) {
        instance.says_in_json(metadata.get());
    }
    let (instance, left_out) = instance
        .build()
        .map_err(|cause| corrupt("the node holds a value that cannot be").with_source(cause))?;
    let mut entry = Entry::new(instance, foreign(czxid));
    entry.left_out = left_out;
    entry.registered_at = wire
        .registered_ms
        .and_then(|ms| ms.get().parse().ok())
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use plimsoll_discovery_api::{Instance, Metadata, Zone};
    use serde_json::Value;

    use super::*;

    fn service() -> ServiceName {
        "orders".parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_has_the_shape_of_curator() {
        let instance = Instance::builder("orders", "10.0.0.7", 8443)
            .with_id("a/b")
            .with_secure(true)
            .with_capacity(u64::MAX)
            .with_status(Status::Draining)
            .build()
            .unwrap();
        let life = Incarnation::random();
        let record = Record::new(Arc::new(instance), life, SystemTime::now(), 3);
        let bytes = write(&record).unwrap();
        let entry = read(&service(), "a%2Fb", &bytes, 9).unwrap();
        assert_eq!(entry.instance, *record.instance);
        assert_eq!((entry.incarnation, incarnation(&bytes, 9)), (life, life));
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["name"], "orders");
        assert_eq!(json["id"], "a/b");
        assert_eq!(json["address"], "10.0.0.7");
        assert_eq!(
            (&json["port"], &json["sslPort"]),
            (&Value::Null, &Value::from(8443))
        );
        assert_eq!(
            (&json["serviceType"], &json["enabled"]),
            (&Value::from("DYNAMIC"), &Value::from(false))
        );
        assert!(json["registrationTimeUTC"].is_u64() && json["uriSpec"].is_null());
        assert_eq!(read(&service(), "c", &bytes, 9).unwrap_err().key, "c");
    }

    #[test]
    fn nodes_of_curator_and_of_spring_cloud_are_instances() {
        let curator = br#"{"name":"orders","id":"u1","address":"h.example.","port":80,"sslPort":null,
            "payload":"anything","registrationTimeUTC":1700000000123,"serviceType":"DYNAMIC","uriSpec":null}"#;
        let entry = read(&service(), "u1", curator, 77).unwrap();
        assert_eq!(entry.instance.authority(), "h.example.:80");
        assert_eq!(entry.incarnation, Incarnation::from_bits(77));
        assert!(entry.registered_at.is_some());
        let spring = br#"{"name":"orders","id":"u2","address":"h","port":null,"sslPort":443,
            "payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
            "id":"app","name":"orders","metadata":{"zone":"a"}},"registrationTimeUTC":1,
            "serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true}]},"enabled":true}"#;
        let entry = read(&service(), "u2", spring, 78).unwrap();
        assert!(entry.instance.is_secure() && entry.instance.port() == 443);
        assert_eq!(entry.instance.metadata().get("zone"), Some("a"));
        assert_eq!(entry.instance.zone().map(Zone::as_str), Some("a"));
    }

    #[test]
    fn what_spring_says_of_an_instance_in_its_metadata_is_understood() {
        let node = |metadata: &str| {
            let text =
                format!(r#"{{"address":"h","port":80,"payload":{{"metadata":{metadata}}}}}"#);
            read(&service(), "u1", text.as_bytes(), 1).unwrap().instance
        };
        for (status, is_up) in [
            ("UP", true),
            ("up", true),
            ("", true),
            ("OUT_OF_SERVICE", false),
            ("DOWN", false),
        ] {
            let instance = node(&format!(r#"{{"instance_status":"{status}"}}"#));
            assert_eq!(instance.status() == Status::Up, is_up, "{status:?}");
        }
        let instance = node(r#"{"zone":"a","weight":"3","version":"1.2","secure":"true"}"#);
        assert_eq!(instance.zone().map(Zone::as_str), Some("a"));
        assert_eq!((instance.weight().get(), instance.is_secure()), (300, true));
        assert_eq!(
            instance.version().map(ToString::to_string).as_deref(),
            Some("1.2.0")
        );
        assert_eq!(node(r#"{"weight":{"x":1}}"#).weight().get(), 100);
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out_of_an_instance_of_others_and_no_more() {
        let mut said: serde_json::Map<_, _> = (0..60)
            .map(|index| (format!("k{index:02}"), Value::from("v")))
            .collect();
        said.insert("management.context-path".into(), "/manage".into());
        said.insert("a-long".into(), "x".repeat(513).into());
        said.insert("a-number".into(), 7.into());
        said.insert("a-zone".into(), "b".into());
        let node = serde_json::json!({"address": "h", "port": 80, "payload": {"metadata": said}});
        let bytes = serde_json::to_vec(&node).unwrap();
        let entry = read(&service(), "u1", &bytes, 1).unwrap();
        let metadata = entry.instance.metadata();
        assert_eq!(metadata.len(), Metadata::MAX_PAIRS);
        assert_eq!(
            (metadata.get("a-zone"), metadata.get("k45")),
            (Some("b"), Some("v"))
        );
        for left_out in ["management.context-path", "a-long", "k46"] {
            assert_eq!(metadata.get(left_out), None, "{left_out}");
        }
        assert_eq!(metadata.get("a-number"), Some("7"));
        assert_eq!(entry.left_out.count(), 64 - Metadata::MAX_PAIRS);
    }

    #[test]
    fn an_id_that_another_program_did_not_escape_is_read_and_one_of_ours_is_not() {
        let key = "orders:8080";
        let node = br#"{"name":"orders","id":"orders:8080","address":"h","port":80}"#;
        assert_eq!(
            read(&service(), key, node, 1)
                .unwrap()
                .instance
                .id()
                .as_str(),
            key
        );
        let instance = Instance::builder("orders", "h", 80).with_id(key).build();
        let life = Incarnation::random();
        let record = Record::new(Arc::new(instance.unwrap()), life, SystemTime::now(), 0);
        let ours = write(&record).unwrap();
        let skipped = read(&service(), key, &ours, 1).unwrap_err();
        assert_eq!(skipped.cause.kind(), ErrorKind::Corrupt);
        assert!(read(&service(), "orders%3A8080", &ours, 1).is_ok());
    }

    #[test]
    fn what_is_ours_and_hangs_on_no_session_is_kept_by_nobody() {
        let (ours, others) = (Incarnation::random(), foreign(9));
        for (owner, unkept) in [(None, true), (Some(1), false), (Some(-1), false)] {
            assert_eq!(is_unkept(ours, 9, owner), unkept, "{owner:?}");
            assert!(
                !is_unkept(others, 9, owner),
                "a STATIC or PERMANENT one of Curator"
            );
        }
    }

    #[test]
    fn garbage_is_skipped_and_never_a_panic() {
        for bad in [
            "",
            "null",
            "[]",
            "7",
            "{}",
            "{\"address\":\"h\"}",
            "{\"address\":\"h\",\"port\":0}",
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
