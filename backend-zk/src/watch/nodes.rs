//! Watches on each node, for servers before 3.6: each tells once, and not of more than that
//! something has changed. It is set with what is read, so nothing is missed in between.

use std::collections::HashSet;

use plimsoll_backend_kit::Interest;
use plimsoll_discovery_api::{Incarnation, Result, ServiceName};
use tokio::sync::watch;
use tokio::task::JoinSet;
use zookeeper_client::{Client, Error as Native, OneshotWatcher, Stat, WatchedEvent};

use super::{Event, interrupted, node_event};
use crate::depart::read_list;
use crate::error::failed;
use crate::paths::{Branches, Tree};
use crate::read::{Frame, Node, View, assemble, found};
use crate::session::{Connection, Link};

/// What a watch was set on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Members,
    Identity(String),
    Load(String),
}

pub(super) struct NodeWatches {
    client: Client,
    branches: Branches,
    interest: Interest,
    /// One for each subject that is watched.
    watches: JoinSet<(Subject, WatchedEvent)>,
    watched: HashSet<Subject>,
    /// A change of the connection ends all.
    links: watch::Receiver<Link>,
}

impl NodeWatches {
    /// Sets them, and reads with that.
    pub(super) async fn set(
        connection: Connection,
        mut links: watch::Receiver<Link>,
        tree: &Tree,
        service: &ServiceName,
        interest: Interest,
    ) -> Result<(Self, View)> {
        links.mark_unchanged();
        let mut watches = Self {
            client: connection.client,
            branches: tree.branches(service),
            interest,
            watches: JoinSet::new(),
            watched: HashSet::new(),
            links,
        };
        let root = tree.services();
        let client = watches.client.clone();
        let (sync, history) = (client.sync(&root), client.check_stat(&root));
        sync.await.map_err(failed)?;
        let history = history.await.map_err(failed)?;
        let keys = watches.keys().await?;
        let parent = found(client.get_data(&watches.branches.services).await)?;
        let (identities, loads) = watches.read(&keys).await?;
        let frame = Frame {
            history,
            service: parent,
            keys,
        };
        Ok((watches, assemble(service, frame, identities, loads)))
    }

    pub(super) async fn next(&mut self) -> Result<Event> {
        tokio::select! {
            biased;
            _ = self.links.changed() => Err(interrupted()),
            Some(told) = self.watches.join_next() => {
                let (subject, event) = told.map_err(|_| interrupted())?;
                node_event(event)?;
                self.watched.remove(&subject);
                Ok(match subject {
                    Subject::Members => Event::Membership,
                    Subject::Identity(key) => Event::Identity(key),
                    Subject::Load(key) => Event::Load(key),
                })
            }
        }
    }

    pub(super) async fn read(&mut self, keys: &[String]) -> Result<(Vec<Node>, Vec<Node>)> {
        let identity = |key: &String| Subject::Identity(key.clone());
        let identities = self
            .read_watched(keys.iter().map(identity).collect())
            .await?;
        if self.interest < Interest::Loads {
            return Ok((identities, vec![None; keys.len()]));
        }
        // Who is not there has no load to wait for.
        let present = keys.iter().zip(&identities);
        let present: Vec<_> = present
            .filter(|(_, identity)| identity.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        let mut loads = self.read_loads(&present).await?.into_iter();
        let of_each = |identity: &Node| identity.as_ref().and_then(|_| loads.next().flatten());
        let loads = identities.iter().map(of_each).collect();
        Ok((identities, loads))
    }

    pub(super) async fn read_loads(&mut self, keys: &[String]) -> Result<Vec<Node>> {
        let loads = |key: &String| Subject::Load(key.clone());
        self.read_watched(keys.iter().map(loads).collect()).await
    }

    pub(super) async fn members(&mut self) -> Result<(HashSet<String>, Vec<Incarnation>)> {
        let keys = self.keys().await?;
        let parent = found(self.client.get_data(&self.branches.services).await)?;
        let departed = parent.and_then(|(data, _)| read_list(&data));
        Ok((keys.into_iter().collect(), departed.unwrap_or_default()))
    }

    /// Reads who is there, and watches for who comes and goes.
    async fn keys(&mut self) -> Result<Vec<String>> {
        let (client, parent) = (self.client.clone(), self.branches.services.clone());
        loop {
            if self.watched.contains(&Subject::Members) {
                let keys = found(client.list_children(&parent).await)?;
                return Ok(keys.unwrap_or_default());
            }
            match client.list_and_watch_children(&parent).await {
                Ok((keys, watcher)) => {
                    self.watch(Subject::Members, watcher);
                    return Ok(keys);
                }
                Err(Native::NoNode) => {}
                Err(error) => return Err(failed(error)),
            }
            let (stat, watcher) = client.check_and_watch_stat(&parent).await.map_err(failed)?;
            // If it was made in between, it is read after all.
            if stat.is_none() {
                self.watch(Subject::Members, watcher);
                return Ok(Vec::new());
            }
        }
    }

    /// Reads `subjects`, pipelined, in their order, and watches those that are not watched yet: a
    /// watch that has not told yet will tell of whatever comes after this.
    async fn read_watched(&mut self, subjects: Vec<Subject>) -> Result<Vec<Node>> {
        let client = self.client.clone();
        let paths: Vec<_> = subjects.iter().map(|subject| self.path(subject)).collect();
        let mut requests = Vec::with_capacity(subjects.len());
        for (subject, path) in subjects.iter().zip(&paths) {
            let is_watched = self.watched.contains(subject);
            // Sent here; awaited below.
            let plain = is_watched.then(|| client.get_data(path));
            let watching = (!is_watched).then(|| client.get_and_watch_data(path));
            requests.push((plain, watching));
        }
        let mut nodes = Vec::with_capacity(subjects.len());
        for ((subject, path), request) in subjects.into_iter().zip(&paths).zip(requests) {
            let node = match request {
                (Some(plain), _) => found(plain.await)?,
                (_, Some(watching)) => match found(watching.await)? {
                    Some((data, stat, watcher)) => {
                        self.watch(subject, watcher);
                        Some((data, stat))
                    }
                    None => self.await_load(&client, subject, path).await?,
                },
                (None, None) => None,
            };
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// A load may come where there is none; an identity that does is told of by the members.
    async fn await_load(
        &mut self,
        client: &Client,
        subject: Subject,
        path: &str,
    ) -> Result<Option<(Vec<u8>, Stat)>> {
        if matches!(subject, Subject::Identity(_)) {
            return Ok(None);
        }
        let (stat, watcher) = client.check_and_watch_stat(path).await.map_err(failed)?;
        self.watch(subject, watcher);
        match stat {
            None => Ok(None),
            Some(_) => found(client.get_data(path).await),
        }
    }

    fn watch(&mut self, subject: Subject, watcher: OneshotWatcher) {
        self.watched.insert(subject.clone());
        self.watches
            .spawn(async move { (subject, watcher.changed().await) });
    }

    fn path(&self, subject: &Subject) -> String {
        let Branches { services, load, .. } = &self.branches;
        match subject {
            Subject::Members => services.clone(),
            Subject::Identity(key) => format!("{services}/{key}"),
            Subject::Load(key) => format!("{load}/{key}"),
        }
    }
}
