//! Running the checks.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use plimsoll_discovery_api::{
    Endpoint, Endpoints, Error, ErrorKind, Health, Incarnation, InstanceId, Result, Rng,
};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::HealthCheck;
use super::tally::Tally;

/// Changes nobody's picks: what was not checked yet counts as healthy.
const FIRST_SUCCESS: (Health, Health) = (Health::Unknown, Health::Healthy);

/// Keeps one probe running for each endpoint. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Monitor {
    check: HealthCheck,
    endpoints: watch::Receiver<Endpoints>,
    verdicts: Arc<Notify>,
    rng: Rng,
    permits: Arc<Semaphore>,
    running: HashMap<(InstanceId, Incarnation), AbortHandle>,
    probes: JoinSet<()>,
}

impl Monitor {
    /// Checks what `endpoints` holds, and tells `verdicts` whenever an endpoint's health changed.
    pub(crate) fn new(
        check: HealthCheck,
        endpoints: watch::Receiver<Endpoints>,
        verdicts: Arc<Notify>,
        rng: Rng,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(check.max_concurrency));
        let (running, probes) = (HashMap::new(), JoinSet::new());
        Self {
            check,
            endpoints,
            verdicts,
            rng,
            permits,
            running,
            probes,
        }
    }

    /// Returns when no more endpoints will come.
    pub(crate) async fn run(mut self) {
        self.endpoints.mark_changed();
        loop {
            tokio::select! {
                changed = self.endpoints.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let endpoints = Arc::clone(&self.endpoints.borrow_and_update());
                    self.follow(&endpoints);
                }
                // Probes end by being aborted; collecting them frees what they held.
                Some(_) = self.probes.join_next() => {}
            }
        }
    }

    fn follow(&mut self, endpoints: &Endpoints) {
        let mut former = std::mem::take(&mut self.running);
        for endpoint in endpoints.iter() {
            let identity = (endpoint.id().clone(), endpoint.incarnation());
            let probe = former
                .remove(&identity)
                .unwrap_or_else(|| self.probe(endpoint));
            self.running.insert(identity, probe);
        }
        former.into_values().for_each(|gone| gone.abort());
    }

    fn probe(&mut self, endpoint: &Arc<Endpoint>) -> AbortHandle {
        let probe = Probe {
            check: self.check.clone(),
            endpoint: Arc::clone(endpoint),
            verdicts: Arc::clone(&self.verdicts),
            permits: Arc::clone(&self.permits),
            rng: Rng::from_seed(self.rng.next_u64()),
        };
        self.probes.spawn(probe.run())
    }
}

/// Checks one endpoint again and again.
#[derive(Debug)]
struct Probe {
    check: HealthCheck,
    endpoint: Arc<Endpoint>,
    verdicts: Arc<Notify>,
    permits: Arc<Semaphore>,
    rng: Rng,
}

impl Probe {
    async fn run(mut self) {
        let mut tally = Tally::default();
        let mut pause = scale(self.check.interval, self.rng.next_f64());
        loop {
            tokio::time::sleep(pause).await;
            let result = self.check_once().await;
            if let Err(error) = &result {
                tracing::debug!(endpoint = %self.endpoint.id(), %error, "health check failed");
            }
            if let Some(health) = tally.record(result.is_ok(), self.check.rise, self.check.fall) {
                self.conclude(health);
            }
            pause = scale(self.check.interval, 0.9 + 0.2 * self.rng.next_f64());
        }
    }

    fn conclude(&self, health: Health) {
        let before = self.endpoint.health();
        if !self.endpoint.set_health(health) || (before, health) == FIRST_SUCCESS {
            return;
        }
        let (instance, id) = (self.endpoint.instance(), self.endpoint.id());
        let service = instance.service();
        if health == Health::Unhealthy {
            tracing::warn!(%service, %id, "endpoint is unhealthy");
        } else {
            tracing::info!(%service, %id, "endpoint is healthy again");
        }
        self.verdicts.notify_one();
    }

    async fn check_once(&self) -> Result<()> {
        let _permit = self.permits.acquire().await;
        let instance = self.endpoint.instance();
        let mut check = pin!(self.check.checker.check(&instance, self.check.timeout));
        // The user's checker must not end the probe, or the last verdict would stand for ever.
        let caught = std::future::poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(cx)))
                .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
        });
        tokio::time::timeout(self.check.timeout, caught)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::TimedOut, "the check took too long")
                    .with_operation("check")
                    .with_context("limit", format!("{:?}", self.check.timeout)))
            })
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Unexpected, "the checker panicked").with_operation("check")
}

/// Cannot overflow, whatever interval was asked for.
fn scale(interval: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(interval.as_secs_f64() * factor).unwrap_or(interval)
}
