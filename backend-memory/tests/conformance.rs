//! The contract, held against the embedded registry in paused time: as it is, behind nested
//! pointers, and with outages in which nothing is refused and nothing answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_memory::MemoryRegistry;
use plimsoll_discovery_api::conformance::{Faults, Harness, Timing};
use plimsoll_discovery_api::{Incarnation, InstanceId, Registry, Result, ServiceName};
use tokio::time::{Instant, sleep};

/// What outlasts this expires, as if there were leases.
const LEASE: Duration = Duration::from_secs(10);

/// How an outage looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// Calls are refused and streams broken.
    Refusing,
    /// Calls are not answered and streams say nothing.
    Silent,
}

struct MemoryHarness {
    store: MemoryRegistry,
    nested: bool,
    outage: Outage,
    /// When the outage began, and which services there were.
    since: Mutex<Option<(Instant, Vec<ServiceName>)>>,
}

impl MemoryHarness {
    fn new() -> Self {
        Self::build(false, Outage::Refusing)
    }

    fn nested() -> Self {
        Self::build(true, Outage::Refusing)
    }

    fn silent() -> Self {
        Self::build(false, Outage::Silent)
    }

    fn build(nested: bool, outage: Outage) -> Self {
        let store = MemoryRegistry::builder()
            .with_timings(|timings| {
                // More than the pace of the store's signs of life.
                timings.idle = Some(Duration::from_millis(1_500));
                timings.call_timeout = Duration::from_secs(1);
            })
            .build();
        Self { store, nested, outage, since: Mutex::new(None) }
    }

    fn strike(&self) {
        match self.outage {
            Outage::Refusing => self.store.faults().outage(),
            Outage::Silent => self.store.faults().hang(),
        }
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn registry(&self) -> Arc<dyn Registry> {
        let plain: Arc<dyn Registry> = Arc::new(self.store.sibling());
        if !self.nested {
            return plain;
        }
        let boxed: Box<dyn Registry> = Box::new(plain);
        Arc::new(Arc::new(boxed))
    }

    fn timing(&self) -> Timing {
        Timing::new(Duration::from_millis(500))
            .with_detection(Duration::from_secs(3))
            .with_expiry(LEASE)
            .with_recovery(Duration::from_secs(8))
            .with_removal(Duration::from_millis(4_100))
            .with_grace(Duration::from_secs(30))
            .with_rounds(1_000)
    }

    fn faults(&self) -> &dyn Faults {
        self
    }
}

#[async_trait]
impl Faults for MemoryHarness {
    async fn expire(&self, service: &ServiceName, id: &InstanceId) {
        self.store.faults().expire(service, id);
    }

    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]) {
        for id in ids {
            self.store.faults().crash(service, id);
        }
    }

    async fn outage(&self) {
        let services = self.store.services().await.expect("the registry is up");
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), services));
        self.strike();
    }

    async fn restore(&self) {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (since, services) = since.expect("there is an outage");
        if since.elapsed() >= LEASE {
            for service in &services {
                self.store.faults().expire_all(service);
            }
        }
        self.store.faults().restore();
    }

    async fn wipe(&self) {
        self.strike();
        sleep(Duration::from_millis(20)).await;
        self.store.faults().wipe();
        self.store.faults().restore();
    }

    async fn poison(&self, service: &ServiceName) {
        self.store.faults().poison(service, "broken", "{\"not\": an instance");
    }

    async fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        load: u64,
    ) -> Result<()> {
        self.store.faults().write_load(service, id, incarnation, load)
    }
}

mod plain {
    use super::MemoryHarness;

    plimsoll_discovery_api::conformance_tests! {
        #[tokio::test(start_paused = true)]
        async { MemoryHarness::new() }
    }
}

mod nested {
    use super::MemoryHarness;

    plimsoll_discovery_api::conformance_tests! {
        #[tokio::test(start_paused = true)]
        async { MemoryHarness::nested() }
    }
}

mod silent {
    use super::MemoryHarness;

    plimsoll_discovery_api::conformance_tests! {
        #[tokio::test(start_paused = true)]
        async { MemoryHarness::silent() }
    }
}
