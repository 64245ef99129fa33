//! What every case needs: a service of its own, processes, and patience with a limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::observer::{Observer, show};
use super::{Faults, Harness, Timing};
use crate::{
    Incarnation, Instance, InstanceBuilder, InstanceId, Member, Registration, RegistrationState,
    Registry, Result, ServiceName, Snapshot, Watch,
};

/// One case at work.
pub(super) struct Scene<'h> {
    harness: &'h dyn Harness,
    pub(super) timing: Timing,
    pub(super) service: ServiceName,
}

impl<'h> Scene<'h> {
    pub(super) fn new(harness: &'h dyn Harness) -> Self {
        let timing = harness.timing();
        assert!(
            timing.recovery < timing.grace && timing.settle < timing.grace,
            "the harness must give a grace above recovery and settle: {timing:?}"
        );
        let service = name(&format!("conformance-{:032x}", crate::rng::entropy()));
        Self {
            harness,
            timing,
            service,
        }
    }

    /// A handle of a process of its own.
    pub(super) async fn process(&self) -> Arc<dyn Registry> {
        self.harness.registry().await
    }

    pub(super) fn faults(&self) -> &'h dyn Faults {
        self.harness.faults()
    }

    /// A service whose name continues that of the case.
    pub(super) fn sibling(&self, suffix: &str) -> ServiceName {
        name(&format!("{}{suffix}", self.service))
    }

    pub(super) fn builder(&self, id: &str) -> InstanceBuilder {
        Instance::builder(&self.service, "10.1.2.3", 8080).with_id(id)
    }

    /// Registers, and checks that the caller is not kept waiting.
    pub(super) async fn register(
        &self,
        process: &dyn Registry,
        instance: &Instance,
    ) -> Registration {
        match timeout(self.timing.settle, process.register(instance.clone())).await {
            Ok(Ok(registration)) => registration,
            Ok(Err(error)) => panic!("registering {instance:?} was refused: {error}"),
            Err(_) => panic!("register kept its caller for {:?}", self.timing.settle),
        }
    }

    /// Registers the plain instance `id` and waits until it is live.
    pub(super) async fn live(&self, process: &dyn Registry, id: &str) -> Registration {
        let registration = self.register(process, &built(self.builder(id))).await;
        ready(self.timing.settle, &registration).await;
        registration
    }

    /// As [`live`](Self::live) for `m0`, `m1`, … in `range`.
    pub(super) async fn live_many(
        &self,
        process: &dyn Registry,
        range: std::ops::Range<usize>,
    ) -> Vec<Registration> {
        let mut registrations = Vec::new();
        for index in range {
            let instance = built(self.builder(&format!("m{index}")));
            registrations.push(self.register(process, &instance).await);
        }
        for registration in &registrations {
            ready(self.timing.settle, registration).await;
        }
        registrations
    }

    /// Follows the service of the case.
    pub(super) async fn follow(&self, process: &dyn Registry) -> Observer {
        self.follow_named(process, &self.service).await
    }

    pub(super) async fn follow_named(
        &self,
        process: &dyn Registry,
        service: &ServiceName,
    ) -> Observer {
        self.observed(service, process.watch(service)).await
    }

    /// Follows the members of the service of the case, without their loads.
    pub(super) async fn follow_members(&self, process: &dyn Registry) -> Observer {
        let watch = process.watch_members(&self.service);
        self.observed(&self.service, watch).await
    }

    async fn observed(
        &self,
        service: &ServiceName,
        watch: impl Future<Output = Result<Watch>> + Send,
    ) -> Observer {
        match timeout(self.timing.settle, watch).await {
            Ok(Ok(watch)) => Observer::new(watch, service.clone()),
            Ok(Err(error)) => panic!("watching {service:?} was refused: {error}"),
            Err(_) => panic!("watch kept its caller for {:?}", self.timing.settle),
        }
    }

    /// Lists the service of the case until the list satisfies `wanted`.
    pub(super) async fn listed(
        &self,
        process: &dyn Registry,
        within: Duration,
        what: &str,
        wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) -> Snapshot {
        self.listed_named(process, &self.service, within, what, wanted)
            .await
    }

    pub(super) async fn listed_named(
        &self,
        process: &dyn Registry,
        service: &ServiceName,
        within: Duration,
        what: &str,
        mut wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) -> Snapshot {
        let deadline = Instant::now() + within;
        loop {
            let seen = match timeout(self.timing.detection, process.list(service)).await {
                Ok(Ok(snapshot)) if wanted(&snapshot) => return snapshot,
                Ok(Ok(snapshot)) => show(&snapshot),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer for {:?}", self.timing.detection),
            };
            assert!(
                Instant::now() < deadline,
                "expected a list with {what} within {within:?}; last seen: {seen}"
            );
            sleep(step(within)).await;
        }
    }

    /// Waits until `process` has noticed the outage: what it asked for before that may be carried out
    /// after it.
    pub(super) async fn noticed(&self, process: &dyn Registry) {
        let deadline = Instant::now() + self.timing.detection;
        while let Ok(Ok(_)) = timeout(self.timing.detection, process.list(&self.service)).await {
            assert!(
                Instant::now() < deadline,
                "expected reads to fail within {:?} of an outage",
                self.timing.detection
            );
            sleep(step(self.timing.detection)).await;
        }
    }

    /// Lists the service of the case for `quiet`, and fails if a list does not satisfy `wanted`.
    pub(super) async fn list_stays(
        &self,
        process: &dyn Registry,
        what: &str,
        mut wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) {
        let deadline = Instant::now() + self.timing.quiet;
        while Instant::now() < deadline {
            match timeout(self.timing.detection, process.list(&self.service)).await {
                Ok(Ok(snapshot)) => {
                    assert!(
                        wanted(&snapshot),
                        "expected {what} to last; seen: {}",
                        show(&snapshot)
                    );
                }
                other => panic!("expected {what} to last; the list came to {other:?}"),
            }
            sleep(step(self.timing.quiet)).await;
        }
    }
}

/// Waits until the instance is in the registry.
pub(super) async fn ready(within: Duration, registration: &Registration) {
    match timeout(within, registration.ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!(
            "{:?} cannot become live: {error}",
            registration.instance().id()
        ),
        Err(_) => panic!(
            "expected {:?} to be live within {within:?}; its state is {:?}",
            registration.instance().id(),
            registration.state()
        ),
    }
}

/// Waits until the state satisfies `wanted`.
pub(super) async fn state_becomes(
    within: Duration,
    registration: &Registration,
    what: &str,
    wanted: impl FnMut(&RegistrationState) -> bool + Send,
) -> RegistrationState {
    let mut states = registration.states();
    match timeout(within, states.wait_for(wanted)).await {
        Ok(Some(state)) => state,
        _ => panic!(
            "expected the state of a registration to become {what} within {within:?}; it is {:?}",
            registration.state()
        ),
    }
}

/// Probes until it gets an `Ok`; an `Err` says what was seen instead.
pub(super) async fn eventually<T: Send>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, String> + Send,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match probe() {
            Ok(found) => return found,
            Err(seen) => assert!(
                Instant::now() < deadline,
                "expected {what} within {within:?}; last seen: {seen}"
            ),
        }
        sleep(step(within)).await;
    }
}

/// Waits until the member publishes `load`.
pub(super) async fn load_becomes(within: Duration, member: &Member, load: u64) {
    eventually(
        within,
        &format!("a published load of {load}"),
        || match member.load().get() {
            Some(seen) if seen == load => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
}

/// Deregisters within the bound, and fails unless it was confirmed.
pub(super) async fn gone(within: Duration, registration: &Registration) {
    match timeout(within, registration.deregister()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("a deregistration failed while all is well: {error}"),
        Err(_) => panic!("a deregistration kept its caller for more than {within:?}"),
    }
}

/// The present life of a registration that must be live.
pub(super) fn life(registration: &Registration) -> Incarnation {
    match registration.state() {
        RegistrationState::Live { incarnation } => incarnation,
        other => panic!("expected a live registration, found {other:?}"),
    }
}

pub(super) fn built(builder: InstanceBuilder) -> Instance {
    match builder.build() {
        Ok(instance) => instance,
        Err(error) => panic!("the suite describes a wrong instance: {error}"),
    }
}

pub(super) fn name(text: &str) -> ServiceName {
    match ServiceName::new(text) {
        Ok(name) => name,
        Err(error) => panic!("the suite uses a wrong name: {error}"),
    }
}

/// The ids of `registrations`.
pub(super) fn ids_of(registrations: &[Registration]) -> Vec<InstanceId> {
    registrations
        .iter()
        .map(|registration| registration.instance().id().clone())
        .collect()
}

/// The member `id`, which must be there.
pub(super) fn member<'s>(snapshot: &'s Snapshot, id: &str) -> &'s Member {
    match snapshot.get(id) {
        Some(member) => member,
        None => panic!("expected a member {id:?} in {}", show(snapshot)),
    }
}

/// Short against any bound, long enough not to burden a server.
fn step(within: Duration) -> Duration {
    (within / 100).clamp(Duration::from_millis(1), Duration::from_millis(50))
}
