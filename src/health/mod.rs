//! Asking the members of a service whether they can serve.

mod checkers;
mod monitor;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{HealthChecker, Result};

pub use self::checkers::{Constant, TcpConnect};
pub(crate) use self::monitor::Monitor;

use crate::invalid::invalid_config;

/// How, how often and how patiently a [`Client`](crate::Client) checks the members of a service.
///
/// Every member is checked in its own time, whatever its status. A verdict takes several checks
/// in a row; an unhealthy member is not picked while
/// [enough others remain](crate::ClientBuilder::with_fail_open_below), and stays in the snapshot.
/// A member that was not checked yet counts as healthy.
///
/// ```
/// # use std::time::Duration;
/// # use plimsoll::{HealthCheck, TcpConnect};
/// let check = HealthCheck::new(TcpConnect::new()).with_interval(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HealthCheck {
    pub(crate) checker: Arc<dyn HealthChecker>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    pub(crate) max_concurrency: usize,
}

impl HealthCheck {
    /// Checks with `checker`.
    pub fn new(checker: impl HealthChecker) -> Self {
        Self {
            checker: Arc::new(checker),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            max_concurrency: 64,
        }
    }

    /// The pause between two checks of one member, above zero; varied by up to a tenth either
    /// way, so that the clients of a service do not check in step. The first check comes at a
    /// random moment within the first interval. Default: 10 s, so that the checks of a hundred
    /// clients are ten requests a second to each member.
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a check may take, above zero; one that takes longer has failed. Default: 1 s: a
    /// member that takes longer to answer a check is of little use.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many checks in a row must succeed for a member to be healthy, at least 1. Default: 2,
    /// so that one lucky answer ends nothing.
    pub fn with_rise(mut self, checks: u32) -> Self {
        self.rise = checks;
        self
    }

    /// How many checks in a row must fail for a member to be unhealthy, at least 1. Default: 3,
    /// so that a lost packet or two is no verdict.
    pub fn with_fall(mut self, checks: u32) -> Self {
        self.fall = checks;
        self
    }

    /// The most checks under way at once, at least 1; further ones wait, and their wait is not
    /// part of their time. Default: 64, so that checking a large service takes few of the
    /// process's sockets.
    pub fn with_max_concurrency(mut self, checks: usize) -> Self {
        self.max_concurrency = checks;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (field, is_zero) in [
            ("health.interval", self.interval.is_zero()),
            ("health.timeout", self.timeout.is_zero()),
            ("health.rise", self.rise == 0),
            ("health.fall", self.fall == 0),
            ("health.max_concurrency", self.max_concurrency == 0),
        ] {
            if is_zero {
                return Err(invalid_config(field, 0, "is zero"));
            }
        }
        if self.max_concurrency > tokio::sync::Semaphore::MAX_PERMITS {
            let why = "is more than a semaphore holds";
            return Err(invalid_config(
                "health.max_concurrency",
                self.max_concurrency,
                why,
            ));
        }
        Ok(())
    }
}
