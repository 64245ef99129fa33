//! Following the changes of one service.
//!
//! What tells of changes depends on the server: watches on whole branches ([`branches`]), or on each
//! node ([`nodes`]). What is made of it does not ([`follower`]).

mod branches;
mod follower;
mod nodes;

use std::collections::HashSet;

use plimsoll_backend_kit::{Followed, Interest, Subscription};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, ServiceName};
use tokio::sync::{mpsc, watch};
use zookeeper_client::{EventType, WatchedEvent};

use self::branches::BranchWatches;
use self::follower::Follower;
use self::nodes::NodeWatches;
use crate::fetch::Node;
use crate::paths::Tree;
use crate::read::current_epoch;
use crate::session::{Connection, Link};

/// So many changes may wait for the reader before those that follow are gathered instead.
const BACKLOG: usize = 256;

/// Reads `service` and follows it, without a gap: the watches are set before or with what is read.
/// They end with the connection; another subscription reads everything anew.
pub(crate) async fn subscribe(
    connection: Connection,
    links: watch::Receiver<Link>,
    tree: &Tree,
    service: &ServiceName,
    interest: Interest,
) -> Result<Subscription> {
    let (watches, view) = if connection.abilities.branches {
        let (watches, view) = BranchWatches::set(connection, tree, service, interest).await?;
        (Watches::Branches(watches), view)
    } else {
        let (watches, view) = NodeWatches::set(connection, links, tree, service, interest).await?;
        (Watches::Nodes(watches), view)
    };
    let (sender, changes) = mpsc::channel(BACKLOG);
    let follower = Follower::new(service.clone(), watches, view.seen, &view.listing, sender);
    let updates = Followed::new(changes, follower.run());
    Ok(Subscription::new(view.listing, Box::new(updates)))
}

/// What a watch has to tell.
#[derive(Debug)]
enum Event {
    /// The identity under this key came, changed or went.
    Identity(String),
    /// Some instance came or went.
    Membership,
    /// The load under this key changed.
    Load(String),
    /// This life was deregistered.
    Departed(Incarnation),
}

/// Where events come from, and how what they point at is read.
enum Watches {
    Branches(BranchWatches),
    Nodes(NodeWatches),
}

impl Watches {
    /// The next event; an error ends the subscription. Those of the connection's past come before
    /// what is read after them. Cancel safe.
    async fn next(&mut self) -> Result<Event> {
        match self {
            Self::Branches(watches) => watches.next().await,
            Self::Nodes(watches) => watches.next().await,
        }
    }

    /// Reads the identities and, if they are wanted, the loads under `keys`, in their order.
    async fn read(&mut self, keys: &[String]) -> Result<(Vec<Node>, Vec<Node>)> {
        match self {
            Self::Branches(watches) => watches.read(keys).await,
            Self::Nodes(watches) => watches.read(keys).await,
        }
    }

    /// Reads the loads under `keys`, in their order.
    async fn read_loads(&mut self, keys: &[String]) -> Result<Vec<Node>> {
        match self {
            Self::Branches(watches) => watches.read_loads(keys).await,
            Self::Nodes(watches) => watches.read_loads(keys).await,
        }
    }

    /// Reads who is there, and the latest departures where those are not told of one by one.
    async fn members(&mut self) -> Result<(HashSet<String>, Vec<Incarnation>)> {
        match self {
            Self::Branches(watches) => watches.members().await,
            Self::Nodes(watches) => watches.members().await,
        }
    }

    /// The epoch of the history that is followed; 0 before there is any.
    async fn epoch(&self) -> Result<u64> {
        let (connection, branches) = match self {
            Self::Branches(watches) => (&watches.connection, &watches.branches),
            Self::Nodes(watches) => (&watches.connection, &watches.branches),
        };
        current_epoch(connection, branches.root()).await
    }

    /// The instance under `key` is gone, and with it what its load is watched for.
    fn forget_load(&mut self, key: &str) {
        match self {
            Self::Branches(_) => {}
            Self::Nodes(watches) => watches.forget_load(key),
        }
    }
}

/// Any event of the session ends the subscription.
fn node_event(event: WatchedEvent) -> Result<WatchedEvent> {
    if event.event_type == EventType::Session {
        return Err(interrupted().with_context("state", event.session_state.to_string()));
    }
    Ok(event)
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection was interrupted")
}
