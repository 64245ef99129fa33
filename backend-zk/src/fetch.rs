//! Reading nodes, many at a time.

use plimsoll_discovery_api::Result;
use zookeeper_client::{Error as Native, MultiReadResult, Stat};

use crate::connection::Connection;
use crate::error::{failed_at, unread_at};

/// So many nodes are read by one request: few enough that an answer stays far below the limits of
/// any server even if each node is of the largest size, many enough that 10,000 instances are a
/// few hundred requests, all under way at once.
const BATCH: usize = 64;

/// What stands at a path, if anything does.
pub(crate) type Standing = Option<(Vec<u8>, Stat)>;

/// The same, or why this one node may not be read, which is no failure of the others beside it.
pub(crate) type Node = Result<Standing>;

/// Reads `paths`, pipelined, in their order.
///
/// # Errors
/// What keeps all of them from being read.
pub(crate) async fn read_all(connection: &Connection, paths: &[String]) -> Result<Vec<Node>> {
    let mut requests = Vec::with_capacity(paths.len() / BATCH + 1);
    for batch in paths.chunks(BATCH) {
        let mut reader = connection.client.new_multi_reader();
        for path in batch {
            reader.add_get_data(path).map_err(failed_at(path))?;
        }
        // Sent here; awaited below.
        requests.push((batch, reader.commit()));
    }
    let mut nodes = Vec::with_capacity(paths.len());
    for (batch, request) in requests {
        let results = connection.answer(request).await;
        let results = results.map_err(failed_at(&batch[0]))?;
        for (path, result) in batch.iter().zip(results) {
            nodes.push(node(
                path,
                match result {
                    MultiReadResult::Data { data, stat } => Ok((data, stat)),
                    MultiReadResult::Error { err } => Err(err),
                    other => Err(Native::UnexpectedError(format!("{other:?}"))),
                },
            )?);
        }
    }
    Ok(nodes)
}

/// Tells what is wrong with the node at `path` from what is wrong with all that is asked for.
fn node(path: &str, result: Result<(Vec<u8>, Stat), Native>) -> Result<Node> {
    match result {
        Err(Native::NoAuth) => Ok(Err(unread_at(path)(Native::NoAuth))),
        result => found(path, result).map(Ok),
    }
}

/// A node that is not there is no error.
pub(crate) fn found<T>(path: &str, result: Result<T, Native>) -> Result<Option<T>> {
    match result {
        Ok(node) => Ok(Some(node)),
        Err(Native::NoNode) => Ok(None),
        Err(error) => Err(unread_at(path)(error)),
    }
}

/// Whether anything stands below each of `paths`, pipelined, in their order.
pub(crate) async fn are_parents(connection: &Connection, paths: &[String]) -> Result<Vec<bool>> {
    let Connection { client, .. } = connection;
    let requests: Vec<_> = paths.iter().map(|path| client.check_stat(path)).collect();
    let mut answers = Vec::with_capacity(paths.len());
    for (path, request) in paths.iter().zip(requests) {
        answers.push(is_parent(path, connection.answer(request).await)?);
    }
    Ok(answers)
}

/// Of a node that may not be looked at it is taken for granted, as parents do not outlive their
/// children for long.
fn is_parent(path: &str, checked: Result<Option<Stat>, Native>) -> Result<bool> {
    match checked {
        Ok(stat) => Ok(stat.is_some_and(|stat| stat.num_children > 0)),
        Err(Native::NoAuth) => Ok(true),
        Err(error) => Err(failed_at(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::ErrorKind;

    use super::*;

    #[test]
    fn what_is_wrong_with_one_node_is_not_what_is_wrong_with_all() {
        let closed = node("/a", Err(Native::NoAuth)).unwrap().unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::PermissionDenied);
        assert!(closed.to_string().contains("/a"), "{closed}");
        assert!(node("/a", Err(Native::NoNode)).unwrap().unwrap().is_none());
        let all = node("/a", Err(Native::ConnectionLoss)).unwrap_err();
        assert_eq!(all.kind(), ErrorKind::Unavailable);
        assert!(all.to_string().contains("/a"), "{all}");
        assert!(is_parent("/a", Err(Native::NoAuth)).unwrap());
        assert!(!is_parent("/a", Ok(None)).unwrap());
        assert!(is_parent("/a", Err(Native::ConnectionLoss)).is_err());
    }
}
