//! What a registry must be able to do for the shared machinery to run on it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use plimsoll_discovery_api::{
    Capabilities, Error, Incarnation, Instance, InstanceId, Result, Revision, ServiceName,
};

use crate::{Admission, Task, Timings};

/// What is to be written of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// What the instance says of itself.
    pub instance: Arc<Instance>,
    /// The life it is written for.
    pub incarnation: Incarnation,
    /// When that life began, by this machine's wall clock.
    pub registered_at: SystemTime,
    /// The load at the time of writing.
    pub load: u64,
}

impl Record {
    /// The record of `instance` in `incarnation`.
    #[must_use]
    pub fn new(
        instance: Arc<Instance>,
        incarnation: Incarnation,
        registered_at: SystemTime,
        load: u64,
    ) -> Self {
        Self {
            instance,
            incarnation,
            registered_at,
            load,
        }
    }
}

/// What is to be removed: whatever stands under the id in one of these incarnations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Release {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub id: InstanceId,
    /// All lives that the registration may have left in the registry; never empty.
    pub incarnations: Vec<Incarnation>,
}

/// The registry-specific part of a backend.
///
/// The machinery calls it from one actor per registration and one supervisor per watched service,
/// admits every call but renewals as the registry is able to answer them, bounds each by
/// [`Timings::call_timeout`] from then on (claims by more, while they are late again and again),
/// repeats what fails, and never has two calls of one registration's lifecycle under way at once (a
/// load write may run beside them). A call that is dropped or times out may have been applied, or may
/// yet be: drivers settle such doubts by the incarnation, and make their writes conditional (on a
/// version, a revision), so that one that arrives late never overwrites what a later one wrote.
///
/// Errors: [`LeaseExpired`](plimsoll_discovery_api::ErrorKind::LeaseExpired) says with authority
/// that the record is gone; [`Conflict`](plimsoll_discovery_api::ErrorKind::Conflict) that a live
/// foreign owner holds the id. Everything else means "not known, try again".
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// What the driver needs to find its record again: paths, versions, a lease.
    type Claim: fmt::Debug + Send + Sync + 'static;

    /// What the registry can do, and its bounds.
    fn capabilities(&self) -> Capabilities;

    /// How the machinery is to time its calls.
    fn timings(&self) -> Timings;

    /// What calls are admitted by, where the driver makes some by itself: a request for each renewal,
    /// a beat of its own. Those that keep something alive are of
    /// [`Class::Liveness`](crate::Class::Liveness). Asked for once. `None`: all are made by the
    /// machinery, which has one of its own.
    fn admission(&self) -> Option<Admission> {
        None
    }

    /// Obtains what claims need and many share, such as a session or a lease, before the turn of each
    /// is waited for: so the time of a claim is that of the claim, and none takes the turn of another
    /// while there is nothing to be had. Has the time of a call; may be dropped at any time.
    ///
    /// # Errors
    /// As on the trait.
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the registry could ever take `record`; no I/O.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) if it could not.
    fn check(&self, record: &Record) -> Result<()>;

    /// Puts `record` into the registry, bound to this process's life.
    ///
    /// If a record of the same incarnation stands there, an earlier attempt had succeeded: it is
    /// brought up to date and adopted. A record of one of the `former` incarnations is this
    /// registration's own and is replaced in one step, so that watchers see no gap. Any other
    /// record is a `Conflict`.
    ///
    /// # Errors
    /// As on the trait.
    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<Self::Claim>;

    /// Confirms that the record stands in its incarnation, and extends its lease where that is
    /// not done otherwise. Resumes a session or reopens a stream before it reports a loss.
    ///
    /// # Errors
    /// As on the trait.
    async fn renew(&self, claim: &Self::Claim) -> Result<()>;

    /// How long the record of `claim` is believed to stand after it was last confirmed, where the
    /// registry has granted less than was asked for. Asked before each use; at most
    /// [`Timings::lease`] counts, and renewals come at least three times as often.
    fn granted_lease(&self, _claim: &Self::Claim) -> Option<Duration> {
        None
    }

    /// Carries out `task` in a runtime of the driver's own, which outlives those of its users; gives
    /// it back where the driver has none.
    ///
    /// # Errors
    /// The task.
    fn carry(&self, task: Task) -> std::result::Result<(), Task> {
        Err(task)
    }

    /// Returns when the driver has learned, with authority, that the record is gone; never
    /// otherwise. Cancel safe.
    async fn lost(&self, claim: &Self::Claim) -> Error;

    /// Replaces the attributes of the record, on condition that it stands in its incarnation.
    ///
    /// # Errors
    /// As on the trait.
    async fn update(&self, claim: &Self::Claim, record: &Record) -> Result<()>;

    /// Publishes the load, on condition that the record stands in its incarnation.
    ///
    /// # Errors
    /// As on the trait.
    async fn publish(&self, claim: &Self::Claim, load: u64) -> Result<()>;

    /// Removes what `release` names, and announces it to watchers as graceful. `claim` is there
    /// if one was obtained. Nothing to remove is success. Once this has returned `Ok`, no earlier
    /// call for these incarnations may take effect any more.
    ///
    /// # Errors
    /// As on the trait.
    async fn release(&self, release: &Release, claim: Option<&Self::Claim>) -> Result<()>;

    /// Reads the entries of `service`, as of now.
    ///
    /// # Errors
    /// As on the trait.
    async fn list(&self, service: &ServiceName) -> Result<Listing>;

    /// Reads the entries of `service` and follows every later change, without a gap between.
    ///
    /// # Errors
    /// As on the trait.
    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription>;

    /// Reads the names of all services that have an entry, in any order.
    ///
    /// # Errors
    /// As on the trait.
    async fn services(&self) -> Result<Vec<ServiceName>>;
}

/// What those who watch a service want to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Interest {
    /// Who is there. Loads may be told or not, whichever is cheaper.
    Members,
    /// That, and how loaded they are.
    Loads,
}

/// One entry of the registry, understood.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// What the instance says of itself.
    pub instance: Instance,
    /// The life it was written for.
    pub incarnation: Incarnation,
    /// When that life began, where the entry says so.
    pub registered_at: Option<SystemTime>,
    /// The load beside it, where one is published.
    pub load: Option<u64>,
    /// What it says beyond the limits of [`Metadata`](plimsoll_discovery_api::Metadata).
    pub left_out: LeftOut,
}

impl Entry {
    /// An entry without registration time or load.
    #[must_use]
    pub fn new(instance: Instance, incarnation: Incarnation) -> Self {
        Self {
            instance,
            incarnation,
            registered_at: None,
            load: None,
            left_out: LeftOut::default(),
        }
    }
}

/// What was left out of the metadata of an entry, as it is beyond the limits. Shows the first keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    count: usize,
    keys: Vec<String>,
}

impl LeftOut {
    /// So many keys are kept, and of each so many characters: a stranger wrote them.
    const KEPT: usize = 5;
    const KEPT_CHARS: usize = 60;

    /// Counts a pair.
    pub fn note(&mut self, key: &str) {
        self.count += 1;
        if self.keys.len() < Self::KEPT {
            self.keys.push(key.chars().take(Self::KEPT_CHARS).collect());
        }
    }

    /// How many pairs.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The first keys, as far as they are shown.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }
}

/// An entry that could not be understood.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// Its key below the service: the instance id, as far as it can be read.
    pub key: String,
    /// What is wrong with it.
    pub cause: Error,
}

impl Skipped {
    /// The entry under `key`, which failed with `cause`.
    #[must_use]
    pub fn new(key: impl Into<String>, cause: Error) -> Self {
        Self {
            key: key.into(),
            cause,
        }
    }
}

/// All entries of a service at one revision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listing {
    /// Where in the registry's history it was read.
    pub revision: Revision,
    /// What could be understood, in any order.
    pub entries: Vec<Entry>,
    /// What could not.
    pub skipped: Vec<Skipped>,
    /// The lives of which the registry still knows that they were deregistered, where it keeps
    /// such a memory: what is missing and named here has not been lost.
    pub departed: Vec<Incarnation>,
}

impl Listing {
    /// The entries at `revision`.
    #[must_use]
    pub fn new(revision: Revision, entries: Vec<Entry>, skipped: Vec<Skipped>) -> Self {
        Self {
            revision,
            entries,
            skipped,
            departed: Vec::new(),
        }
    }

    /// The same, with the lives that are known to have been deregistered.
    #[must_use]
    pub fn with_departed(mut self, departed: Vec<Incarnation>) -> Self {
        self.departed = departed;
        self
    }
}

/// A listing, and what changes from there on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// Where it starts.
    pub listing: Listing,
    /// What follows.
    pub updates: Box<dyn Updates>,
}

impl Subscription {
    /// `updates` to follow on `listing`.
    #[must_use]
    pub fn new(listing: Listing, updates: Box<dyn Updates>) -> Self {
        Self { listing, updates }
    }
}

/// A stream of changes. Dropping it ends what serves it.
#[async_trait]
pub trait Updates: fmt::Debug + Send + 'static {
    /// The next one; `None` or an error ends the subscription, and a new one is made. Cancel safe.
    ///
    /// # Errors
    /// Why the subscription ended.
    async fn next(&mut self) -> Option<Result<Update>>;
}

/// A change, and its place in the registry's history.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Update {
    /// The counter of the revision that the change follows, where the registry tells: if it is
    /// not the one last seen, something was lost on the way, and everything is read again.
    pub follows: Option<u64>,
    /// The revision with the change.
    pub revision: Revision,
    /// What changed.
    pub change: Change,
}

impl Update {
    /// `change` at `revision`, from a registry whose streams have no gaps.
    #[must_use]
    pub fn new(revision: Revision, change: Change) -> Self {
        Self {
            follows: None,
            revision,
            change,
        }
    }

    /// The same, following on the revision with this counter.
    #[must_use]
    pub fn following(mut self, counter: u64) -> Self {
        self.follows = Some(counter);
        self
    }
}

/// What changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Everything: a registry that answers with whole lists.
    Listed(Listing),
    /// An entry came or changed.
    Put(Entry),
    /// An entry went.
    Removed {
        /// Its key below the service: the instance id, or the key of a skipped entry.
        key: String,
        /// How.
        departure: Departure,
    },
    /// An entry came, or changed into one, that cannot be understood.
    Skipped(Skipped),
    /// An instance published its load.
    Load {
        /// The instance.
        id: InstanceId,
        /// The life that published it; a load of another life is dropped.
        incarnation: Incarnation,
        /// The load.
        load: u64,
    },
    /// Nothing, but the stream is alive.
    Progress,
}

/// How an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Departure {
    /// It was deregistered.
    Graceful,
    /// Its lease ended, or the registry does not say how it went.
    Unannounced,
}
