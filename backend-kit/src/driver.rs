//! What a registry must be able to do for the shared machinery to run on it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_discovery_api::{Capabilities, Error, Incarnation, Result, ServiceName};

use crate::{Admission, Interest, Listing, Record, Release, Subscription, Task, Timings};

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
