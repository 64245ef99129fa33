//! The driver: calls that pass through the injected faults to the store.

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use plimsoll_backend_kit::{
    Departure, Driver, Interest, Listing, Record, Release, Subscription, Timings, encode, escape,
};
use plimsoll_discovery_api::{Capabilities, Error, ErrorKind, Incarnation, Result, ServiceName};

use crate::plan::{Mode, unreachable};
use crate::store::{Alive, Content, Store};
use crate::updates::StoreUpdates;

#[derive(Debug)]
pub(crate) struct MemoryDriver {
    pub(crate) store: Arc<Store>,
    pub(crate) timings: Timings,
}

/// A record that stands in the store for as long as this does: the "session" of an owner that
/// lives in the same process.
pub(crate) struct MemoryClaim {
    store: Arc<Store>,
    service: ServiceName,
    key: String,
    incarnation: Incarnation,
    alive: Alive,
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        let lives = [self.incarnation];
        self.store
            .lock()
            .release(&self.service, &self.key, &lives, Departure::Unannounced);
    }
}

impl fmt::Debug for MemoryClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryClaim")
            .field("key", &self.key)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

impl MemoryDriver {
    /// Waits out a silence, and fails as planned. `lives` are those of the owner who calls.
    async fn reach(&self, lives: &[Incarnation]) -> Result<()> {
        self.store.lock().plan.calls += 1;
        let mut mode = self.store.mode.subscribe();
        let answered = mode.wait_for(|mode| *mode != Mode::Hung).await;
        if answered.is_ok_and(|mode| *mode == Mode::Down) {
            return Err(unreachable());
        }
        let plan = &mut self.store.lock().plan;
        if let (count @ 1.., Some(kind)) = plan.calls_to_fail {
            plan.calls_to_fail.0 = count - 1;
            return Err(Error::new(kind, "injected"));
        }
        if lives.iter().any(|life| plan.crashed.contains_key(life)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "cut off from the registry",
            ));
        }
        Ok(())
    }

    /// Carries out a write, and loses the reply if that is planned.
    async fn write<T>(
        &self,
        lives: &[Incarnation],
        write: impl FnOnce(&mut Content) -> Result<T> + Send,
    ) -> Result<T> {
        self.reach(lives).await?;
        let (result, lost) = {
            let mut content = self.store.lock();
            let result = write(&mut content);
            let lost = content.plan.replies_to_lose > 0;
            content.plan.replies_to_lose = content.plan.replies_to_lose.saturating_sub(1);
            (result, lost)
        };
        if lost { pending().await } else { result }
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    type Claim = MemoryClaim;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("memory");
        capabilities.propagation = self.timings.coalesce * 2;
        capabilities.load_interval = self.timings.load.min_interval;
        capabilities.load_max_age = self.timings.load.max_age;
        capabilities
    }

    fn timings(&self) -> Timings {
        self.timings
    }

    fn check(&self, record: &Record) -> Result<()> {
        encode(record).map(|_| ())
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<MemoryClaim> {
        let service = record.instance.service().clone();
        let key = escape(record.instance.id().as_str());
        let (incarnation, load) = (record.incarnation, record.load);
        let bytes = encode(record)?;
        let claim =
            |content: &mut Content| content.claim(&service, &key, bytes, incarnation, load, former);
        let lives = [&[incarnation], former].concat();
        let alive = self.write(&lives, claim).await?;
        Ok(MemoryClaim {
            store: Arc::clone(&self.store),
            service,
            key,
            incarnation,
            alive,
        })
    }

    async fn renew(&self, claim: &MemoryClaim) -> Result<()> {
        let MemoryClaim {
            service,
            key,
            incarnation,
            ..
        } = claim;
        self.write(&[*incarnation], |content| {
            content.confirm(service, key, *incarnation)
        })
        .await
    }

    async fn lost(&self, claim: &MemoryClaim) -> Error {
        // Only the end of the record makes this fail.
        while claim.alive.clone().changed().await.is_ok() {}
        let mut mode = self.store.mode.subscribe();
        let _up = mode.wait_for(|mode| *mode == Mode::Up).await;
        Error::new(ErrorKind::LeaseExpired, "the record was removed")
            .with_context("id", &claim.key)
            .with_context("incarnation", claim.incarnation.to_string())
    }

    async fn update(&self, claim: &MemoryClaim, record: &Record) -> Result<()> {
        let MemoryClaim {
            service,
            key,
            incarnation,
            ..
        } = claim;
        let bytes = encode(record)?;
        self.write(&[*incarnation], |content| {
            content.update(service, key, *incarnation, bytes)
        })
        .await
    }

    async fn publish(&self, claim: &MemoryClaim, load: u64) -> Result<()> {
        let MemoryClaim {
            service,
            key,
            incarnation,
            ..
        } = claim;
        let publish = |content: &mut Content| {
            content.plan.load_writes += 1;
            content.publish(service, key, *incarnation, load)
        };
        self.write(&[*incarnation], publish).await
    }

    async fn release(&self, release: &Release, _claim: Option<&MemoryClaim>) -> Result<()> {
        let key = escape(release.id.as_str());
        let remove = |content: &mut Content| {
            let lives = &release.incarnations;
            content.release(&release.service, &key, lives, Departure::Graceful);
            Ok(())
        };
        self.write(&release.incarnations, remove).await
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        self.reach(&[]).await?;
        Ok(self.store.lock().list(service))
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        self.reach(&[]).await?;
        let mut content = self.store.lock();
        let events = content.subscribe(service);
        let listing = content.list(service);
        let store = Arc::clone(&self.store);
        let updates = StoreUpdates::new(store, service.clone(), interest, events);
        Ok(Subscription::new(listing, Box::new(updates)))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.reach(&[]).await?;
        Ok(self.store.lock().names())
    }
}
