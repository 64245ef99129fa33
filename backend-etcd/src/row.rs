//! Keys and their values as rows, and what is understood of them.

use std::borrow::Cow;

use etcd_client::KeyValue;
use plimsoll_backend_kit::{Reading, Row, Skipped, id_of};
use plimsoll_discovery_api::{Error, ErrorKind, ServiceName};

use crate::codec;

/// The row of `kv`; nothing, if it is not below `branch`.
pub(crate) fn row_of<'a>(kv: &'a KeyValue, branch: &str) -> Option<Row<'a>> {
    let key = key_below(kv.key(), branch.as_bytes())?;
    let position = |revision: i64| revision.unsigned_abs();
    let at = (position(kv.create_revision()), position(kv.mod_revision()));
    Some(Row::new(key, kv.value(), at, owner(kv.lease())))
}

/// A lease of 0 is none.
pub(crate) fn owner(lease: i64) -> Option<i64> {
    (lease != 0).then_some(lease)
}

/// The key below `branch`. Whoever wrote one that is no text gets one that nobody else has.
pub(crate) fn key_below<'a>(key: &'a [u8], branch: &[u8]) -> Option<Cow<'a, str>> {
    let key = key.strip_prefix(branch)?;
    (!key.is_empty()).then(|| {
        std::str::from_utf8(key)
            .map_or_else(|_| format!(" {}", key.escape_ascii()).into(), Cow::Borrowed)
    })
}

/// Understands an identity. Our records are under a lease, each of them: what is not is a copy or a
/// backup of one.
pub(crate) fn understand(service: &ServiceName, row: &Row<'_>) -> Result<Reading, Skipped> {
    let reading = codec::read(service, &row.key, row.bytes, row.created)?;
    match reading {
        Reading::Present(entry)
            if row.owner.is_none() && !codec::is_foreign(&entry, row.created) =>
        {
            let why =
                "a record of plimsoll's that no lease keeps alive: copied, restored or overwritten";
            Err(Skipped::new(
                id_of(&row.key),
                Error::new(ErrorKind::Corrupt, why),
            ))
        }
        reading => Ok(reading),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_ours_without_a_lease_is_no_instance() {
        let value = br#"{"Op":0,"Addr":"h:1","Metadata":{"schema":1,"id":"a","host":"h","port":1,
            "incarnation":"000000000000000000000000000000ff"}}"#;
        let service = "orders".parse().unwrap();
        let record = |lease| understand(&service, &Row::new("a", value, (1, 1), owner(lease)));
        assert!(matches!(record(7), Ok(Reading::Present(_))));
        let cause = record(0).unwrap_err().cause.to_string();
        assert!(cause.contains("no lease keeps alive"), "{cause}");
        let foreign = Row::new("a", br#"{"Addr":"h:1"}"#, (1, 1), None);
        assert!(understand(&service, &foreign).is_ok());
    }

    #[test]
    fn a_key_that_is_no_text_is_a_key_of_its_own() {
        let below = |key: &'static [u8]| key_below(key, b"s/");
        assert_eq!(below(b"s/a").as_deref(), Some("a"));
        assert_eq!(below(b"s/\xff").as_deref(), Some(" \\xff"));
        assert_eq!((below(b"s/"), below(b"t/a")), (None, None));
    }
}
