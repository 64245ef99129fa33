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

use super::eligible::Eligibility;
use super::random::Randomness;
use super::shared::Shared;
use super::stats::Counters;
use super::updater::{HealthLink, Updater};
use super::{Client, Limits, Tasks, View};
use crate::health::{HealthCheck, Monitor};
use crate::invalid::invalid_config;
use crate::task::OwnedTask;

/// With fewer than half of the endpoints usable, the rest would carry more than twice their load.
const FAIL_OPEN_BELOW: f64 = 0.5;
/// Two failures in a row on different endpoints are rarely the endpoints' fault.
const MAX_ATTEMPTS: u32 = 3;
/// Room for one lost SYN and its retransmission after 1 s
/// ([RFC 6298 section 2](https://www.rfc-editor.org/rfc/rfc6298#section-2)).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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
    max_attempts: u32,
    connect_timeout: Duration,
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
            max_attempts: MAX_ATTEMPTS,
            connect_timeout: CONNECT_TIMEOUT,
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

    /// The most endpoints that [`Client::call`] and [`Client::connect`] try, at least 1.
    /// Default: 3, as two failures in a row on different endpoints are rarely the endpoints'
    /// fault.
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How long [`Client::connect`] waits for one endpoint, the resolution of its name and all
    /// addresses of it included; above zero. Default: 3 s, which leaves room for one lost packet.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
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
        let updater = Updater::new(
            watch,
            self.balancer,
            self.eligibility,
            Arc::clone(&shared),
            health,
        );
        let monitor = self
            .health
            .map(|check| Monitor::new(check, checked, verdicts, shared.randomness.fork()));
        let tasks = Tasks {
            _updater: OwnedTask::spawn(updater.run()),
            _monitor: monitor.map(|monitor| OwnedTask::spawn(monitor.run())),
            limits: Limits {
                max_attempts: self.max_attempts,
                connect_timeout: self.connect_timeout,
            },
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
        if self.max_attempts == 0 {
            return Err(invalid_config("max_attempts", 0, "is zero"));
        }
        if self.connect_timeout.is_zero() {
            return Err(invalid_config("connect_timeout", "0s", "is zero"));
        }
        self.health.as_ref().map_or(Ok(()), HealthCheck::validate)
    }
}
