//! Finding the instances of a service and choosing well among them.

mod accrual;
mod attempt;
mod budget;
mod builder;
mod call;
mod call_error;
mod connect;
mod connection;
mod eligible;
mod hash;
mod limits;
mod local;
mod no_endpoint;
mod random;
mod request;
mod shared;
mod stats;
mod timed_pick;
mod trial;
mod updater;
mod view;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll_discovery_api::{Endpoint, Endpoints, Error, Pick, Registry, ServiceName, Snapshot};

pub use self::accrual::FailureAccrual;
pub use self::attempt::{Attempt, AttemptExt};
pub use self::budget::RetryBudget;
pub use self::builder::ClientBuilder;
pub use self::call_error::CallError;
pub(crate) use self::connect::dial;
pub use self::connection::Connection;
pub use self::local::LocalClient;
pub use self::no_endpoint::{NoEndpoint, NoEndpointReason};
pub use self::request::PickRequest;
pub use self::stats::ClientStats;
pub use self::timed_pick::TimedPick;
pub use self::view::View;

use self::budget::Balance;
use self::limits::Limits;
use self::shared::Shared;
use crate::task::OwnedTask;

/// Knows the instances of one service and picks among them.
///
/// One task follows the registry and makes an immutable [`View`] of each change: the set, the
/// health of each member and the balancer's picker are exchanged together, so no pick ever sees
/// half of an update. Picks only read. An outage of the registry changes nothing: the last good
/// set stays, marked stale.
///
/// Cheap to clone; all clones are one client. Its tasks end when the last clone and the last
/// [`LocalClient`] made of it are dropped.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

/// Held for as long as anybody can pick.
#[derive(Debug)]
struct Tasks {
    _updater: OwnedTask<()>,
    _monitor: Option<OwnedTask<()>>,
    limits: Limits,
    /// `None` if retries are not bounded.
    budget: Option<Balance>,
}

impl Client {
    /// Starts a client of `service`. Everything is checked in [`build`](ClientBuilder::build).
    ///
    /// The registry is one of its own, or an `Arc` of one that others use too.
    pub fn builder(registry: impl Registry, service: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(Arc::new(registry), service.as_ref())
    }

    /// Picks an endpoint and counts a request on it until the pick is finished or dropped.
    ///
    /// Neither waits, nor locks, nor allocates (but for what each thread sets up once, at its
    /// first pick). A loop that does little else may save the rest of the cost with
    /// [`local`](Self::local).
    ///
    /// # Errors
    /// [`NoEndpoint`], saying why. [`ready`](Self::ready) waits until that has passed.
    #[inline]
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Pick, NoEndpoint> {
        self.pick_by(request.key(), request.excluded())
    }

    /// In registers; see [`LocalClient`].
    fn pick_by(&self, key: Option<u64>, excluded: &[Arc<Endpoint>]) -> Result<Pick, NoEndpoint> {
        let shared = &*self.shared;
        let view = shared.view.load();
        if !excluded.is_empty() || !view.trials.is_empty() {
            return self.pick_or_try(&view, key, excluded);
        }
        match shared
            .randomness
            .with(|rng| view.first_choice(key, rng, &*shared.clock))
        {
            Some(endpoint) => Ok(Pick::new(Arc::clone(endpoint))),
            None => Err(shared.refuse(&view, view.no_choice())),
        }
    }

    /// Apart, so that picks stay small.
    #[cold]
    #[inline(never)]
    fn pick_or_try(
        &self,
        view: &View,
        key: Option<u64>,
        excluded: &[Arc<Endpoint>],
    ) -> Result<Pick, NoEndpoint> {
        let shared = &*self.shared;
        let picked = shared
            .randomness
            .with(|rng| view.pick_or_try(key, excluded, rng, &*shared.clock));
        match picked {
            Ok((endpoint, is_trial)) => Ok(trial::begin(Arc::clone(endpoint), is_trial)),
            Err(reason) => Err(shared.refuse(view, reason)),
        }
    }

    /// A pick for a call, which knows when it began; a refusal is not counted.
    fn try_pick(
        &self,
        key: Option<u64>,
        excluded: &[Arc<Endpoint>],
    ) -> Result<TimedPick, NoEndpointReason> {
        let shared = &*self.shared;
        let view = shared.view.load();
        shared.randomness.with(|rng| {
            let (endpoint, is_trial) = view.pick_or_try(key, excluded, rng, &*shared.clock)?;
            let pick = trial::begin(Arc::clone(endpoint), is_trial);
            Ok(TimedPick::new(pick, Arc::clone(&shared.clock)))
        })
    }

    #[cold]
    fn refuse(&self, reason: NoEndpointReason) -> NoEndpoint {
        self.shared.refuse(&self.shared.view.load(), reason)
    }

    /// Whether the budget has a retry left; if so it is taken.
    fn may_retry(&self) -> bool {
        let now = self.shared.clock.now();
        self.tasks
            .budget
            .as_ref()
            .is_none_or(|left| left.spend(now))
    }

    /// A handle for one task or thread, which picks at a lower cost.
    #[must_use]
    pub fn local(&self) -> LocalClient {
        LocalClient::new(self.clone())
    }

    /// Waits until something can be picked, for ever if need be; see
    /// [`ready_within`](Self::ready_within).
    ///
    /// By the time it returns the moment may have passed again: a pick may still be refused.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn ready(&self) {
        loop {
            // Listening begins before looking, so that no change falls in between.
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.shared.view.load().nothing().is_none() {
                return;
            }
            changed.await;
        }
    }

    /// [`ready`](Self::ready) for up to `limit`.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`NoEndpoint`] if nothing can be picked by then, saying why; if the registry has not
    /// answered, its last error is the source.
    pub async fn ready_within(&self, limit: Duration) -> Result<(), NoEndpoint> {
        if tokio::time::timeout(limit, self.ready()).await.is_ok() {
            return Ok(());
        }
        let view = self.shared.view.load();
        view.nothing()
            .map_or(Ok(()), |reason| Err(self.shared.no_endpoint(&view, reason)))
    }

    /// The service this is a client of.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.shared.service
    }

    /// All that the client knows now, consistent in itself.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// What the registry last said, and whether that is kept up to date; `None` before its first
    /// answer.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.shared.view.load().snapshot().cloned()
    }

    /// The error of the latest attempt to reach the registry; `None` once one has succeeded, and
    /// before the first has ended.
    #[must_use]
    pub fn last_error(&self) -> Option<Error> {
        self.shared.watch.last_error()
    }

    /// An endpoint for each member of the service, sorted by id, whether it may be picked or not.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        Arc::clone(self.shared.view.load().endpoints())
    }

    /// The client's counters now.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        let view = self.shared.view.load();
        let counters = &self.shared.counters;
        ClientStats {
            members: view.endpoints().len(),
            eligible: view.eligible().len(),
            failing_open: view.is_failing_open(),
            rebuilds: counters.rebuilds.load(Ordering::Relaxed),
            panics: counters.panics.load(Ordering::Relaxed),
            refused: counters.refused(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.shared.service)
            .field("stats", &self.stats())
            .field("limits", &self.tasks.limits)
            .finish_non_exhaustive()
    }
}
