//! Following the changes of one service.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{Change, Departure, Subscription, Update, Updates, unescape};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, InstanceId, Result, Revision, ServiceName,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use zookeeper_client::{
    AddWatchMode, Client, Error as Native, EventType, PersistentWatcher, WatchedEvent,
};

use crate::error::failed;
use crate::paths::{Branches, Tree, key_below};
use crate::read::{self, Seen, load_of, read_all, understand};

/// Loads that change within this are read together.
const LOAD_BATCH: Duration = Duration::from_millis(20);
/// So many changes may wait for the reader before those that follow are gathered instead.
const BACKLOG: usize = 256;
/// So many announced departures are remembered before those of nobody known are forgotten.
const DEPARTED: usize = 16 * 1024;

/// Three watches, each on a whole branch: they hold as long as the connection does. The client
/// does not set such watches again after a reconnect, and the server would not make up for what
/// was missed, so with the connection the subscription ends, and another one reads everything.
struct Watchers {
    services: PersistentWatcher,
    load: PersistentWatcher,
    departed: PersistentWatcher,
}

impl Watchers {
    async fn set(client: &Client, branches: &Branches) -> Result<Self> {
        let mode = AddWatchMode::PersistentRecursive;
        let departed = client.watch(&branches.departed, mode);
        let services = client.watch(&branches.services, mode);
        let load = client.watch(&branches.load, mode);
        Ok(Self {
            departed: departed.await.map_err(failed)?,
            services: services.await.map_err(failed)?,
            load: load.await.map_err(failed)?,
        })
    }
}

/// Reads `service` and follows it, without a gap: the watches are set before anything is read.
pub(crate) async fn subscribe(
    client: Client,
    tree: &Tree,
    service: &ServiceName,
) -> Result<Subscription> {
    let branches = tree.branches(service);
    let watchers = Watchers::set(&client, &branches).await?;
    let view = read::view(&client, tree, service).await?;
    let (sender, changes) = mpsc::channel(BACKLOG);
    let follower = Follower {
        client,
        service: service.clone(),
        branches,
        revision: view.listing.revision,
        seen: view.seen,
        watchers,
        dirty: HashSet::new(),
        dirty_loads: HashSet::new(),
        loads_due: None,
        departed: HashSet::new(),
        changes: sender,
    };
    let task = tokio::spawn(follower.run()).abort_handle();
    let updates = Box::new(ZkUpdates { changes, task });
    Ok(Subscription::new(view.listing, updates))
}

/// What the follower has to tell.
#[derive(Debug)]
struct ZkUpdates {
    changes: mpsc::Receiver<Result<Update>>,
    task: AbortHandle,
}

impl Drop for ZkUpdates {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Updates for ZkUpdates {
    async fn next(&mut self) -> Option<Result<Update>> {
        self.changes.recv().await
    }
}

/// Level-triggered: an event only marks what to read, so any number of changes of one node that
/// come while another read is under way cost one more read.
struct Follower {
    client: Client,
    service: ServiceName,
    branches: Branches,
    revision: Revision,
    seen: HashMap<String, Seen>,
    watchers: Watchers,
    dirty: HashSet<String>,
    dirty_loads: HashSet<String>,
    loads_due: Option<Instant>,
    departed: HashSet<Incarnation>,
    changes: mpsc::Sender<Result<Update>>,
}

impl Follower {
    async fn run(mut self) {
        let Err(cause) = self.follow().await;
        let _unread = self.changes.send(Err(cause)).await;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible> {
        loop {
            let due = self.loads_due;
            tokio::select! {
                biased;
                event = self.watchers.departed.changed() => self.note_departure(event)?,
                event = self.watchers.services.changed() => self.note_identity(event)?,
                event = self.watchers.load.changed() => self.note_load(event)?,
                () = async { match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                } } => {}
            }
            self.drain().await?;
            if !self.dirty.is_empty() {
                self.read_identities().await?;
            }
            if self.loads_due.is_some_and(|due| due <= Instant::now()) {
                self.read_loads().await?;
            }
        }
    }

    /// Takes in all events that are there. Departures come last: theirs arrive before the event of
    /// the removal that they announce, so none is missing once that has been seen.
    async fn drain(&mut self) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                event = self.watchers.services.changed() => self.note_identity(event)?,
                event = self.watchers.load.changed() => self.note_load(event)?,
                event = self.watchers.departed.changed() => self.note_departure(event)?,
                () = std::future::ready(()) => return Ok(()),
            }
        }
    }

    fn note_departure(&mut self, event: WatchedEvent) -> Result<()> {
        let event = node_event(event)?;
        if event.event_type == EventType::NodeCreated
            && let Some(key) = key_below(&event.path, &self.branches.departed)
            && let Ok(incarnation) = key.parse()
        {
            if self.departed.len() >= DEPARTED {
                // Those that were never seen here will not be asked for.
                let lives: HashSet<_> = self.seen.values().map(|seen| seen.incarnation).collect();
                self.departed.retain(|life| lives.contains(life));
            }
            self.departed.insert(incarnation);
        }
        Ok(())
    }

    fn note_identity(&mut self, event: WatchedEvent) -> Result<()> {
        let event = node_event(event)?;
        if let Some(key) = key_below(&event.path, &self.branches.services) {
            self.dirty.insert(key.to_owned());
        }
        Ok(())
    }

    fn note_load(&mut self, event: WatchedEvent) -> Result<()> {
        let event = node_event(event)?;
        // The load of a new or departed instance goes with its identity.
        if event.event_type == EventType::NodeDataChanged
            && let Some(key) = key_below(&event.path, &self.branches.load)
        {
            self.dirty_loads.insert(key.to_owned());
            self.loads_due
                .get_or_insert_with(|| Instant::now() + LOAD_BATCH);
        }
        Ok(())
    }

    async fn read_identities(&mut self) -> Result<()> {
        let keys: Vec<String> = self.dirty.drain().collect();
        let paths = |parent: &str| {
            keys.iter()
                .map(|key| format!("{parent}/{key}"))
                .collect::<Vec<_>>()
        };
        let (identities, loads) = (paths(&self.branches.services), paths(&self.branches.load));
        let (identities, loads) = tokio::try_join!(
            read_all(&self.client, &identities),
            read_all(&self.client, &loads)
        )?;
        let vanished = keys.iter().zip(&identities).any(|(key, identity)| {
            identity.is_none() && self.seen.contains_key(key) && !self.announced(key)
        });
        let missing = if vanished {
            self.missing(&keys).await?
        } else {
            Vec::new()
        };
        // An event that is older than these answers has arrived before them.
        self.drain().await?;
        for key in missing {
            if let Some(change) = self.removed(&key) {
                self.tell(change).await?;
            }
        }
        for ((key, identity), load) in keys.into_iter().zip(identities).zip(loads) {
            let change = match identity {
                None => self.removed(&key),
                Some((bytes, stat)) => {
                    let (seen, entry) = understand(&self.service, &key, &bytes, &stat);
                    let newest = self.revision.counter().max(stat.mzxid.unsigned_abs());
                    self.revision = Revision::new(self.revision.epoch(), newest);
                    if self.seen.insert(key, seen) == Some(seen) {
                        continue;
                    }
                    Some(match entry {
                        Ok(mut entry) => {
                            entry.load =
                                load.and_then(|(bytes, stat)| load_of(&seen, &bytes, &stat));
                            Change::Put(entry)
                        }
                        Err(skipped) => Change::Skipped(skipped),
                    })
                }
            };
            if let Some(change) = change {
                self.tell(change).await?;
            }
        }
        Ok(())
    }

    /// What has gone besides `known`. A session takes all its nodes with it in one transaction,
    /// whose events come one by one: the loss is to be told whole, not in pieces that would each be
    /// judged alone.
    async fn missing(&self, known: &[String]) -> Result<Vec<String>> {
        let parent = &self.branches.services;
        let (sync, children) = (self.client.sync(parent), self.client.list_children(parent));
        sync.await.map_err(failed)?;
        let present: HashSet<String> = match children.await {
            Ok(keys) => keys.into_iter().collect(),
            Err(Native::NoNode) => HashSet::new(),
            Err(error) => return Err(failed(error)),
        };
        let gone = |key: &&String| !present.contains(*key) && !known.contains(key);
        Ok(self.seen.keys().filter(gone).cloned().collect())
    }

    fn announced(&self, key: &str) -> bool {
        let seen = self.seen.get(key);
        seen.is_some_and(|seen| seen.sound && self.departed.contains(&seen.incarnation))
    }

    fn removed(&mut self, key: &str) -> Option<Change> {
        let announced = self.announced(key);
        let seen = self.seen.remove(key)?;
        self.departed.remove(&seen.incarnation);
        Some(Change::Removed {
            key: unescape(key).unwrap_or_else(|_| key.to_owned()),
            departure: if announced {
                Departure::Graceful
            } else {
                Departure::Unannounced
            },
        })
    }

    async fn read_loads(&mut self) -> Result<()> {
        self.loads_due = None;
        let keys: Vec<String> = self.dirty_loads.drain().collect();
        let paths: Vec<_> = keys
            .iter()
            .map(|key| format!("{}/{key}", self.branches.load))
            .collect();
        let nodes = read_all(&self.client, &paths).await?;
        for (key, node) in keys.iter().zip(nodes) {
            let (Some(seen), Some((bytes, stat))) = (self.seen.get(key), node) else {
                continue;
            };
            let Some(load) = load_of(seen, &bytes, &stat) else {
                continue;
            };
            let Some(id) = unescape(key)
                .ok()
                .and_then(|id| id.parse::<InstanceId>().ok())
            else {
                continue;
            };
            let incarnation = seen.incarnation;
            self.tell(Change::Load {
                id,
                incarnation,
                load,
            })
            .await?;
        }
        Ok(())
    }

    async fn tell(&mut self, change: Change) -> Result<()> {
        let update = Update::new(self.revision, change);
        self.changes
            .send(Ok(update))
            .await
            .map_err(|_| Error::new(ErrorKind::Closed, "nobody follows any more"))
    }
}

/// Any event of the session ends the subscription.
fn node_event(event: WatchedEvent) -> Result<WatchedEvent> {
    if event.event_type == EventType::Session {
        return Err(
            Error::new(ErrorKind::Unavailable, "the connection was interrupted")
                .with_context("state", event.session_state.to_string()),
        );
    }
    Ok(event)
}
