//! Turning events into changes.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::time::Duration;

use plimsoll_backend_kit::{Change, Departure, Listing, Skipped, Update, due};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, InstanceId, Result, Revision, ServiceName,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use super::branches::BranchWatches;
use crate::fetch::Node;
use crate::paths::{id_of, twin_of};
use crate::read::{Seen, load_of, understand};

/// Loads that change within this after others were read are read together.
const LOAD_BATCH: Duration = Duration::from_millis(20);
/// So many announced departures are remembered before those of nobody known are forgotten.
const DEPARTED: usize = 16 * 1024;

/// Level-triggered: an event only marks what to read, so any number of changes of one node that
/// come while another read is under way cost one more read.
pub(super) struct Follower {
    service: ServiceName,
    revision: Revision,
    seen: HashMap<String, Seen>,
    watches: BranchWatches,
    dirty: HashSet<String>,
    dirty_loads: HashSet<String>,
    loads_due: Option<Instant>,
    /// When loads were last read.
    loads_read: Option<Instant>,
    departed: HashSet<Incarnation>,
    changes: mpsc::Sender<Update>,
}

impl Follower {
    pub(super) fn new(
        service: ServiceName,
        watches: BranchWatches,
        seen: HashMap<String, Seen>,
        listing: &Listing,
        changes: mpsc::Sender<Update>,
    ) -> Self {
        Self {
            service,
            revision: listing.revision,
            seen,
            watches,
            dirty: HashSet::new(),
            dirty_loads: HashSet::new(),
            loads_due: None,
            loads_read: None,
            departed: HashSet::new(),
            changes,
        }
    }

    /// Returns why it has come to its end.
    pub(super) async fn run(mut self) -> Error {
        let Err(cause) = self.follow().await;
        cause
    }

    async fn follow(&mut self) -> Result<Infallible> {
        loop {
            // What was marked while something else was read has no event to come.
            if self.dirty.is_empty() {
                self.wait().await?;
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

    /// Waits for an event, or for loads to be read.
    async fn wait(&mut self) -> Result<()> {
        let loads_due = self.loads_due;
        let event = tokio::select! {
            biased;
            event = self.watches.next() => event?,
            () = due(loads_due) => return Ok(()),
        };
        self.note(event);
        Ok(())
    }

    /// Takes in all events that are there.
    async fn drain(&mut self) -> Result<()> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.watches.next() => event?,
                () = std::future::ready(()) => return Ok(()),
            };
            self.note(event);
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Identity(key) => {
                self.dirty.insert(key);
            }
            Event::Load(key) => {
                self.dirty_loads.insert(key);
                let soonest = self.loads_read.map(|read| read + LOAD_BATCH);
                let now = Instant::now();
                self.loads_due
                    .get_or_insert_with(|| soonest.map_or(now, |soonest| soonest.max(now)));
            }
            Event::Departed(life) => self.note_departure(life),
        }
    }

    fn note_departure(&mut self, life: Incarnation) {
        if self.departed.len() >= DEPARTED {
            // Those that were never seen here will not be asked for.
            let lives: HashSet<_> = self.seen.values().map(|seen| seen.incarnation).collect();
            self.departed.retain(|life| lives.contains(life));
        }
        self.departed.insert(life);
    }

    async fn read_identities(&mut self) -> Result<()> {
        self.learn_epoch().await?;
        let keys: Vec<String> = self.dirty.drain().collect();
        // Their loads are read with them.
        let told: HashSet<_> = keys
            .iter()
            .filter_map(|k| self.dirty_loads.take(k))
            .collect();
        let (identities, loads) = self.watches.read(&keys).await?;
        let vanished = keys.iter().zip(&identities).any(|(key, identity)| {
            matches!(identity, Ok(None)) && self.seen.contains_key(key) && !self.announced(key)
        });
        let missing = if vanished {
            self.missing(&keys).await?
        } else {
            Vec::new()
        };
        // An event that is older than these answers has arrived before them.
        self.drain().await?;
        for key in missing {
            self.take_in(&key, Ok(None), Ok(None)).await?;
        }
        for ((key, identity), load) in keys.into_iter().zip(identities).zip(loads) {
            let unchanged = self.take_in(&key, identity, load.clone()).await?;
            if unchanged && told.contains(&key) {
                self.tell_load(&key, load).await?;
            }
        }
        Ok(())
    }

    /// Tells what has become of the node `key`; returns whether it is there as it was.
    async fn take_in(&mut self, key: &str, identity: Node, load: Node) -> Result<bool> {
        let double = twin_of(key).is_some_and(|twin| self.seen.contains_key(&twin));
        let change = match identity {
            Ok(None) => self.removed(key),
            _ if double => {
                self.seen.insert(key.to_owned(), Seen::UNREAD);
                None
            }
            Ok(Some((bytes, stat))) => {
                let (seen, entry) = understand(&self.service, key, &bytes, &stat);
                let newest = self.revision.counter().max(stat.mzxid.unsigned_abs());
                self.revision = Revision::new(self.revision.epoch(), newest);
                if self.seen.insert(key.to_owned(), seen) == Some(seen) {
                    return Ok(true);
                }
                Some(match entry {
                    Ok(mut entry) => {
                        entry.load = load_of(&seen, load);
                        Change::Put(entry)
                    }
                    Err(skipped) => Change::Skipped(skipped),
                })
            }
            Err(closed) => {
                let before = self.seen.insert(key.to_owned(), Seen::UNREAD);
                let change = Change::Skipped(Skipped::new(id_of(key), closed));
                (before != Some(Seen::UNREAD)).then_some(change)
            }
        };
        if let Some(change) = change {
            self.tell(change).await?;
        }
        Ok(false)
    }

    /// A history that began after this subscription did is the one that it has followed all along.
    async fn learn_epoch(&mut self) -> Result<()> {
        if self.revision.epoch() == 0 {
            let epoch = self.watches.epoch().await?;
            self.revision = Revision::new(epoch, self.revision.counter());
        }
        Ok(())
    }

    /// What has gone besides `known`. A session takes all its nodes with it in one transaction,
    /// whose events come one by one: the loss is to be told whole, not in pieces that would each be
    /// judged alone.
    async fn missing(&mut self, known: &[String]) -> Result<Vec<String>> {
        let present = self.watches.members().await?;
        let gone = |key: &&String| !present.contains(*key) && !known.contains(key);
        Ok(self.seen.keys().filter(gone).cloned().collect())
    }

    fn announced(&self, key: &str) -> bool {
        let seen = self.seen.get(key).filter(|seen| seen.sound);
        // What no session keeps alive has no session to lose: somebody has meant its deletion.
        seen.is_some_and(|seen| seen.owner == 0 || self.departed.contains(&seen.incarnation))
    }

    fn removed(&mut self, key: &str) -> Option<Change> {
        let announced = self.announced(key);
        let seen = self.seen.remove(key)?;
        self.departed.remove(&seen.incarnation);
        if twin_of(key).is_some_and(|twin| self.seen.contains_key(&twin)) {
            return None;
        }
        let id = id_of(key);
        // It may have stood back behind this one.
        if id != key && self.seen.contains_key(&id) {
            self.seen.remove(&id);
            self.dirty.insert(id.clone());
        }
        Some(Change::Removed {
            key: id,
            departure: if announced {
                Departure::Graceful
            } else {
                Departure::Unannounced
            },
        })
    }

    async fn read_loads(&mut self) -> Result<()> {
        self.loads_due = None;
        self.loads_read = Some(Instant::now());
        let mut keys: Vec<String> = self.dirty_loads.drain().collect();
        keys.retain(|key| self.seen.contains_key(key));
        let nodes = self.watches.read_loads(&keys).await?;
        for (key, node) in keys.iter().zip(nodes) {
            self.tell_load(key, node).await?;
        }
        Ok(())
    }

    async fn tell_load(&mut self, key: &str, load: Node) -> Result<()> {
        let Some(seen) = self.seen.get(key).filter(|seen| seen.sound) else {
            return Ok(());
        };
        let (Some(load), Ok(id)) = (load_of(seen, load), id_of(key).parse::<InstanceId>()) else {
            return Ok(());
        };
        let incarnation = seen.incarnation;
        self.tell(Change::Load {
            id,
            incarnation,
            load,
        })
        .await
    }

    async fn tell(&mut self, change: Change) -> Result<()> {
        let update = Update::new(self.revision, change);
        self.changes
            .send(update)
            .await
            .map_err(|_| Error::new(ErrorKind::Closed, "nobody follows any more"))
    }
}
