//! Setting up a client.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use plimsoll_balancers::LeastLoad;
use plimsoll_discovery_api::{
    Balancer, Clock, Endpoints, Instance, Registry, Result, ServiceName, SystemClock,
};
use tokio::sync::{Notify, watch};

use super::accrual::{Accrual, FailureAccrual};
use super::budget::{Balance, RetryBudget};
use super::eligible::Eligibility;
use super::limits::Limits;
use super::random::Randomness;
use super::shared::Shared;
use super::stats::Counters;
use super::updater::{HealthLink, Updater};
use super::{Client, Tasks, View};
use crate::health::{HealthCheck, Monitor};
use crate::invalid::invalid_config;
use crate::task::OwnedTask;

/// With fewer than half of the endpoints usable, the rest would carry more than twice their load.
const FAIL_OPEN_BELOW: f64 = 0.5;

/// Collects what a [`Client`] is to do; everything is checked in [`build`](Self::build).
#[derive(Debug)]
#[must_use]
pub struct ClientBuilder {
    registry: Arc<dyn Registry>,
    service: Result<ServiceName>,
    balancer: Box<dyn Balancer>,
    follows_load: bool,
    health: Option<HealthCheck>,
    eligibility: Eligibility,
    limits: Limits,
    budget: Option<RetryBudget>,
    accrual: Option<FailureAccrual>,
    seed: Option<u64>,
    clock: Arc<dyn Clock>,
}

impl ClientBuilder {
    pub(super) fn new(registry: Arc<dyn Registry>, service: &str) -> Self {
        let fail_open_below = FAIL_OPEN_BELOW;
        Self {
            registry,
            service: ServiceName::new(service),
            balancer: Box::new(LeastLoad::new()),
            follows_load: false,
            health: None,
            eligibility: Eligibility {
                filters: Vec::new(),
                fail_open_below,
            },
            limits: Limits::default(),
            budget: Some(RetryBudget::default()),
            accrual: Some(FailureAccrual::default()),
            seed: None,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How to choose. Default: [`LeastLoad`], which uses the load that servers publish.
    ///
    /// [`build`](Self::build) tells the balancer what the registry
    /// [can do](Balancer::set_capabilities): how often loads are published and for how long they
    /// hold.
    pub fn with_balancer(mut self, balancer: impl Balancer) -> Self {
        self.balancer = Box::new(balancer);
        self
    }

    /// Follows the load that servers publish though the balancer
    /// [does not read it](Balancer::reads_load), say to show it, or for a balancer of one's own
    /// that claims not to. Default: only if the balancer reads it, as loads are most of what
    /// changes in a registry.
    pub fn with_published_load(mut self) -> Self {
        self.follows_load = true;
        self
    }

    /// Checks every member actively. Default: none; the registry's word is taken.
    pub fn with_health(mut self, check: HealthCheck) -> Self {
        self.health = Some(check);
        self
    }

    /// The share of candidates, 0 to 1, that must be neither unhealthy nor suspect for the others
    /// to be left out; while fewer are, all are picked from. Default: 0.5, as with fewer left the
    /// rest would carry more than twice their load. With 0 the others are left out always, even
    /// if none remain; with 1, never.
    pub fn with_fail_open_below(mut self, share: f64) -> Self {
        self.eligibility.fail_open_below = share;
        self
    }

    /// Picks only instances that pass. May be given several times: all must pass. Default: none.
    ///
    /// Asked again for every instance at every change of membership, not at each pick. If it
    /// panics, the client keeps the view it has.
    pub fn with_filter(
        mut self,
        filter: impl Fn(&Instance) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.eligibility.filters.push(Box::new(filter));
        self
    }

    /// From when on an endpoint that fails is left out, and for how long. Default:
    /// [`FailureAccrual::default`].
    pub fn with_failure_accrual(mut self, rules: FailureAccrual) -> Self {
        self.accrual = Some(rules);
        self
    }

    /// Leaves nobody out for having failed. The registry's word is taken, and that of
    /// [checks](Self::with_health); a server that dies is picked until its lease has ended.
    pub fn without_failure_accrual(mut self) -> Self {
        self.accrual = None;
        self
    }

    /// The most attempts of one [`Client::call`] or [`Client::connect`], at least 1; with 1,
    /// nothing is repeated. Those that could not reach their endpoint do not count. Default: 3, as
    /// two failures in a row on different endpoints are rarely the endpoints' fault.
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.limits.max_attempts = attempts;
        self
    }

    /// How many retries there may be beside the calls. Default: [`RetryBudget::default`]: a fifth
    /// of the calls, and 3 a second.
    pub fn with_retry_budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Lets every call make all the attempts it may, however many calls fail.
    pub fn without_retry_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// How long each attempt of a [`Client::call`] may take, above zero. Beyond it counts as a
    /// failure of the endpoint, and an [idempotent](super::PickRequest::idempotent) request is
    /// tried elsewhere. Default: 10 s, longer than anybody waits for a page.
    ///
    /// A timeout of your own round the whole call does less: it drops the attempt, nothing is tried
    /// elsewhere, and only [several in a row](FailureAccrual) speak against the endpoint.
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.limits.attempt_timeout = Some(timeout);
        self
    }

    /// Lets an attempt take as long as the [call](Self::with_call_timeout) may.
    pub fn without_attempt_timeout(mut self) -> Self {
        self.limits.attempt_timeout = None;
        self
    }

    /// How long a [`Client::call`] or [`Client::connect`] may take in all, retries and pauses
    /// included, above zero. What it cuts off short of the time of an attempt counts as cancelled.
    /// Default: 20 s: an attempt that is not answered, and one elsewhere.
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.limits.call_timeout = Some(timeout);
        self
    }

    /// Lets a call take as long as its attempts do, and go on for as long as the
    /// [retry budget](Self::with_retry_budget) lasts; where a service has one instance, for ever.
    pub fn without_call_timeout(mut self) -> Self {
        self.limits.call_timeout = None;
        self
    }

    /// How long a [`Client::call`] or [`Client::connect`] waits for an endpoint where there is
    /// none; with zero it fails at once. Default: 5 s, in which a process restarts.
    pub fn with_endpoint_wait(mut self, wait: Duration) -> Self {
        self.limits.endpoint_wait = wait;
        self
    }

    /// How long [`Client::connect`] waits for one endpoint, the resolution of its name and all
    /// addresses of it included; above zero. Default: 3 s, which leaves room for one lost packet.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// Makes the picks of every run the same, given the same endpoints and the same order of
    /// picks. Default: the operating system's entropy.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Where balancers and latencies read the time. Default: [`SystemClock`].
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks everything and starts the client, in the present tokio runtime. Once that has ended the
    /// client knows no more than it did, and says so: its snapshot is stale.
    ///
    /// The registry need not be up: until its first answer, picks are refused as
    /// [`NotYetKnown`](super::NoEndpointReason::NotYetKnown). What is known already can be picked
    /// at once.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing has been started.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for the name of the service,
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for any other field out of its range,
    /// each naming field and value, before any I/O. Then what [`Registry::watch`] reports.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn build(mut self) -> Result<Client> {
        self.check()?;
        let capabilities = self.registry.capabilities();
        self.balancer.set_capabilities(&capabilities);
        let service = self.service?;
        let watch = if self.balancer.reads_load() || self.follows_load {
            self.registry.watch(&service).await?
        } else {
            self.registry.watch_members(&service).await?
        };
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(View::unknown()),
            generation: AtomicU64::new(0),
            clock: self.clock,
            randomness: Randomness::new(self.seed),
            service,
            watch: watch.clone(),
            counters: Counters::default(),
            changed: Notify::new(),
        });
        let verdicts = Arc::new(Notify::new());
        let (endpoints, checked) = watch::channel::<Endpoints>(Arc::new([]));
        let health = HealthLink {
            endpoints,
            verdicts: Arc::clone(&verdicts),
        };
        let accrual = self
            .accrual
            .map(|rules| Accrual::new(rules, shared.randomness.fork()));
        let budget = self
            .budget
            .map(|budget| Balance::new(budget, shared.clock.now()));
        let updater = Updater::new(
            watch,
            self.balancer,
            self.eligibility,
            Arc::clone(&shared),
            health,
            accrual,
        );
        let monitor = self
            .health
            .map(|check| Monitor::new(check, checked, verdicts, shared.randomness.fork()));
        let tasks = Tasks {
            _updater: OwnedTask::spawn(updater.run()),
            _monitor: monitor.map(|monitor| OwnedTask::spawn(monitor.run())),
            limits: self.limits,
            budget,
        };
        Ok(Client {
            shared,
            tasks: Arc::new(tasks),
        })
    }

    fn check(&self) -> Result<()> {
        if let Err(error) = &self.service {
            return Err(error.clone());
        }
        let share = self.eligibility.fail_open_below;
        if !(0.0..=1.0).contains(&share) {
            return Err(invalid_config(
                "fail_open_below",
                share,
                "is not between 0 and 1",
            ));
        }
        self.limits.check()?;
        self.budget.as_ref().map_or(Ok(()), RetryBudget::check)?;
        self.accrual
            .as_ref()
            .map_or(Ok(()), FailureAccrual::check)?;
        self.health.as_ref().map_or(Ok(()), HealthCheck::validate)
    }
}
