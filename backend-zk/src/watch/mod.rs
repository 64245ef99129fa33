//! Following the changes of one service: watches on whole branches ([`branches`]) tell of them, and
//! [`follower`] reads what they point at.

mod branches;
mod follower;

use plimsoll_backend_kit::{DrivenUpdates, Interest, Subscription};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, ServiceName};
use tokio::sync::mpsc;
use zookeeper_client::{EventType, WatchedEvent};

use self::branches::BranchWatches;
use self::follower::Follower;
use crate::connection::Connection;
use crate::keys::Tree;

/// So many changes may wait for the reader before those that follow are gathered instead.
const BACKLOG: usize = 256;

/// Reads `service` and follows it, without a gap: the watches are set before or with what is read.
/// They end with the connection; another subscription reads everything anew.
pub(crate) async fn subscribe(
    connection: Connection,
    tree: &Tree,
    service: &ServiceName,
    interest: Interest,
) -> Result<Subscription> {
    let (watches, (rows, listing)) =
        BranchWatches::set(connection, tree, service, interest).await?;
    let (sender, changes) = mpsc::channel(BACKLOG);
    let follower = Follower::new(rows, watches, sender);
    let updates = DrivenUpdates::new(changes, follower.run());
    Ok(Subscription::new(listing, Box::new(updates)))
}

/// What a watch has to tell.
#[derive(Debug)]
enum Event {
    /// The identity under this key came, changed or went.
    Identity(String),
    /// The load under this key changed.
    Load(String),
    /// This life was deregistered.
    Departed(Incarnation),
}

/// Any event of the session ends the subscription.
fn node_event(event: WatchedEvent) -> Result<WatchedEvent> {
    if event.event_type == EventType::Session {
        let cause = Error::new(ErrorKind::Unavailable, "the connection was interrupted");
        return Err(cause.with_context("state", event.session_state.to_string()));
    }
    Ok(event)
}
