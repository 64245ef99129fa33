//! What strangers may write, for fuzzers and property tests: each panics where something does not
//! hold of it. No part of the API.

use plimsoll_backend_kit::id_of;
use plimsoll_discovery_api::{ErrorKind, ServiceName};

use crate::codec;
use crate::records::departures::read_list;

/// An identity node; what stands before the first line break, if there is one, is its name.
pub fn node(bytes: &[u8]) {
    let Ok(service) = ServiceName::new("orders") else {
        return;
    };
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (name, value) = end.map_or((&b"odd"[..], bytes), |end| {
        (&bytes[..end], &bytes[end + 1..])
    });
    let key = String::from_utf8_lossy(name);
    let life = codec::incarnation(value, 7);
    match codec::read(&service, &key, value, 7) {
        Ok(entry) => {
            assert_eq!(entry.incarnation, life, "one node, two lives");
            assert_eq!(entry.instance.id().as_str(), id_of(&key));
        }
        Err(skipped) => {
            assert_eq!(skipped.cause.kind(), ErrorKind::Corrupt);
            assert_eq!(skipped.key, id_of(&key));
        }
    }
}

/// A list of departures.
pub fn departed(bytes: &[u8]) {
    let _whatever = read_list(bytes);
}

#[cfg(test)]
mod tests {
    use plimsoll_test_servers::holds_of_all;

    #[test]
    fn no_node_whatever_it_holds_is_a_panic() {
        holds_of_all("zk_node", super::node);
    }

    #[test]
    fn no_list_of_departures_whatever_it_holds_is_a_panic() {
        holds_of_all("zk_departed", super::departed);
    }
}
