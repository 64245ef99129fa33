//! Following the changes of one service.

mod pace;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_backend_kit::{
    Change, Departure, DrivenUpdates, Skipped, Subscription, Update, sleep_until_some,
};
use plimsoll_discovery_api::{Error, ErrorKind, InstanceId, Result, Revision, ServiceName};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::Failure;
use crate::http::agent::{Health, Reading};
use crate::list::{Loads, Reader, Stored, View};
use crate::resolve::{Present, Resolved, resolve};
use crate::watch::pace::{Pace, Share};

/// So many changes may wait for the reader before the next query waits for it.
const BACKLOG: usize = 256;
/// Queries that were answered at once may follow each other so often, and then no faster than this:
/// a change is seen without delay, and a storm of them costs five whole lists a second.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_millis(200);

/// Reading a service takes no more than one part in so many of a processor's time, however large it
/// is and however fast it changes.
const SHARE: u32 = 5;
/// So much of that time may be taken at once: what follows on a quiet time is read without delay.
const SAVED: Duration = Duration::from_millis(50);

/// Loads that could not be read for a reason that waiting rarely cures are read again no sooner.
const PERMANENT_RETRY: Duration = Duration::from_secs(1);

/// How a service is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Following {
    /// How long a query waits at the agent for a change.
    pub(crate) wait: Duration,
    /// How often loads are read; `None` for not at all.
    pub(crate) poll: Option<Duration>,
    /// How long a reading of them may take, once it is its turn.
    pub(crate) limit: Duration,
}

type Query<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Poll = Query<Result<Loads>>;

/// Reads `service` and follows it, without a gap: the next query continues at the index of the list.
pub(crate) async fn subscribe(
    reader: &Arc<Reader>,
    service: &ServiceName,
    following: Following,
) -> Result<Subscription> {
    let view = reader.view(service, following.poll.is_some()).await?;
    let revision = reader.histories.place(service, view.index)?;
    let listing = view.listing(revision);
    let (sender, changes) = mpsc::channel(BACKLOG);
    let View {
        resolved, loads, ..
    } = view;
    let mut follower = Follower {
        reader: Arc::clone(reader),
        service: service.clone(),
        following,
        revision,
        resolved,
        loads: BTreeMap::new(),
        poll_at: following.poll.map(|poll| Instant::now() + poll),
        unread: false,
        pace: Pace::new(BURST, INTERVAL, Instant::now()),
        share: Share::new(SHARE, SAVED, Instant::now()),
        changes: sender,
    };
    match loads {
        Ok(loads) => follower.loads = loads.into_iter().collect(),
        Err(cause) => follower.miss_loads(&cause),
    }
    let updates = DrivenUpdates::new(changes, follower.run());
    Ok(Subscription::new(listing, Box::new(updates)))
}

/// Level-triggered: each answer is the whole service, and what it differs in is told. An answer
/// without a difference, of which Consul gives many, says nothing to anybody.
struct Follower {
    reader: Arc<Reader>,
    service: ServiceName,
    following: Following,
    revision: Revision,
    resolved: Resolved,
    loads: BTreeMap<InstanceId, Stored>,
    poll_at: Option<Instant>,
    /// That loads cannot be read has been said.
    unread: bool,
    pace: Pace,
    share: Share,
    changes: mpsc::Sender<Update>,
}

impl Follower {
    /// Returns why it has come to its end.
    async fn run(mut self) -> Error {
        let Err(cause) = self.follow().await;
        cause
    }

    async fn follow(&mut self) -> Result<Infallible> {
        let mut query = self.query(Instant::now());
        let mut polling: Option<Poll> = None;
        loop {
            let poll_at = self.poll_at.filter(|_| polling.is_none());
            tokio::select! {
                health = &mut query => {
                    let health = health?;
                    let (began, read) = (Instant::now(), health.cost);
                    self.take(health).await?;
                    let now = Instant::now();
                    let rested = self.share.spend(read + (now - began), now);
                    query = self.query(rested);
                }
                loads = finished(polling.as_mut()) => {
                    polling = None;
                    self.poll_at = self.following.poll.map(|poll| Instant::now() + poll);
                    match loads {
                        Ok(loads) => self.take_loads(loads).await?,
                        Err(cause) => self.miss_loads(&cause),
                    }
                }
                () = sleep_until_some(poll_at) => polling = Some(self.poll()),
            }
        }
    }

    /// Asks for what has changed, but not before `earliest`.
    fn query(&mut self, earliest: Instant) -> Query<Result<Health, Failure>> {
        let (reader, service) = (Arc::clone(&self.reader), self.service.clone());
        let (index, wait) = (self.revision.counter(), self.following.wait);
        let not_before = self.pace.take(Instant::now()).max(earliest);
        Box::pin(async move {
            sleep_until_some(Some(not_before)).await;
            let Reader { agent, waits, .. } = &*reader;
            waits.health(agent, &service, index, wait).await
        })
    }

    fn poll(&self) -> Poll {
        let (reader, service) = (Arc::clone(&self.reader), self.service.clone());
        let limit = self.following.limit;
        Box::pin(async move { reader.admitted_loads(&service, Reading::Any, limit).await })
    }

    async fn take(&mut self, health: Health) -> Result<()> {
        let histories = &self.reader.histories;
        self.revision = histories
            .advance(&self.service, self.revision, health.index)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    "the index has gone back; reading anew",
                )
                .with_context("index", health.index.to_string())
                .with_context("seen", self.revision.to_string())
            })?;
        let new = resolve(&self.service, &health.entries);
        let mut changes = self.departures(&new).await?;
        for (id, present) in &new.present {
            let before = self.resolved.present.get(id);
            if before.is_some_and(|before| is_same(before, present)) {
                continue;
            }
            let mut entry = present.entry.clone();
            let stored = self.loads.get(id).map(|stored| stored.value);
            entry.load = stored
                .filter(|value| value.life == entry.incarnation)
                .map(|value| value.load);
            if entry.load.is_none() && self.poll_at.is_some() && !self.unread {
                self.poll_at = Some(Instant::now());
            }
            changes.push(Change::Put(entry));
        }
        let known = |skipped: &&Skipped| !self.resolved.skipped.contains_key(&skipped.key);
        changes.extend(
            new.skipped
                .values()
                .filter(known)
                .cloned()
                .map(Change::Skipped),
        );
        self.resolved = new;
        self.tell(changes).await
    }

    /// What is missing from `new`, and how it went.
    async fn departures(&self, new: &Resolved) -> Result<Vec<Change>> {
        let removed = |key: &str, departure| Change::Removed {
            key: key.to_owned(),
            departure,
        };
        let mended = self.resolved.skipped.keys();
        let mended = mended.filter(|key| !new.skipped.contains_key(*key));
        let mut changes: Vec<_> = mended
            .map(|key| removed(key, Departure::Graceful))
            .collect();
        let gone = self.resolved.present.iter();
        let gone = gone.filter(|(id, _)| !new.present.contains_key(*id));
        let (mut vanished, mut lapsed) = (Vec::new(), Vec::new());
        for (id, present) in gone {
            let life = (id.clone(), present.entry.incarnation);
            if new.critical.contains(&life) {
                lapsed.push(id);
            } else {
                vanished.push((id, present));
            }
        }
        changes.extend(
            lapsed
                .iter()
                .map(|id| removed(id.as_str(), Departure::Unannounced)),
        );
        // Who leaves gives up the id before the service: where the owner lock still stands, the agent
        // has forgotten the service or somebody else has removed it, and its owner lives.
        let locks = if vanished.iter().any(|(_, present)| present.ours) {
            let limit = self.following.limit;
            let locks = self
                .reader
                .admitted_loads(&self.service, Reading::Leader, limit);
            let locks = locks.await;
            if let Err(cause) = &locks {
                tracing::debug!(service = %self.service, %cause, "how they went is not known");
            }
            locks
        } else {
            Ok(Vec::new())
        };
        for (id, present) in vanished {
            let life = present.entry.incarnation;
            let owned =
                |(owner, stored): &(InstanceId, Stored)| owner == id && stored.value.life == life;
            // Where that cannot be known, nobody has announced it.
            let lives = locks.as_ref().map_or(true, |locks| locks.iter().any(owned));
            let departure = if present.ours && lives {
                Departure::Unannounced
            } else {
                Departure::Graceful
            };
            changes.push(removed(id.as_str(), departure));
        }
        Ok(changes)
    }

    /// Keeps the loads that are known: who is there does not depend on them.
    fn miss_loads(&mut self, cause: &Error) {
        if !std::mem::replace(&mut self.unread, true) {
            tracing::warn!(service = %self.service, %cause, "loads not read; trying again");
        }
        if !cause.is_retryable() {
            let soonest = Instant::now() + PERMANENT_RETRY;
            self.poll_at = self.poll_at.map(|poll| poll.max(soonest));
        }
    }

    /// Tells of loads that were written since. Any server may have answered, so what is older than
    /// what was seen is passed over.
    async fn take_loads(&mut self, loads: Loads) -> Result<()> {
        self.unread = false;
        let mut changes = Vec::new();
        let mut seen = std::mem::take(&mut self.loads);
        for (id, stored) in loads {
            let before = seen.remove(&id);
            let news = before.is_none_or(|before| before.modified < stored.modified);
            let stored = before.filter(|_| !news).unwrap_or(stored);
            let present = self.resolved.present.get(&id);
            if news && present.is_some_and(|p| p.entry.incarnation == stored.value.life) {
                changes.push(Change::Load {
                    id: id.clone(),
                    incarnation: stored.value.life,
                    load: stored.value.load,
                });
            }
            self.loads.insert(id, stored);
        }
        if changes.is_empty() {
            // The registry is there: that is news to whoever watches for silence.
            changes.push(Change::Progress);
        }
        self.tell(changes).await
    }

    async fn tell(&self, changes: Vec<Change>) -> Result<()> {
        for change in changes {
            let update = Update::new(self.revision, change);
            let told = self.changes.send(update).await;
            told.map_err(|_| Error::new(ErrorKind::Closed, "nobody follows any more"))?;
        }
        Ok(())
    }
}

fn is_same(one: &Present, other: &Present) -> bool {
    one.entry.incarnation == other.entry.incarnation
        && one.modified == other.modified
        && one.entry.instance == other.entry.instance
}

async fn finished<T>(query: Option<&mut Query<T>>) -> T {
    match query {
        Some(query) => query.await,
        None => std::future::pending().await,
    }
}
