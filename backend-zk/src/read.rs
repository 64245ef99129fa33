//! Reading a service whole.

use std::collections::HashMap;

use plimsoll_backend_kit::{Entry, Interest, Listing, Skipped, unescape};
use plimsoll_discovery_api::{Incarnation, Result, Revision, ServiceName};
use zookeeper_client::{Client, Error as Native, MultiReadResult, Stat};

use crate::codec;
use crate::depart::read_list;
use crate::error::failed;
use crate::paths::{Branches, Tree};
use crate::session::Connection;

/// So many nodes are read by one request: few enough that an answer stays far below the limits of
/// any server even if each node is of the largest size, many enough that 10,000 instances are a
/// few hundred requests, all under way at once.
const BATCH: usize = 64;

/// What was last seen of a node, to tell a change from a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) owner: i64,
    pub(crate) incarnation: Incarnation,
    /// Whether it could be understood.
    pub(crate) sound: bool,
}

/// A service at one moment, with what is needed to follow it from there.
pub(crate) struct View {
    pub(crate) listing: Listing,
    /// By key.
    pub(crate) seen: HashMap<String, Seen>,
}

/// One node, or that there is none.
pub(crate) type Node = Option<(Vec<u8>, Stat)>;

/// Reads `paths`, pipelined, in their order.
pub(crate) async fn read_all(connection: &Connection, paths: &[String]) -> Result<Vec<Node>> {
    if connection.abilities.branches {
        read_in_batches(&connection.client, paths).await
    } else {
        read_one_by_one(&connection.client, paths).await
    }
}

async fn read_in_batches(client: &Client, paths: &[String]) -> Result<Vec<Node>> {
    let mut requests = Vec::with_capacity(paths.len() / BATCH + 1);
    for batch in paths.chunks(BATCH) {
        let mut reader = client.new_multi_reader();
        for path in batch {
            reader.add_get_data(path).map_err(failed)?;
        }
        // Sent here; awaited below.
        requests.push(reader.commit());
    }
    let mut nodes = Vec::with_capacity(paths.len());
    for request in requests {
        for result in request.await.map_err(failed)? {
            nodes.push(match result {
                MultiReadResult::Data { data, stat } => Some((data, stat)),
                MultiReadResult::Error {
                    err: Native::NoNode,
                } => None,
                MultiReadResult::Error { err } => return Err(failed(err)),
                other => return Err(failed(Native::UnexpectedError(format!("{other:?}")))),
            });
        }
    }
    Ok(nodes)
}

async fn read_one_by_one(client: &Client, paths: &[String]) -> Result<Vec<Node>> {
    let requests: Vec<_> = paths.iter().map(|path| client.get_data(path)).collect();
    let mut nodes = Vec::with_capacity(paths.len());
    for request in requests {
        nodes.push(found(request.await)?);
    }
    Ok(nodes)
}

/// A node that is not there is no error.
pub(crate) fn found<T>(result: Result<T, Native>) -> Result<Option<T>> {
    match result {
        Ok(node) => Ok(Some(node)),
        Err(Native::NoNode) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// What was read of a service besides its instances.
pub(crate) struct Frame {
    /// The parent of all services.
    pub(crate) history: Option<Stat>,
    /// The parent of the service's instances, with its data.
    pub(crate) service: Node,
    /// The names of the instances' nodes.
    pub(crate) keys: Vec<String>,
}

/// Reads `service`, as the whole ensemble knows it now.
pub(crate) async fn view(
    connection: &Connection,
    tree: &Tree,
    service: &ServiceName,
    interest: Interest,
) -> Result<View> {
    let client = &connection.client;
    let branches = tree.branches(service);
    let root = tree.services();
    // All sent before any is awaited: the answers are of what the leader knew when it synced.
    let (sync, history) = (client.sync(&root), client.check_stat(&root));
    let children = client.get_children(&branches.services);
    let parent = client.get_data(&branches.services);
    sync.await.map_err(failed)?;
    let history = history.await.map_err(failed)?;
    let keys = found(children.await)?.map_or_else(Vec::new, |(keys, _)| keys);
    let frame = Frame {
        history,
        service: found(parent.await)?,
        keys,
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
    let identities = below(&branches.services, keys);
    let identities = read_all(connection, &identities);
    if interest < Interest::Loads {
        return Ok((identities.await?, vec![None; keys.len()]));
    }
    let loads = below(&branches.load, keys);
    tokio::try_join!(identities, read_all(connection, &loads))
}

/// Makes a view of what was read; identities and loads are in the order of the frame's keys.
pub(crate) fn assemble(
    service: &ServiceName,
    frame: Frame,
    identities: Vec<Node>,
    loads: Vec<Node>,
) -> View {
    let Frame {
        history,
        service: parent,
        keys,
    } = frame;
    let (mut entries, mut skipped, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    let mut newest = history.map_or(0, |stat| stat.pzxid);
    newest = newest.max(parent.as_ref().map_or(0, |(_, stat)| stat.pzxid));
    for ((key, identity), load) in keys.into_iter().zip(identities).zip(loads) {
        // Gone since the keys were read.
        let Some((bytes, stat)) = identity else {
            continue;
        };
        newest = newest.max(stat.mzxid);
        let (known, entry) = understand(service, &key, &bytes, &stat);
        match entry {
            Ok(mut entry) => {
                entry.load = load.and_then(|(bytes, stat)| load_of(&known, &bytes, &stat));
                entries.push(entry);
            }
            Err(broken) => skipped.push(broken),
        }
        seen.insert(key, known);
    }
    let departed = parent.and_then(|(data, _)| read_list(&data));
    let listing = Listing::new(revision(history, newest), entries, skipped)
        .with_departed(departed.unwrap_or_default());
    View { listing, seen }
}

pub(crate) fn below(parent: &str, keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("{parent}/{key}")).collect()
}

/// The history is that of the parent of all services, which nothing but a loss of all data ends;
/// within it the transaction ids count.
fn revision(history: Option<Stat>, newest: i64) -> Revision {
    let epoch = history.map_or(0, |stat| {
        stat.ctime.unsigned_abs().rotate_left(20) ^ stat.czxid.unsigned_abs()
    });
    Revision::new(epoch, newest.unsigned_abs())
}

/// Reads one identity node.
pub(crate) fn understand(
    service: &ServiceName,
    key: &str,
    bytes: &[u8],
    stat: &Stat,
) -> (Seen, Result<Entry, Skipped>) {
    let entry = codec::read(service, key, bytes, stat.czxid);
    let seen = Seen {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        owner: stat.ephemeral_owner,
        incarnation: entry
            .as_ref()
            .map_or_else(|_| Incarnation::from_bits(0), |entry| entry.incarnation),
        sound: entry.is_ok(),
    };
    (seen, entry)
}

/// The load of a load node, if it is of the same life as the identity: both were created by one
/// session, the load not before the identity.
pub(crate) fn load_of(identity: &Seen, bytes: &[u8], stat: &Stat) -> Option<u64> {
    let same_life = stat.ephemeral_owner == identity.owner && stat.czxid >= identity.czxid;
    same_life.then(|| codec::read_load(bytes)).flatten()
}

/// The names of all services with an entry.
pub(crate) async fn services(connection: &Connection, tree: &Tree) -> Result<Vec<ServiceName>> {
    let client = &connection.client;
    let root = tree.services();
    let (sync, children) = (client.sync(&root), client.get_children(&root));
    sync.await.map_err(failed)?;
    let Some((keys, _)) = found(children.await)? else {
        return Ok(Vec::new());
    };
    let nodes = read_all(connection, &below(&root, &keys)).await?;
    let held = keys
        .iter()
        .zip(nodes)
        .filter(|(_, node)| node.as_ref().is_some_and(|(_, stat)| stat.num_children > 0));
    // A key that is no name is nobody's service.
    Ok(held
        .filter_map(|(key, _)| unescape(key).ok()?.parse().ok())
        .collect())
}
