//! Watches on each node, for servers before 3.6: each tells once, and not of more than that
//! something has changed. It is set with what is read, so nothing is missed in between.

use std::collections::{HashMap, HashSet};

use plimsoll_backend_kit::Interest;
use plimsoll_discovery_api::{Incarnation, Result, ServiceName};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use zookeeper_client::{Error as Native, OneshotWatcher, WatchedEvent};

use super::{Event, interrupted, node_event};
use crate::depart::read_list;
use crate::error::{failed_at, unread_at};
use crate::fetch::{Node, found, node};
use crate::paths::{Branches, Tree};
use crate::read::{Frame, View, assemble};
use crate::session::{Connection, Link};

/// What a watch was set on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Members,
    Identity(String),
    Load(String),
}

pub(super) struct NodeWatches {
    pub(super) connection: Connection,
    pub(super) branches: Branches,
    interest: Interest,
    /// One for each subject that is watched.
    watches: JoinSet<(Subject, WatchedEvent)>,
    watched: HashMap<Subject, AbortHandle>,
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
            connection,
            branches: tree.branches(service),
            interest,
            watches: JoinSet::new(),
            watched: HashMap::new(),
            links,
        };
        let root = tree.services();
        let connection = watches.connection.clone();
        let client = &connection.client;
        let (sync, history) = (client.sync(&root), client.check_stat(&root));
        connection.answer(sync).await.map_err(failed_at(&root))?;
        let history = connection.answer(history).await.map_err(failed_at(&root))?;
        let keys = watches.keys().await?;
        let parent = &watches.branches.services;
        let parent = found(parent, connection.answer(client.get_data(parent)).await)?;
        let (identities, loads) = watches.read(&keys).await?;
        let frame = Frame {
            history,
            service: parent,
            keys,
        };
        Ok((watches, assemble(service, frame, identities, loads)))
    }

    pub(super) async fn next(&mut self) -> Result<Event> {
        loop {
            let told = tokio::select! {
                biased;
                _ = self.links.changed() => return Err(interrupted()),
                Some(told) = self.watches.join_next_with_id() => told,
            };
            let (id, (subject, event)) = match told {
                Ok(told) => told,
                // It was given up here.
                Err(ended) if ended.is_cancelled() => continue,
                Err(_) => return Err(interrupted()),
            };
            node_event(event)?;
            if self
                .watched
                .get(&subject)
                .is_none_or(|watch| watch.id() != id)
            {
                continue;
            }
            self.watched.remove(&subject);
            return Ok(match subject {
                Subject::Members => Event::Membership,
                Subject::Identity(key) => Event::Identity(key),
                Subject::Load(key) => Event::Load(key),
            });
        }
    }

    pub(super) async fn read(&mut self, keys: &[String]) -> Result<(Vec<Node>, Vec<Node>)> {
        let identity = |key: &String| Subject::Identity(key.clone());
        let identities = self
            .read_watched(keys.iter().map(identity).collect())
            .await?;
        if self.interest < Interest::Loads {
            return Ok((identities, vec![Ok(None); keys.len()]));
        }
        // Who is not there has no load to wait for.
        let present = keys.iter().zip(&identities);
        let present: Vec<_> = present
            .filter(|(_, identity)| matches!(identity, Ok(Some(_))))
            .map(|(key, _)| key.clone())
            .collect();
        let mut loads = self.read_loads(&present).await?.into_iter();
        let of_each = |identity: &Node| match identity {
            Ok(Some(_)) => loads.next().unwrap_or(Ok(None)),
            _ => Ok(None),
        };
        let loads = identities.iter().map(of_each).collect();
        Ok((identities, loads))
    }

    pub(super) async fn read_loads(&mut self, keys: &[String]) -> Result<Vec<Node>> {
        let loads = |key: &String| Subject::Load(key.clone());
        self.read_watched(keys.iter().map(loads).collect()).await
    }

    pub(super) async fn members(&mut self) -> Result<(HashSet<String>, Vec<Incarnation>)> {
        let keys = self.keys().await?;
        let (connection, parent) = (&self.connection, &self.branches.services);
        let parent = found(
            parent,
            connection.answer(connection.client.get_data(parent)).await,
        )?;
        let departed = parent.and_then(|(data, _)| read_list(&data));
        Ok((keys.into_iter().collect(), departed.unwrap_or_default()))
    }

    /// Reads who is there, and watches for who comes and goes.
    async fn keys(&mut self) -> Result<Vec<String>> {
        let (connection, parent) = (self.connection.clone(), self.branches.services.clone());
        let client = &connection.client;
        loop {
            if self.watched.contains_key(&Subject::Members) {
                let keys = connection.answer(client.list_children(&parent)).await;
                return Ok(found(&parent, keys)?.unwrap_or_default());
            }
            let listed = client.list_and_watch_children(&parent);
            match connection.answer(listed).await {
                Ok((keys, watcher)) => {
                    self.watch(Subject::Members, watcher);
                    return Ok(keys);
                }
                Err(Native::NoNode) => {}
                Err(error) => return Err(unread_at(&parent)(error)),
            }
            let checked = connection
                .answer(client.check_and_watch_stat(&parent))
                .await;
            let (stat, watcher) = checked.map_err(failed_at(&parent))?;
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
        let connection = self.connection.clone();
        let client = &connection.client;
        let paths: Vec<_> = subjects.iter().map(|subject| self.path(subject)).collect();
        let mut requests = Vec::with_capacity(subjects.len());
        for (subject, path) in subjects.iter().zip(&paths) {
            let is_watched = self.watched.contains_key(subject);
            // Sent here; awaited below.
            let plain = is_watched.then(|| client.get_data(path));
            let watching = (!is_watched).then(|| client.get_and_watch_data(path));
            requests.push((plain, watching));
        }
        let mut nodes = Vec::with_capacity(subjects.len());
        let mut awaited = Vec::new();
        for ((subject, path), request) in subjects.into_iter().zip(&paths).zip(requests) {
            let read = match request {
                (Some(plain), _) => connection.answer(plain).await,
                (_, Some(watching)) => {
                    let read = connection.answer(watching).await;
                    if matches!((&subject, &read), (Subject::Load(_), Err(Native::NoNode))) {
                        awaited.push((nodes.len(), subject, path));
                        Err(Native::NoNode)
                    } else {
                        read.map(|(data, stat, watcher)| {
                            self.watch(subject, watcher);
                            (data, stat)
                        })
                    }
                }
                (None, None) => Err(Native::NoNode),
            };
            nodes.push(node(path, read)?);
        }
        self.await_loads(&connection, awaited, &mut nodes).await?;
        Ok(nodes)
    }

    /// A load may come where there is none; an identity that does is told of by the members.
    async fn await_loads(
        &mut self,
        connection: &Connection,
        awaited: Vec<(usize, Subject, &String)>,
        nodes: &mut [Node],
    ) -> Result<()> {
        let client = &connection.client;
        // All sent before any is awaited, here as above: most instances of other programs have none.
        let checks = awaited
            .iter()
            .map(|(.., path)| client.check_and_watch_stat(path));
        let checks: Vec<_> = checks.collect();
        let mut come = Vec::new();
        for ((index, subject, path), check) in awaited.into_iter().zip(checks) {
            let checked = connection.answer(check).await;
            let (stat, watcher) = checked.map_err(failed_at(path))?;
            self.watch(subject, watcher);
            if stat.is_some() {
                come.push((index, path, client.get_data(path)));
            }
        }
        for (index, path, read) in come {
            nodes[index] = node(path, connection.answer(read).await)?;
        }
        Ok(())
    }

    fn watch(&mut self, subject: Subject, watcher: OneshotWatcher) {
        let watched = subject.clone();
        let telling = async move { (subject, watcher.changed().await) };
        let watch = self.watches.spawn(telling);
        self.watched.insert(watched, watch);
    }

    /// Waits no longer for the load under `key`, which nobody is there to have.
    pub(super) fn forget_load(&mut self, key: &str) {
        if let Some(watch) = self.watched.remove(&Subject::Load(key.to_owned())) {
            watch.abort();
        }
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
