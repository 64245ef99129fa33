//! What other programs say of an instance, understood as far as it goes.

use std::fmt;

use plimsoll_discovery_api::{
    Instance, InstanceBuilder, InstanceId, Metadata, Result, ServiceName, Status, Version, Weight,
    Zone,
};

use serde_json::Value;

use crate::LeftOut;

/// What weight 1, the default of other ecosystems, is here.
const UNIT: u32 = Weight::DEFAULT.get();

/// How ecosystems write an attribute among their metadata, what is read first standing first.
///
/// Spring Cloud LoadBalancer reads `zone` and `weight` (its reference, *Zone-Based* and *Weighted
/// Load-Balancing*), Eureka's `AmazonInfo` has `availability-zone`, and the labels are those of
/// Kubernetes (*Well-Known Labels, Annotations and Taints*).
const ZONE: [&str; 5] = [
    "zone",
    "availability-zone",
    "availability_zone",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
const WEIGHT: &str = "weight";
const VERSION: &str = "version";
/// Spring Cloud Consul reads it from the metadata, in whatever case.
const SECURE: &str = "secure";
/// Spring Cloud Zookeeper takes any but an empty one and `UP`, in whatever case, for out of service (its reference,
/// *Instance Status*).
const STATUS: &str = "instance_status";
const STATUS_UP: &str = "UP";

/// An instance that another program has registered, as it is put together from what that program
/// says: by the fields of its registry, and by pairs of metadata, of which the well-known ones are
/// understood and all are kept as text.
///
/// What a field says stands before what a pair says. What cannot be understood stays text, and what
/// is beyond the limits of [`Metadata`] is left out, counted, and no reason to do without a good
/// server.
#[derive(Debug)]
pub struct Foreign {
    builder: InstanceBuilder,
    metadata: Metadata,
    left_out: LeftOut,
    /// By its place among the spellings.
    zone: Option<(usize, Zone)>,
    weight: Option<u32>,
    said_weight: Option<u32>,
    version: Option<Version>,
    secure: bool,
    out_of_service: bool,
}

impl Foreign {
    /// Starts one. The id is shortened as [`foreign_id`] does.
    #[must_use]
    pub fn new(service: &ServiceName, id: &str, host: &str, port: u16) -> Self {
        Self {
            builder: Instance::builder(service, host, port).with_id(foreign_id(id)),
            metadata: Metadata::new(),
            left_out: LeftOut::default(),
            zone: None,
            weight: None,
            said_weight: None,
            version: None,
            secure: false,
            out_of_service: false,
        }
    }

    /// A field says so: it expects TLS.
    pub fn is_secure(&mut self) {
        self.secure = true;
    }

    /// A field says so: it takes nothing.
    pub fn is_out_of_service(&mut self) {
        self.out_of_service = true;
    }

    /// A field says its share of the traffic, where 1 is the default of whoever says nothing.
    pub fn has_weight(&mut self, weight: u32) {
        self.weight = Some(scaled(f64::from(weight)));
    }

    /// A field says where it runs.
    pub fn has_zone(&mut self, zone: &str) {
        self.note_zone(0, zone);
    }

    /// A pair of its metadata. One that was said before stands.
    pub fn says(&mut self, key: &str, value: &str) {
        if self.metadata.get(key).is_some() {
            return;
        }
        match key {
            WEIGHT => self.said_weight = self.said_weight.or_else(|| read_weight(value)),
            VERSION => self.version = self.version.take().or_else(|| read_version(value)),
            SECURE => self.secure |= value.trim().eq_ignore_ascii_case("true"),
            STATUS => {
                let status = value.trim();
                let is_up = status.is_empty() || status.eq_ignore_ascii_case(STATUS_UP);
                self.out_of_service |= !is_up;
            }
            _ => {
                if let Some(place) = ZONE.iter().position(|spelling| *spelling == key) {
                    self.note_zone(place + 1, value);
                }
            }
        }
        if self.metadata.insert(key, value).is_err() {
            self.left_out.note(key);
        }
    }

    /// All pairs of a JSON object: texts as they are, numbers and truth values as they are written.
    /// What has another value, or is no object at all, is left out.
    pub fn says_in_json(&mut self, object: &str) {
        match serde_json::from_str(object) {
            Ok(Value::Object(pairs)) => {
                for (key, value) in pairs {
                    match value {
                        Value::String(text) => self.says(&key, &text),
                        Value::Number(_) | Value::Bool(_) => self.says(&key, &value.to_string()),
                        _ => self.left_out.note(&key),
                    }
                }
            }
            Ok(Value::Null) => {}
            _ => self.left_out.note("metadata"),
        }
    }

    fn note_zone(&mut self, place: usize, zone: &str) {
        if let Ok(zone) = Zone::new(zone)
            && self.zone.as_ref().is_none_or(|(other, _)| *other > place)
        {
            self.zone = Some((place, zone));
        }
    }

    /// The instance, and what was left out of its metadata.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) if nobody could
    /// connect to it: its host or its port is none.
    pub fn build(self) -> Result<(Instance, LeftOut)> {
        let status = if self.out_of_service {
            Status::OutOfService
        } else {
            Status::Up
        };
        let mut builder = self
            .builder
            .with_secure(self.secure)
            .with_status(status)
            .with_weight(self.weight.or(self.said_weight).unwrap_or(UNIT));
        if let Some((_, zone)) = self.zone {
            builder = builder.with_zone(zone);
        }
        if let Some(version) = self.version {
            builder = builder.with_version(version.to_string());
        }
        let instance = builder.build()?.with_metadata(self.metadata);
        Ok((instance, self.left_out))
    }
}

/// A weight above 0; Spring Cloud LoadBalancer takes any other for its default.
fn read_weight(text: &str) -> Option<u32> {
    let weight: f64 = text.trim().parse().ok()?;
    (weight.is_finite() && weight > 0.0).then(|| scaled(weight))
}

/// In our unit, within our bounds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "held within the bounds before"
)]
fn scaled(weight: f64) -> u32 {
    let most = f64::from(Weight::MAX.get());
    (weight * f64::from(UNIT)).round().clamp(0.0, most) as u32
}

fn read_version(text: &str) -> Option<Version> {
    let text = text.trim();
    text.strip_prefix(['v', 'V']).unwrap_or(text).parse().ok()
}

/// The id of an instance of another program, whose name `text` is: as it is, or, where it is longer
/// than an id may be or holds what none may hold, its beginning and a digest of the whole, so that
/// different names give different ids, the same to everybody.
#[must_use]
pub fn foreign_id(text: &str) -> String {
    const KEPT_BYTES: usize = 96;
    let fits = !text.is_empty() && text.len() <= InstanceId::MAX_BYTES;
    if fits && text.trim() == text && !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > KEPT_BYTES {
            break;
        }
        kept.push(c);
    }
    format!("{}~{:016x}", kept.trim(), digest(text))
}

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>), which is the same in every release.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.keys().join(", "))?;
        match self.count() - self.keys().len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> (Instance, LeftOut) {
        let mut foreign = Foreign::new(&"orders".parse().unwrap(), "a", "h", 80);
        pairs
            .iter()
            .for_each(|(key, value)| foreign.says(key, value));
        foreign.build().unwrap()
    }

    #[test]
    fn well_known_pairs_are_understood_and_kept_as_text() {
        let pairs = [
            ("zone", "eu-1a"),
            ("weight", "3"),
            ("version", "v1.2"),
            ("secure", "TRUE"),
            ("instance_status", "OUT_OF_SERVICE"),
        ];
        let (instance, left_out) = said(&pairs);
        assert_eq!(instance.zone().map(Zone::as_str), Some("eu-1a"));
        assert_eq!(instance.weight().get(), 300);
        assert_eq!(instance.version(), Some(&Version::new(1, 2, 0)));
        assert!(instance.is_secure());
        assert_eq!(instance.status(), Status::OutOfService);
        for (key, value) in pairs {
            assert_eq!(instance.metadata().get(key), Some(value));
        }
        assert_eq!(left_out.count(), 0);
    }

    #[test]
    fn what_cannot_be_understood_stays_text_and_is_no_error() {
        for (key, value) in [
            ("weight", "heavy"),
            ("weight", "-1"),
            ("weight", "0"),
            ("weight", "NaN"),
            ("version", "newest"),
            ("secure", "perhaps"),
            ("instance_status", "UP"),
            ("instance_status", "Up"),
            ("zone", ""),
        ] {
            let (instance, _) = said(&[(key, value)]);
            let plain = Instance::builder("orders", "h", 80).with_id("a");
            let plain = plain.with_metadata(key, value).build().unwrap();
            assert_eq!(instance, plain, "{key}={value}");
        }
        assert_eq!(said(&[("weight", "0.5")]).0.weight().get(), 50);
        assert_eq!(said(&[("weight", "1e300")]).0.weight(), Weight::MAX);
    }

    #[test]
    fn a_field_stands_before_a_pair_and_a_first_pair_before_a_second() {
        let mut foreign = Foreign::new(&"orders".parse().unwrap(), "a", "h", 80);
        foreign.has_weight(7);
        foreign.says("topology.kubernetes.io/zone", "label");
        foreign.says("zone", "pair");
        foreign.says("zone", "later");
        foreign.says("weight", "9");
        let instance = foreign.build().unwrap().0;
        assert_eq!(instance.weight().get(), 700);
        assert_eq!(instance.zone().map(Zone::as_str), Some("pair"));
        assert_eq!(instance.metadata().get("zone"), Some("pair"));
        let mut foreign = Foreign::new(&"orders".parse().unwrap(), "a", "h", 80);
        foreign.has_zone("field");
        foreign.says("zone", "pair");
        let instance = foreign.build().unwrap().0;
        assert_eq!(instance.zone().map(Zone::as_str), Some("field"));
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out_and_counted_and_the_rest_is_there() {
        let long = "v".repeat(Metadata::MAX_VALUE_BYTES + 1);
        let mut pairs = vec![("a.dotted", "x"), ("long", &long), ("lines", "a\nb")];
        pairs.push(("topology.kubernetes.io/zone", "z"));
        let many: Vec<_> = (0..60).map(|number| format!("k{number:02}")).collect();
        pairs.extend(many.iter().map(|key| (key.as_str(), "v")));
        let (instance, left_out) = said(&pairs);
        assert_eq!(instance.metadata().len(), Metadata::MAX_PAIRS);
        assert_eq!(left_out.count(), 4 + 60 - Metadata::MAX_PAIRS);
        let shown = left_out.to_string();
        assert!(
            shown.starts_with("a.dotted, long, lines, ") && shown.ends_with(" more"),
            "{shown}"
        );
        assert_eq!(
            instance.zone().map(Zone::as_str),
            Some("z"),
            "understood all the same"
        );
    }

    #[test]
    fn ids_beyond_the_limits_are_shortened_and_differ() {
        for good in ["a", "10.0.0.1:80", "n1/web1"] {
            assert_eq!(foreign_id(good), good);
        }
        let long = |end: &str| format!("{}{end}", "é".repeat(100));
        let odd = ["", " ", "a ", "a\nb", &long("1"), &long("2")];
        let ids: std::collections::BTreeSet<_> = odd.iter().map(|id| foreign_id(id)).collect();
        assert_eq!(ids.len(), odd.len());
        for id in ids {
            assert!(InstanceId::new(&id).is_ok(), "{id:?}");
        }
    }
}
