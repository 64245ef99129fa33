//! A registry from a driver.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use plimsoll_discovery_api::{
    Capabilities, Error, Instance, Member, PublishedLoad, Registration, Registry, Result, Rng,
    ServiceName, Snapshot, Timestamp, Watch,
};
use tokio::time::Instant;

use crate::admission::bounded;
use crate::follow::Supervisors;
use crate::handle_guard::HandleGuard;
use crate::log::FailureLog;
use crate::operation::named;
use crate::reconciler;
use crate::unfinished::Unfinished;
use crate::{Admission, Class, Driver, Interest, Listing};

/// A [`Registry`] over a [`Driver`].
///
/// Must be used within a tokio runtime, and may be used in several, one after the other or at one
/// time: what is begun in one ends with it. Cheap to clone; clones share the supervisors.
pub struct Backend<D: Driver> {
    driver: Arc<D>,
    admission: Admission,
    supervisors: Arc<Supervisors>,
    handle_guard: HandleGuard,
    failures: FailureLog,
    unfinished: Unfinished,
    /// For jitter alone.
    rng: Arc<Mutex<Rng>>,
}

impl<D: Driver> Backend<D> {
    /// A registry over `driver`.
    #[must_use]
    pub fn new(driver: D) -> Self {
        Self::with_rng(driver, Rng::from_entropy())
    }

    /// A registry over `driver` whose jitter is drawn from `rng`, for tests that must repeat.
    #[must_use]
    pub fn with_rng(driver: D, rng: Rng) -> Self {
        let admission = driver.admission();
        Self {
            admission: admission.unwrap_or_else(|| Admission::new(&driver.timings())),
            driver: Arc::new(driver),
            supervisors: Arc::default(),
            handle_guard: HandleGuard::new(),
            failures: FailureLog::default(),
            unfinished: Unfinished::default(),
            rng: Arc::new(Mutex::new(rng)),
        }
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.driver
    }

    fn follow(&self, service: &ServiceName, interest: Interest) -> Watch {
        self.unfinished.take_up();
        let calls = (&self.driver, &self.admission);
        let shared = (&self.handle_guard, &self.failures);
        self.supervisors
            .watch(calls, service, interest, shared, self.fork_rng())
    }

    fn fork_rng(&self) -> Rng {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        Rng::from_seed(rng.next_u64())
    }

    /// Makes `call` when it is its turn, which is waited for as long again as for its answer: whoever
    /// asks once is told that it takes too long.
    async fn read<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.driver.timings().list_timeout;
        bounded(limit * 2, self.admission.call(Class::Other, limit, call)).await
    }

    fn named(&self, operation: &'static str, error: Error) -> Error {
        named(&*self.driver, operation, error)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Driver> Registry for Backend<D> {
    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    async fn register(&self, instance: Instance) -> Result<Registration> {
        reconciler::check(&*self.driver, &instance).map_err(|e| self.named("register", e))?;
        self.unfinished.take_up();
        let shared = reconciler::Shared {
            handle_guard: self.handle_guard.clone(),
            failures: self.failures.clone(),
            unfinished: self.unfinished.clone(),
        };
        let (driver, admission) = (Arc::clone(&self.driver), self.admission.clone());
        Ok(reconciler::spawn(
            driver,
            admission,
            instance,
            shared,
            self.fork_rng(),
        ))
    }

    async fn watch(&self, service: &ServiceName) -> Result<Watch> {
        Ok(self.follow(service, Interest::Loads))
    }

    async fn watch_members(&self, service: &ServiceName) -> Result<Watch> {
        Ok(self.follow(service, Interest::Members))
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.unfinished.take_up();
        let listing = self.read(self.driver.list(service)).await;
        let of = |e: Error| {
            self.named("list", e)
                .with_context("service", service.as_str())
        };
        Ok(snapshot(service.clone(), listing.map_err(of)?))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.unfinished.take_up();
        let services = self.read(self.driver.services()).await;
        let mut services = services.map_err(|e| self.named("services", e))?;
        services.sort_unstable();
        services.dedup();
        Ok(services)
    }
}

fn snapshot(service: ServiceName, listing: Listing) -> Snapshot {
    let now = Timestamp::from(Instant::now().into_std());
    let left_out = listing.entries.iter().map(|entry| entry.left_out.count());
    let left_out = left_out.sum();
    let members = listing.entries.into_iter().map(|entry| {
        let load = PublishedLoad::new();
        if let Some(value) = entry.load {
            load.store(value, now);
        }
        Member::new(Arc::new(entry.instance), entry.incarnation, Arc::new(load))
            .with_registered_at(entry.registered_at)
    });
    Snapshot::new(service, members, listing.revision)
        .with_skipped(listing.skipped.len())
        .with_left_out(left_out)
}

impl<D: Driver> Clone for Backend<D> {
    fn clone(&self) -> Self {
        Self {
            driver: Arc::clone(&self.driver),
            admission: self.admission.clone(),
            supervisors: Arc::clone(&self.supervisors),
            handle_guard: self.handle_guard.clone(),
            failures: self.failures.clone(),
            unfinished: self.unfinished.clone(),
            rng: Arc::clone(&self.rng),
        }
    }
}

impl<D: Driver> fmt::Debug for Backend<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}
