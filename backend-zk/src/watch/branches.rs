//! Watches on whole branches: up to three of them tell of everything, by name.
//!
//! They hold as long as the connection does. The client does not set such watches again after a
//! reconnect, and the server would not make up for what was missed, so with the connection they end.

use std::collections::HashSet;

use plimsoll_backend_kit::{Interest, Listing, Rows};
use plimsoll_discovery_api::{Incarnation, Result, ServiceName};
use zookeeper_client::{AddWatchMode, EventType, PersistentWatcher, WatchedEvent};

use super::{Event, node_event};
use crate::connection::Connection;
use crate::error::failed_at;
use crate::fetch::{Node, found, read_all};
use crate::keys::{Branches, Tree, key_below};
use crate::list::{below, current_epoch, members, view};

pub(super) struct BranchWatches {
    connection: Connection,
    branches: Branches,
    interest: Interest,
    services: PersistentWatcher,
    /// If loads are wanted.
    load: Option<PersistentWatcher>,
    departed: PersistentWatcher,
}

impl BranchWatches {
    /// Sets them, and then reads.
    pub(super) async fn set(
        connection: Connection,
        tree: &Tree,
        service: &ServiceName,
        interest: Interest,
    ) -> Result<(Self, (Rows, Listing))> {
        let branches = tree.branches(service);
        let on = |branch: &String| {
            let (connection, branch) = (connection.clone(), branch.clone());
            async move {
                let mode = AddWatchMode::PersistentRecursive;
                let watch = connection.answer(connection.client.watch(&branch, mode));
                watch.await.map_err(failed_at(&branch))
            }
        };
        let loads = async {
            match interest {
                Interest::Members => Ok(None),
                _ => on(&branches.load).await.map(Some),
            }
        };
        let (departed, services, load) =
            tokio::try_join!(on(&branches.departed), on(&branches.services), loads)?;
        let view = view(&connection, tree, service, interest).await?;
        let watches = Self {
            connection,
            branches,
            interest,
            services,
            load,
            departed,
        };
        Ok((watches, view))
    }

    /// Departures come last: theirs arrive before the event of the removal that they announce, so
    /// once nothing is left to come, none is missing of a removal that has been seen.
    ///
    /// An error ends the subscription. Events of the connection's past come before what is read after
    /// them. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Event> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.services.changed() => identity(&self.branches, event)?,
                event = told(self.load.as_mut()) => load(&self.branches, event)?,
                event = self.departed.changed() => departure(&self.branches, event)?,
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// Reads the identities and, if they are wanted, the loads under `keys`, in their order.
    pub(super) async fn read(&self, keys: &[String]) -> Result<(Vec<Node>, Vec<Node>)> {
        members(&self.connection, &self.branches, keys, self.interest).await
    }

    /// Reads the loads under `keys`, in their order.
    pub(super) async fn read_loads(&self, keys: &[String]) -> Result<Vec<Node>> {
        read_all(&self.connection, &below(&self.branches.load, keys)).await
    }

    /// Reads who is there.
    pub(super) async fn members(&self) -> Result<HashSet<String>> {
        let (connection, parent) = (&self.connection, &self.branches.services);
        let sync = connection.client.sync(parent);
        let children = connection.client.list_children(parent);
        connection.answer(sync).await.map_err(failed_at(parent))?;
        let keys = found(parent, connection.answer(children).await)?.unwrap_or_default();
        Ok(keys.into_iter().collect())
    }

    /// The epoch of the history that is followed; 0 before there is any.
    pub(super) async fn epoch(&self) -> Result<u64> {
        current_epoch(&self.connection, self.branches.root()).await
    }
}

/// The next event of a watch; never, if there is none.
async fn told(watcher: Option<&mut PersistentWatcher>) -> WatchedEvent {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

fn identity(branches: &Branches, event: WatchedEvent) -> Result<Option<Event>> {
    let event = node_event(event)?;
    let key = key_below(&event.path, &branches.services);
    Ok(key.map(|key| Event::Identity(key.to_owned())))
}

/// The load of a departed instance goes with its identity. One that is created may be that of a new
/// instance, or one that was deleted alone and is published anew.
fn load(branches: &Branches, event: WatchedEvent) -> Result<Option<Event>> {
    let event = node_event(event)?;
    let changed = matches!(
        event.event_type,
        EventType::NodeCreated | EventType::NodeDataChanged
    );
    let key = key_below(&event.path, &branches.load).filter(|_| changed);
    Ok(key.map(|key| Event::Load(key.to_owned())))
}

fn departure(branches: &Branches, event: WatchedEvent) -> Result<Option<Event>> {
    let event = node_event(event)?;
    let left = event.event_type == EventType::NodeCreated;
    let key = key_below(&event.path, &branches.departed).filter(|_| left);
    let life: Option<Incarnation> = key.and_then(|key| key.parse().ok());
    Ok(life.map(Event::Departed))
}
