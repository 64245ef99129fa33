//! Turning events into changes.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use plimsoll_backend_kit::{Change, Rows, Update, sleep_until_some};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use super::branches::BranchWatches;
use crate::row;

/// Loads that change within this after others were read are read together.
const LOAD_BATCH: Duration = Duration::from_millis(20);

/// Level-triggered: an event only marks what to read, so any number of changes of one node that
/// come while another read is under way cost one more read.
pub(super) struct Follower {
    rows: Rows,
    watches: BranchWatches,
    dirty: HashSet<String>,
    dirty_loads: HashSet<String>,
    loads_due: Option<Instant>,
    /// When loads were last read.
    loads_read: Option<Instant>,
    changes: mpsc::Sender<Update>,
}

impl Follower {
    pub(super) fn new(rows: Rows, watches: BranchWatches, changes: mpsc::Sender<Update>) -> Self {
        Self {
            rows,
            watches,
            dirty: HashSet::new(),
            dirty_loads: HashSet::new(),
            loads_due: None,
            loads_read: None,
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
            () = sleep_until_some(loads_due) => return Ok(()),
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
            Event::Departed(life) => self.rows.note_departed(life),
        }
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
        let vanished = keys
            .iter()
            .zip(&identities)
            .any(|(key, identity)| matches!(identity, Ok(None)) && self.rows.would_be_lost(key));
        // A session takes all its nodes with it in one transaction, whose events come one by one: the
        // loss is to be told whole, not in pieces that would each be judged alone.
        let missing = if vanished {
            self.rows.missing(&self.watches.members().await?)
        } else {
            Vec::new()
        };
        // An event that is older than these answers has arrived before them.
        self.drain().await?;
        for key in missing.into_iter().filter(|key| !keys.contains(key)) {
            let change = self.rows.deleted(&key);
            self.rows.unpublished(&key);
            self.tell(change).await?;
        }
        for ((key, identity), load) in keys.into_iter().zip(identities).zip(loads) {
            match load {
                Ok(Some(load)) => self.rows.note_load(&row::load(&key, &load)),
                _ => self.rows.unpublished(&key),
            }
            let change = match identity {
                Ok(Some(node)) => self.rows.put(&row::identity(&key, &node)),
                Ok(None) => self.rows.deleted(&key),
                Err(closed) => self.rows.unreadable(&key, closed),
            };
            let change = change.or_else(|| self.rows.load(&key).filter(|_| told.contains(&key)));
            self.tell(change).await?;
        }
        Ok(())
    }

    /// A history that began after this subscription did is the one that it has followed all along.
    async fn learn_epoch(&mut self) -> Result<()> {
        if self.rows.revision().epoch() == 0 {
            let epoch = self.watches.epoch().await?;
            self.rows.set_epoch(epoch);
        }
        Ok(())
    }

    async fn read_loads(&mut self) -> Result<()> {
        self.loads_due = None;
        self.loads_read = Some(Instant::now());
        let mut keys: Vec<String> = self.dirty_loads.drain().collect();
        keys.retain(|key| self.rows.shows(key));
        let nodes = self.watches.read_loads(&keys).await?;
        for (key, load) in keys.iter().zip(nodes) {
            // One that may not be read is none.
            let change = match load {
                Ok(Some(load)) => self.rows.published(&row::load(key, &load)),
                _ => {
                    self.rows.unpublished(key);
                    None
                }
            };
            self.tell(change).await?;
        }
        Ok(())
    }

    async fn tell(&self, change: Option<Change>) -> Result<()> {
        let Some(change) = change else {
            return Ok(());
        };
        let update = Update::new(self.rows.revision(), change);
        self.changes
            .send(update)
            .await
            .map_err(|_| Error::new(ErrorKind::Closed, "nobody follows any more"))
    }
}
