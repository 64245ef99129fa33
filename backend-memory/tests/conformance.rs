//! The contract, held against the embedded registry: as it is, behind nested pointers, with
//! outages in which nothing is refused and nothing answered, and in real time on several threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::Timings;
use plimsoll_backend_memory::MemoryRegistry;
use plimsoll_discovery_api::conformance::{Faults, Harness, Oddity, Timing, odd_values};
use plimsoll_discovery_api::{Incarnation, InstanceId, Registry, Result, ServiceName};
use tokio::time::{Instant, sleep};

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
    timing: Timing,
    outage: Outage,
    nested: bool,
    /// When the outage began, and which services there were.
    since: Mutex<Option<(Instant, Vec<ServiceName>)>>,
}

impl MemoryHarness {
    fn new() -> Self {
        Self::build(paused(), Outage::Refusing, |_| {})
    }

    fn nested() -> Self {
        Self {
            nested: true,
            ..Self::new()
        }
    }

    fn silent() -> Self {
        // A subscription is given up after the 3 s that a list may take.
        let timing = paused().with_detection(Duration::from_secs(4));
        Self::build(timing, Outage::Silent, |timings| {
            timings.lease = Some(timing.expiry);
            // The store gives a sign of life every second.
            timings.idle = Some(Duration::from_millis(1_500));
            timings.call_timeout = Duration::from_secs(1);
        })
    }

    fn real_time() -> Self {
        let timing = real();
        Self::build(timing, Outage::Refusing, |timings| {
            timings.renew_interval = Duration::from_millis(300);
            timings.deregister_timeout = Duration::from_secs(1);
            timings.backoff.cap = Duration::from_millis(500);
            timings.load.max_age = Duration::from_millis(500);
            timings.hold_down.grace = timing.grace;
        })
    }

    fn build(timing: Timing, outage: Outage, change: impl FnOnce(&mut Timings)) -> Self {
        let store = MemoryRegistry::builder().with_timings(change).build();
        Self {
            store,
            timing,
            outage,
            nested: false,
            since: Mutex::new(None),
        }
    }

    fn strike(&self) {
        match self.outage {
            Outage::Refusing => self.store.faults().outage(),
            Outage::Silent => self.store.faults().hang(),
        }
    }
}

/// Time costs nothing, so the registry keeps its defaults, and races are run often.
fn paused() -> Timing {
    Timing::new(Duration::from_millis(500))
        .with_detection(Duration::from_secs(3))
        .with_expiry(Duration::from_secs(10))
        .with_recovery(Duration::from_secs(8))
        .with_removal(Duration::from_millis(4_100))
        .with_grace(Duration::from_secs(30))
        .with_rounds(1_000)
}

/// Ceilings for a busy machine; short where a case waits in full.
fn real() -> Timing {
    Timing::new(Duration::from_secs(3))
        .with_quiet(Duration::from_millis(100))
        .with_detection(Duration::from_secs(3))
        .with_expiry(Duration::from_secs(1))
        .with_recovery(Duration::from_secs(3))
        .with_removal(Duration::from_secs(3))
        .with_grace(Duration::from_secs(4))
        .with_rounds(100)
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
        self.timing
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
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = Some((Instant::now(), services));
        self.strike();
    }

    async fn restore(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, services) = since.take().expect("there is an outage");
        // The store knows no leases: what outlasts one is ended here.
        if began.elapsed() >= self.timing.expiry {
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
        let bytes = *b"{\"not\": an instance";
        self.store.faults().poison(service, "broken", bytes);
    }

    /// Entries are bytes here, and nothing else is a stranger's to write: loads are numbers, and names
    /// are names.
    async fn oddity(&self, service: &ServiceName, number: usize) -> Option<Oddity> {
        let (what, bytes) = odd_values().into_iter().nth(number)?;
        let key = format!("odd-{number}");
        self.store.faults().poison(service, &key, bytes);
        Some(Oddity::entry(what))
    }

    /// A record is the life of its owner here: nothing can be copied without it.
    async fn copy(&self, _service: &ServiceName, _id: &InstanceId, _other: &ServiceName) -> bool {
        false
    }

    async fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        load: u64,
    ) -> Result<()> {
        let faults = self.store.faults();
        faults.write_load(service, id, incarnation, load)
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

mod real_time {
    use super::MemoryHarness;

    plimsoll_discovery_api::conformance_tests! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async { MemoryHarness::real_time() }
    }
}
