//! Reading a service whole.

use std::collections::{HashMap, HashSet};

use plimsoll_backend_kit::{Entry, Interest, Listing, Skipped, unescape};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, Revision, ServiceName};
use zookeeper_client::Stat;

use crate::codec;
use crate::depart::read_list;
use crate::error::failed_at;
use crate::fetch::{Node, Standing, are_parents, found, read_all};
use crate::paths::{Branches, Tree, id_of, twin_of};
use crate::session::Connection;

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

impl Seen {
    /// Of a node that was not read, as it may not be, or as its id is another's.
    pub(crate) const UNREAD: Self = Self {
        czxid: 0,
        mzxid: 0,
        owner: 0,
        incarnation: Incarnation::from_bits(0),
        sound: false,
    };
}

/// A service at one moment, with what is needed to follow it from there.
pub(crate) struct View {
    pub(crate) listing: Listing,
    /// By key.
    pub(crate) seen: HashMap<String, Seen>,
}

/// What was read of a service besides its instances.
pub(crate) struct Frame {
    /// The parent of all services.
    pub(crate) history: Option<Stat>,
    /// The parent of the service's instances, with its data.
    pub(crate) service: Standing,
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
    let doubles = doubles(&keys);
    for ((key, identity), load) in keys.into_iter().zip(identities).zip(loads) {
        let (bytes, stat) = match identity {
            _ if doubles.contains(&key) => {
                seen.insert(key, Seen::UNREAD);
                continue;
            }
            Ok(Some(node)) => node,
            // Gone since the keys were read.
            Ok(None) => continue,
            Err(closed) => {
                skipped.push(Skipped::new(id_of(&key), closed));
                seen.insert(key, Seen::UNREAD);
                continue;
            }
        };
        newest = newest.max(stat.mzxid);
        let (known, entry) = understand(service, &key, &bytes, &stat);
        match entry {
            Ok(mut entry) => {
                entry.load = load_of(&known, load);
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

/// Those of `keys` whose id another one of them has, escaped.
fn doubles(keys: &[String]) -> HashSet<String> {
    let unescaped = keys.iter().filter_map(|key| Some((key, twin_of(key)?)));
    let unescaped: Vec<_> = unescaped.collect();
    if unescaped.is_empty() {
        return HashSet::new();
    }
    let all: HashSet<_> = keys.iter().collect();
    let doubles = unescaped.into_iter().filter(|(_, twin)| all.contains(twin));
    doubles
        .map(|(key, _)| {
            tracing::debug!(key, "another node has its id");
            key.clone()
        })
        .collect()
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

/// Reads one identity node.
pub(crate) fn understand(
    service: &ServiceName,
    key: &str,
    bytes: &[u8],
    stat: &Stat,
) -> (Seen, Result<Entry, Skipped>) {
    let mut entry = codec::read(service, key, bytes, stat.czxid);
    if entry
        .as_ref()
        .is_ok_and(|entry| codec::is_unkept(entry.incarnation, stat.czxid, stat.ephemeral_owner))
    {
        let why = "a record of plimsoll's that no session keeps alive: copied or restored";
        entry = Err(Skipped::new(
            id_of(key),
            Error::new(ErrorKind::Corrupt, why),
        ));
    }
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
/// session, the load not before the identity. One that may not be read is none.
pub(crate) fn load_of(identity: &Seen, load: Node) -> Option<u64> {
    let (bytes, stat) = load.ok().flatten()?;
    let same_life = stat.ephemeral_owner == identity.owner && stat.czxid >= identity.czxid;
    same_life.then(|| codec::read_load(&bytes)).flatten()
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
