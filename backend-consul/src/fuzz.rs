//! What strangers may write, for fuzzers and property tests: each panics where something does not
//! hold of it. No part of the API.

use plimsoll_discovery_api::ServiceName;
use serde::de::IgnoredAny;

use crate::http::each::{Each, Keys, each};
use crate::http::wire::{HealthEntry, Pair};
use crate::owner_lock::Value;
use crate::resolve::resolve;

const BEFORE: &str = r#"{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"before","Service":"orders","Port":1},"Checks":[]}"#;
const AFTER: &str = r#"{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"after","Service":"orders","Port":1},"Checks":[]}"#;

/// `bytes` as an element between `before` and `after`; nothing, where it would be more or less than
/// one.
fn between(before: &str, bytes: &[u8], after: &str) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let _one: IgnoredAny = serde_json::from_str(&text).ok()?;
    let list = [
        b"[",
        before.as_bytes(),
        b",",
        bytes,
        b",",
        after.as_bytes(),
        b"]",
    ];
    Some(list.concat())
}

/// An entry of a service's health: whatever it is, its neighbours are there.
pub fn health(bytes: &[u8]) {
    let Ok(service) = ServiceName::new("orders") else {
        return;
    };
    let _whatever = each::<HealthEntry>(bytes).map(|entries| resolve(&service, &entries));
    let Some(list) = between(BEFORE, bytes, AFTER) else {
        return;
    };
    let entries: Each<HealthEntry> = each(&list).unwrap_or_else(|e| panic!("{e}"));
    let resolved = resolve(&service, &entries);
    for id in ["n/before", "n/after"] {
        assert!(
            resolved.present.keys().any(|seen| seen.as_str() == id),
            "{id} is hidden"
        );
    }
    let made = entries.good.len() + entries.bad.len();
    assert_eq!(made, 3, "more or less is made of an entry than one");
}

/// The names of services.
pub fn catalog(bytes: &[u8]) {
    let _whatever = serde_json::from_slice::<Keys>(bytes);
    let text = String::from_utf8_lossy(bytes);
    if serde_json::from_str::<IgnoredAny>(&text).is_ok() {
        let map = [&br#"{"before":[],"odd":"#[..], bytes, br#","after":[]}"#].concat();
        let Keys(names) = serde_json::from_slice(&map).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(names, ["before", "odd", "after"]);
    }
}

/// A key of the store.
pub fn keys(bytes: &[u8]) {
    let values = |pairs: &Each<Pair>| pairs.good.iter().filter_map(Value::read).count();
    let _whatever = each::<Pair>(bytes).map(|pairs| values(&pairs));
    // `<life> 1 2`
    let sound =
        r#"{"Key":"k","Value":"MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDcgMSAy","Session":"s"}"#;
    if let Some(list) = between(sound, bytes, sound) {
        let pairs: Each<Pair> = each(&list).unwrap_or_else(|e| panic!("{e}"));
        assert!(values(&pairs) >= 2, "a neighbour's load is hidden");
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_test_servers::holds_of_all;

    #[test]
    fn no_entry_of_a_services_health_hides_another() {
        holds_of_all("consul_health", super::health);
    }

    #[test]
    fn no_name_of_a_service_hides_another() {
        holds_of_all("consul_catalog", super::catalog);
    }

    #[test]
    fn no_key_of_the_store_hides_another() {
        holds_of_all("consul_keys", super::keys);
    }
}
