//! A registry of one service that can lose, cut and reorder what it tells.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_discovery_api::{
    Capabilities, Error, ErrorKind, Incarnation, Instance, Result, Revision, ServiceName,
};
use tokio::sync::mpsc;

use crate::{
    Change, Departure, Driver, Entry, Interest, Listing, Record, Release, Subscription, Timings,
    Update, Updates,
};

pub(super) fn service() -> ServiceName {
    ServiceName::new("s").unwrap()
}

pub(super) fn entry(id: &str, weight: u32) -> Entry {
    let life = Incarnation::from_bits(id.bytes().map(u128::from).sum());
    let instance = Instance::builder("s", "10.0.0.1", 80)
        .with_id(id)
        .with_weight(weight)
        .build()
        .unwrap();
    Entry::new(instance, life)
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) skipped: Vec<crate::Skipped>,
    pub(super) epoch: u64,
    pub(super) counter: u64,
    pub(super) down: bool,
    /// It answers, and refuses with this.
    pub(super) refuses: Option<ErrorKind>,
    /// Changes are made, but not told.
    pub(super) mute: bool,
    /// How long a subscription takes.
    pub(super) slow: Duration,
    /// What each subscription was made for.
    pub(super) subscriptions: Vec<Interest>,
    /// What the registry remembers of deregistrations.
    pub(super) departed: Vec<Incarnation>,
    streams: Vec<mpsc::UnboundedSender<Result<Update>>>,
}

impl Source {
    fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            skipped: Vec::new(),
            epoch: 1,
            counter: 0,
            down: false,
            refuses: None,
            mute: false,
            slow: Duration::ZERO,
            subscriptions: Vec::new(),
            departed: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn revision(&self) -> Revision {
        Revision::new(self.epoch, self.counter)
    }

    fn listing(&self) -> Listing {
        let entries = self.entries.values().cloned().collect();
        Listing::new(self.revision(), entries, self.skipped.clone())
            .with_departed(self.departed.clone())
    }

    pub(super) fn tell(&mut self, change: Change) {
        let follows = self.counter;
        self.counter += 1;
        let update = Update::new(self.revision(), change).following(follows);
        if !self.mute {
            self.streams
                .retain(|stream| stream.send(Ok(update.clone())).is_ok());
        }
    }

    pub(super) fn put(&mut self, entry: Entry) {
        self.entries
            .insert(entry.instance.id().to_string(), entry.clone());
        self.tell(Change::Put(entry));
    }

    pub(super) fn remove(&mut self, id: &str, departure: Departure) {
        if self.entries.remove(id).is_some() {
            self.tell(Change::Removed {
                key: id.to_owned(),
                departure,
            });
        }
    }

    /// Ends every stream, cleanly or not.
    pub(super) fn cut(&mut self, cause: Option<Error>) {
        for stream in self.streams.drain(..) {
            if let Some(cause) = &cause {
                let _gone = stream.send(Err(cause.clone()));
            }
        }
    }

    pub(super) fn followers(&mut self) -> usize {
        self.streams.retain(|stream| !stream.is_closed());
        self.streams.len()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Scripted {
    source: Arc<Mutex<Source>>,
    pub(super) timings: Timings,
}

impl Scripted {
    pub(super) fn new() -> Self {
        let timings = Timings {
            idle: Some(Duration::from_secs(10)),
            ..Timings::default()
        };
        Self {
            source: Arc::new(Mutex::new(Source::new())),
            timings,
        }
    }

    pub(super) fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap()
    }
}

#[derive(Debug)]
struct Stream(mpsc::UnboundedReceiver<Result<Update>>);

#[async_trait]
impl Updates for Stream {
    async fn next(&mut self) -> Option<Result<Update>> {
        self.0.recv().await
    }
}

fn nothing_registers() -> Error {
    Error::new(ErrorKind::Unsupported, "scripted: nothing registers here")
}

#[async_trait]
impl Driver for Scripted {
    type Claim = ();

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("script")
    }

    fn timings(&self) -> Timings {
        self.timings
    }

    fn check(&self, _record: &Record) -> Result<()> {
        Err(nothing_registers())
    }

    async fn claim(&self, _record: &Record, _former: &[Incarnation]) -> Result<()> {
        Err(nothing_registers())
    }

    async fn renew(&self, (): &()) -> Result<()> {
        Err(nothing_registers())
    }

    async fn lost(&self, (): &()) -> Error {
        nothing_registers()
    }

    async fn update(&self, (): &(), _record: &Record) -> Result<()> {
        Err(nothing_registers())
    }

    async fn publish(&self, (): &(), _load: u64) -> Result<()> {
        Err(nothing_registers())
    }

    async fn release(&self, _release: &Release, _claim: Option<&()>) -> Result<()> {
        Err(nothing_registers())
    }

    async fn list(&self, _service: &ServiceName) -> Result<Listing> {
        Ok(self.source().listing())
    }

    async fn subscribe(&self, _: &ServiceName, interest: Interest) -> Result<Subscription> {
        let slow = self.source().slow;
        if slow > Duration::ZERO {
            tokio::time::sleep(slow).await;
        }
        let mut source = self.source();
        source.subscriptions.push(interest);
        if let Some(kind) = source.refuses {
            return Err(Error::new(kind, "scripted: refused"));
        }
        if source.down {
            return Err(Error::new(ErrorKind::Unavailable, "scripted: down"));
        }
        let (stream, updates) = mpsc::unbounded_channel();
        source.streams.push(stream);
        Ok(Subscription::new(
            source.listing(),
            Box::new(Stream(updates)),
        ))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(vec![service()])
    }
}
