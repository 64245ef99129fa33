//! Nodes as rows, and what is understood of them.

use plimsoll_backend_kit::{Reading, Row, Skipped, id_of};
use plimsoll_discovery_api::{Error, ErrorKind, ServiceName};
use zookeeper_client::Stat;

use crate::codec;

/// The row of an identity.
pub(crate) fn identity<'a>(key: &'a str, (bytes, stat): &'a (Vec<u8>, Stat)) -> Row<'a> {
    let at = (position(stat.czxid), position(stat.mzxid));
    Row::new(key, bytes, at, owner(stat))
}

/// The row of a load. One session creates both, the load not before the identity, and may have
/// created others before under the same key: its creation is what tells it from theirs.
pub(crate) fn load<'a>(key: &'a str, (bytes, stat): &'a (Vec<u8>, Stat)) -> Row<'a> {
    let created = position(stat.czxid);
    Row::new(key, bytes, (created, created), owner(stat))
}

fn position(zxid: i64) -> u64 {
    zxid.unsigned_abs()
}

/// The session that a node ends with. Containers name an owner that is none.
pub(crate) fn owner(stat: &Stat) -> Option<i64> {
    Some(stat.ephemeral_owner).filter(|owner| !matches!(*owner, 0 | i64::MIN))
}

/// Understands an identity.
pub(crate) fn understand(service: &ServiceName, row: &Row<'_>) -> Result<Reading, Skipped> {
    let entry = codec::read(service, &row.key, row.bytes, row.created)?;
    if codec::is_unkept(entry.incarnation, row.created, row.owner) {
        let why = "a record of plimsoll's that no session keeps alive: copied or restored";
        return Err(Skipped::new(
            id_of(&row.key),
            Error::new(ErrorKind::Corrupt, why),
        ));
    }
    Ok(Reading::Present(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_permanent_node_nor_a_container_ends_with_a_session() {
        for (named, of) in [(0, None), (i64::MIN, None), (1, Some(1)), (-1, Some(-1))] {
            let stat = Stat {
                ephemeral_owner: named,
                czxid: 5,
                mzxid: 9,
                ..stat()
            };
            assert_eq!(owner(&stat), of);
            let node = (b"7".to_vec(), stat);
            let (identity, load) = (identity("a", &node), load("a", &node));
            assert_eq!((identity.created, identity.modified), (5, 9));
            assert_eq!(
                load.modified, 5,
                "a load that is written again is of the same life"
            );
        }
    }

    fn stat() -> Stat {
        Stat {
            czxid: 0,
            mzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: 0,
            data_length: 0,
            num_children: 0,
            pzxid: 0,
        }
    }
}
