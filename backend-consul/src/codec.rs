//! An instance as a service of Consul, and back.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plimsoll_backend_kit::{Entry, Foreign, LeftOut, Record};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, Instance, Metadata, Result, ServiceName, Status, Weight,
};

use crate::http::wire::{HealthEntry, Registration, TtlCheck, Weights};
use crate::keys::{Names, check_id, service_name};

/// Raised only with additions that old readers may ignore.
const SCHEMA: &str = "1";
/// What plimsoll says of itself among a service's meta, and what no user's key begins with.
const OWN: &str = "plimsoll-";
/// Consul keeps this prefix for itself.
const CONSULS: &str = "consul-";
/// Put before a user's key that begins as one of the above.
const MOVED: &str = "plimsoll-user-";
/// Consul's limits on a service's meta: 64 pairs, keys and values of so many bytes.
const MAX_PAIRS: usize = 64;
const MAX_KEY_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 512;
/// The tag by which people and other programs find what is ours.
const TAG: &str = "plimsoll";
/// What weight 1, Consul's default, is here.
const UNIT: u32 = Weight::DEFAULT.get();
const MAX_CONSUL_WEIGHT: u32 = 65_535;

/// The body that registers `record`.
///
/// # Errors
/// `InvalidArgument` naming what Consul could not take.
pub(crate) fn write(
    record: &Record,
    names: &Names,
    ttl: Duration,
    after: Duration,
) -> Result<Registration> {
    let instance = &record.instance;
    let passing = (instance.weight().get() / UNIT).clamp(1, MAX_CONSUL_WEIGHT);
    Ok(Registration {
        id: names.service_id.clone(),
        name: service_name(instance.service()),
        address: instance.host().to_string(),
        port: instance.port(),
        tags: vec![TAG.to_owned()],
        meta: meta(record)?,
        weights: Weights {
            passing,
            warning: passing,
        },
        check: TtlCheck {
            check_id: names.check_id(),
            ttl: span(ttl),
            deregister_critical_service_after: span(after),
        },
    })
}

/// A span as Consul reads it.
pub(crate) fn span(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}

fn meta(record: &Record) -> Result<BTreeMap<String, String>> {
    let instance = &record.instance;
    let since_epoch = record
        .registered_at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let own = [
        ("schema", Some(SCHEMA.to_owned())),
        ("id", Some(instance.id().to_string())),
        ("incarnation", Some(record.incarnation.to_string())),
        ("registered-ms", Some(since_epoch.as_millis().to_string())),
        ("status", Some(instance.status().to_string())),
        ("weight", Some(instance.weight().get().to_string())),
        ("secure", instance.is_secure().then(|| "true".to_owned())),
        ("zone", instance.zone().map(ToString::to_string)),
        ("version", instance.version().map(ToString::to_string)),
        ("capacity", instance.capacity().map(|c| c.get().to_string())),
    ];
    let own = own
        .into_iter()
        .filter_map(|(name, value)| Some((format!("{OWN}{name}"), value?)));
    let mut meta: BTreeMap<_, _> = own.collect();
    for (key, value) in instance.metadata().iter() {
        let reserved = key.starts_with(OWN) || key.starts_with(CONSULS);
        let stored = if reserved {
            format!("{MOVED}{key}")
        } else {
            key.to_owned()
        };
        if stored.len() > MAX_KEY_BYTES {
            return Err(Error::invalid(
                "metadata key",
                key,
                "is too long for Consul with its prefix",
            ));
        }
        meta.insert(stored, value.to_owned());
    }
    let pairs = meta.len();
    if pairs > MAX_PAIRS {
        return Err(Error::invalid(
            "metadata",
            pairs,
            "has too many pairs for Consul",
        ));
    }
    match meta.iter().find(|(_, value)| value.len() > MAX_VALUE_BYTES) {
        Some((key, _)) => Err(Error::invalid(
            "metadata value",
            key,
            "is too long for Consul",
        )),
        None => Ok(meta),
    }
}

/// What stands in the catalog.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// Whether plimsoll wrote it.
    pub(crate) ours: bool,
}

/// Understands an entry of `service`.
///
/// # Errors
/// `Corrupt` if it cannot be.
pub(crate) fn read(service: &ServiceName, found: &HealthEntry) -> Result<Found> {
    let own = |name: &str| {
        found
            .service
            .meta
            .get(&format!("{OWN}{name}"))
            .map(String::as_str)
    };
    match (own("schema"), own("id"), own("incarnation")) {
        (None, _, _) => foreign(service, found),
        (Some(_), Some(id), Some(life)) => ours(service, found, id, life),
        (Some(_), _, _) => Err(corrupt("the service lacks an id or an incarnation")),
    }
}

fn ours(service: &ServiceName, found: &HealthEntry, id: &str, life: &str) -> Result<Found> {
    let bad = |e: Error| corrupt("the service's meta holds a value that cannot be").with_source(e);
    let own = |name: &str| {
        found
            .service
            .meta
            .get(&format!("{OWN}{name}"))
            .map(String::as_str)
    };
    let number = |name: &'static str| match own(name) {
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(e) => Err(corrupt("the service's meta holds what is no number")
                .with_context("field", name)
                .with_source(e)),
        },
        None => Ok(None),
    };
    let life: Incarnation = life.parse().map_err(bad)?;
    let own_check = check_id(&found.service.id);
    if !found.checks.iter().any(|check| check.id == own_check) {
        let why =
            "a service of plimsoll's that no check keeps alive: copied, or its check taken away";
        return Err(corrupt(why));
    }
    let status = own("status")
        .map_or(Ok(Status::Up), str::parse)
        .map_err(bad)?;
    let (address, port) = place(found)?;
    let mut builder = Instance::builder(service, address, port)
        .with_id(id)
        .with_status(status)
        .with_secure(own("secure") == Some("true"));
    if let Some(zone) = own("zone") {
        builder = builder.with_zone(zone);
    }
    if let Some(version) = own("version") {
        builder = builder.with_version(version);
    }
    if let Some(weight) = number("weight")? {
        builder = builder.with_weight(u32::try_from(weight).unwrap_or(u32::MAX));
    }
    if let Some(capacity) = number("capacity")? {
        builder = builder.with_capacity(capacity);
    }
    let (mut metadata, mut left_out) = (Metadata::new(), LeftOut::default());
    for (stored, value) in &found.service.meta {
        let key = match stored.strip_prefix(MOVED) {
            Some(key) => key,
            None if stored.starts_with(OWN) => continue,
            None => stored,
        };
        // Others may add to it.
        if metadata.insert(key, value).is_err() {
            left_out.note(key);
        }
    }
    let instance = builder.build().map_err(bad)?.with_metadata(metadata);
    let mut entry = Entry::new(instance, life);
    entry.left_out = left_out;
    entry.registered_at = number("registered-ms")?.and_then(moment);
    Ok(Found { entry, ours: true })
}

/// A service that another program registered. Its id is unique on its node alone, and its life is
/// its creation in the catalog.
fn foreign(service: &ServiceName, found: &HealthEntry) -> Result<Found> {
    let bad = |e: Error| corrupt("the service holds a value that cannot be").with_source(e);
    let HealthEntry {
        node,
        service: said,
        ..
    } = found;
    let (address, port) = place(found)?;
    let id = format!("{}/{}", node.node, said.id);
    let mut instance = Foreign::new(service, &id, address, port);
    // Who says nothing has a weight of 1.
    let weight = said.weights.map_or(1, |weights| weights.passing);
    if weight != 1 {
        instance.has_weight(u32::try_from(weight.max(0)).unwrap_or(u32::MAX));
    }
    for (key, value) in &said.meta {
        instance.says(key, value);
    }
    // As Spring Cloud Consul has it.
    for (key, value) in said.tags.iter().filter_map(|tag| tag.split_once('=')) {
        instance.says(key, value);
    }
    let life = Incarnation::from_bits(u128::from(said.create_index));
    let (instance, left_out) = instance.build().map_err(bad)?;
    let mut entry = Entry::new(instance, life);
    entry.left_out = left_out;
    Ok(Found { entry, ours: false })
}

/// Where it listens.
fn place(found: &HealthEntry) -> Result<(&str, u16)> {
    let HealthEntry {
        node,
        service: said,
        ..
    } = found;
    let address = if said.address.is_empty() {
        &node.address
    } else {
        &said.address
    };
    let port =
        u16::try_from(said.port).map_err(|e| corrupt("the port cannot be").with_source(e))?;
    Ok((address, port))
}

fn moment(ms: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

fn corrupt(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, why)
}

#[cfg(test)]
mod tests;
