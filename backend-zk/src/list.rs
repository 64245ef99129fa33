//! Reading a service whole.

use plimsoll_backend_kit::{Interest, Listing, Rows, unescape};
use plimsoll_discovery_api::{Result, Revision, ServiceName};
use zookeeper_client::Stat;

use crate::connection::Connection;
use crate::error::failed_at;
use crate::fetch::{Node, Standing, are_parents, found, read_all};
use crate::keys::{Branches, Tree};
use crate::records::departures::read_list;
use crate::row;

/// What was read of a service besides its instances.
struct Frame {
    /// The parent of all services.
    history: Option<Stat>,
    /// The parent of the service's instances, with its data.
    service: Standing,
    /// The names of the instances' nodes.
    keys: Vec<String>,
}

/// Reads `service`, as the whole ensemble knows it now.
pub(crate) async fn view(
    connection: &Connection,
    tree: &Tree,
    service: &ServiceName,
    interest: Interest,
) -> Result<(Rows, Listing)> {
    let client = &connection.client;
    let branches = tree.branches(service);
    let root = tree.services();
    // All sent before any is awaited: the answers are of what the leader knew when it synced.
    let (sync, history) = (client.sync(&root), client.check_stat(&root));
    let children = client.get_children(&branches.services);
    let parent = client.get_data(&branches.services);
    let (sync, history) = (connection.answer(sync), connection.answer(history));
    sync.await.map_err(failed_at(&root))?;
    let history = history.await.map_err(failed_at(&root))?;
    let children = connection.answer(children).await;
    let parent = connection.answer(parent).await;
    let children = found(&branches.services, children)?;
    let frame = Frame {
        history,
        service: found(&branches.services, parent)?,
        keys: children.map_or_else(Vec::new, |(keys, _)| keys),
    };
    let (identities, loads) = members(connection, &branches, &frame.keys, interest).await?;
    Ok(assemble(service, frame, identities, loads))
}

/// Reads the identities and, if they are wanted, the loads under `keys`, in their order.
pub(crate) async fn members(
    connection: &Connection,
    branches: &Branches,
    keys: &[String],
    interest: Interest,
) -> Result<(Vec<Node>, Vec<Node>)> {
    let mut paths = below(&branches.services, keys);
    if interest < Interest::Loads {
        let identities = read_all(connection, &paths).await?;
        return Ok((identities, vec![Ok(None); keys.len()]));
    }
    // In one go, as the answers come in the order of the requests.
    paths.extend(below(&branches.load, keys));
    let mut identities = read_all(connection, &paths).await?;
    let loads = identities.split_off(keys.len());
    Ok((identities, loads))
}

/// Understands what was read; identities and loads are in the order of the frame's keys.
fn assemble(
    service: &ServiceName,
    frame: Frame,
    identities: Vec<Node>,
    loads: Vec<Node>,
) -> (Rows, Listing) {
    let Frame {
        history,
        service: parent,
        keys,
    } = frame;
    let mut newest = history.map_or(0, |stat| stat.pzxid);
    newest = newest.max(parent.as_ref().map_or(0, |(_, stat)| stat.pzxid));
    let mut rows = Rows::new(service.clone(), revision(history, newest), row::understand);
    for ((key, identity), load) in keys.iter().zip(identities).zip(loads) {
        // One that may not be read is none.
        if let Ok(Some(load)) = &load {
            rows.note_load(&row::load(key, load));
        }
        match &identity {
            Ok(Some(node)) => rows.list(&row::identity(key, node)),
            // Gone since the keys were read.
            Ok(None) => {}
            Err(closed) => rows.list_unreadable(key, closed.clone()),
        }
    }
    let departed = parent.and_then(|(data, _)| read_list(&data));
    let listing = rows.take_listing();
    (rows, listing.with_departed(departed.unwrap_or_default()))
}

pub(crate) fn below(parent: &str, keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("{parent}/{key}")).collect()
}

/// The history is that of the parent of all services, which nothing but a loss of all data ends;
/// within it the transaction ids count.
fn revision(history: Option<Stat>, newest: i64) -> Revision {
    let epoch = history.map_or(0, |stat| epoch(&stat));
    Revision::new(epoch, newest.unsigned_abs())
}

fn epoch(history: &Stat) -> u64 {
    history.ctime.unsigned_abs().rotate_left(20) ^ history.czxid.unsigned_abs()
}

/// The epoch of what stands below `root`, the parent of all services; 0 before there is any.
pub(crate) async fn current_epoch(connection: &Connection, root: &str) -> Result<u64> {
    let history = connection.answer(connection.client.check_stat(root)).await;
    Ok(history
        .map_err(failed_at(root))?
        .map_or(0, |stat| epoch(&stat)))
}

/// The names of all services with an entry.
pub(crate) async fn services(connection: &Connection, tree: &Tree) -> Result<Vec<ServiceName>> {
    let client = &connection.client;
    let root = tree.services();
    let (sync, children) = (client.sync(&root), client.get_children(&root));
    connection.answer(sync).await.map_err(failed_at(&root))?;
    let Some((keys, _)) = found(&root, connection.answer(children).await)? else {
        return Ok(Vec::new());
    };
    // Whose entries may not be read is a service all the same.
    let held = are_parents(connection, &below(&root, &keys)).await?;
    let held = keys.iter().zip(held).filter(|(_, held)| *held);
    // A key that is no name is nobody's service.
    Ok(held
        .filter_map(|(key, _)| unescape(key).ok()?.parse().ok())
        .collect())
}
