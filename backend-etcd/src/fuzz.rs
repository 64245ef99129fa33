//! What strangers may write, for fuzzers and property tests: each panics where something does not
//! hold of it. No part of the API.

use plimsoll_backend_kit::{Change, Reading, Row, Rows, id_of};
use plimsoll_discovery_api::{ErrorKind, Revision, ServiceName};

use crate::codec;
use crate::row::{key_below, owner, understand};

fn service() -> Option<ServiceName> {
    ServiceName::new("orders").ok()
}

/// The value of an identity; what stands before the first line break, if there is one, is its key.
pub fn value(bytes: &[u8]) {
    let Some(service) = service() else { return };
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (key, value) = end.map_or((&b"odd"[..], bytes), |end| {
        (&bytes[..end], &bytes[end + 1..])
    });
    let key = String::from_utf8_lossy(key);
    let owner = codec::owner(value, 7);
    match codec::read(&service, &key, value, 7) {
        Ok(Reading::Present(entry)) => {
            assert_eq!(entry.incarnation, owner.incarnation, "one key, two lives");
            assert_eq!(entry.instance.id().as_str(), id_of(&key));
        }
        Ok(_) => assert!(owner.departed),
        Err(skipped) => {
            assert_eq!(skipped.cause.kind(), ErrorKind::Corrupt);
            assert_eq!(skipped.key, id_of(&key));
        }
    }
    if let Ok(marked) = codec::departed(value) {
        let after = codec::owner(&marked, 7);
        assert_eq!(
            (after.incarnation, after.is_record),
            (owner.incarnation, owner.is_record)
        );
    }
}

/// Events of one service, a line each: what is done, a key, a space and a value. Whatever they are,
/// the neighbour that was there before is there.
pub fn events(bytes: &[u8]) {
    const BRANCH: &[u8] = b"orders/";
    const NEIGHBOUR: &str = "neighbour-0001";
    let Some(service) = service() else { return };
    let mut rows = Rows::new(service, Revision::new(1, 0), understand);
    let sound = br#"{"Op":0,"Addr":"10.0.0.1:1"}"#;
    rows.list(&Row::new(NEIGHBOUR, sound, (1, 1), Some(7)));
    assert_eq!(rows.take_listing().entries.len(), 1);
    for (revision, line) in (2..).zip(bytes.split(|byte| *byte == b'\n')) {
        let Some((what, rest)) = line.split_first() else {
            continue;
        };
        let space = rest
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(rest.len());
        let (key, value) = rest.split_at(space);
        let key = [BRANCH, key].concat();
        let value = value.get(1..).unwrap_or_default();
        let Some(key) = key_below(&key, BRANCH).filter(|key| *key != NEIGHBOUR) else {
            continue;
        };
        let row = Row::new(
            key,
            value,
            (revision, revision),
            owner(i64::from(*what) % 3),
        );
        let change = match what % 4 {
            0 => rows.put(&row),
            1 => rows.deleted(&row.key),
            2 => rows.published(&row),
            _ => {
                rows.unpublished(&row.key);
                None
            }
        };
        let told = match change {
            Some(Change::Put(entry)) => entry.instance.id().to_string(),
            Some(Change::Removed { key, .. }) => key,
            Some(Change::Skipped(skipped)) => skipped.key,
            Some(Change::Load { id, .. }) => id.to_string(),
            _ => continue,
        };
        assert_ne!(told, NEIGHBOUR, "a neighbour is told of");
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_test_servers::holds_of_all;

    #[test]
    fn no_value_whatever_it_holds_is_a_panic() {
        holds_of_all("etcd_value", super::value);
    }

    #[test]
    fn no_event_is_told_of_a_key_that_it_is_not_of() {
        holds_of_all("etcd_events", super::events);
    }
}
