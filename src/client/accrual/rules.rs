//! From when on an endpoint is left out, and for how long.

use std::time::Duration;

use plimsoll_balancers::SuccessRates;
use plimsoll_discovery_api::{FailureAlarm, Result};
use tokio::sync::Notify;

use crate::invalid::invalid_config;

/// A clock that counts from the start of a machine can be read so far ahead.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// From when on a client leaves an endpoint out, and for how long.
///
/// A client does so by default, whatever its balancer: what the registry says of a dead server
/// is as old as the server's lease. An endpoint is left out
///
/// - when it [could not be reached](plimsoll_discovery_api::Outcome::Unreachable) once;
/// - when 2 requests in a row [timed out](plimsoll_discovery_api::Outcome::TimedOut);
/// - when 3 in a row were given up by their callers after twice the time in which others answered
///   meanwhile, or one after ten times that, and it answered nobody since;
/// - when 5 in a row failed in whatever way;
/// - when its success rate is far below that of the others, as
///   [`OutlierEjection`](crate::balancers::OutlierEjection) has it.
///
/// After a pause one request tries it, and no second one meanwhile; if it is answered, the endpoint
/// is picked like any other again, and if not, the next pause is longer. A success at any time ends
/// it, and so does a new registration.
///
/// It never stands against failing open: if all are left out, all are picked from, and those that
/// answered, wrongly, are left out only while at least half of the others remain.
///
/// A balancer that [ejects](crate::Balancer::ejects) by itself is left to do so alone.
///
/// Sources: Finagle's *fail fast* and *failure accrual*, gRPC's subchannels in
/// `TRANSIENT_FAILURE`, Envoy's outlier detection.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct FailureAccrual {
    pub(super) failures: u32,
    pub(super) timeouts: u32,
    pub(super) given_up: u32,
    pub(super) first_pause: Duration,
    pub(super) max_pause: Duration,
    pub(super) interval: Duration,
    pub(super) rates: SuccessRates,
}

impl Default for FailureAccrual {
    fn default() -> Self {
        Self {
            failures: 5,
            timeouts: 2,
            given_up: 3,
            first_pause: Duration::from_secs(2),
            max_pause: Duration::from_millis(4_500),
            interval: Duration::from_secs(10),
            rates: SuccessRates::default(),
        }
    }
}

impl FailureAccrual {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many failures in a row are too many, at least 1. Default: 5, as in Envoy: fewer happen
    /// by chance.
    pub fn with_failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// How many requests in a row that timed out are too many, at least 1. Default: 2: each has
    /// cost its caller the whole limit.
    pub fn with_timeouts(mut self, timeouts: u32) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How many requests in a row that were given up after twice the time in which others answered
    /// are too many, at least 1. Default: 3: callers give up for reasons of their own, too.
    pub fn with_given_up(mut self, requests: u32) -> Self {
        self.given_up = requests;
        self
    }

    /// The pause before the first trial, above zero, and the longest, not less, up to a year; each is twice the
    /// one before, less up to a tenth at random. Default: 2 s and 4.5 s, so that a server which is
    /// back has its share within 5 s.
    pub fn with_pauses(mut self, first: Duration, max: Duration) -> Self {
        (self.first_pause, self.max_pause) = (first, max);
        self
    }

    /// How often success rates are compared: above zero, up to a year. Default: 10 s, as in Envoy.
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    pub(in crate::client) fn check(&self) -> Result<()> {
        for (field, count) in [
            ("failure_accrual.failures", self.failures),
            ("failure_accrual.timeouts", self.timeouts),
            ("failure_accrual.given_up", self.given_up),
        ] {
            if count == 0 {
                return Err(invalid_config(field, 0, "is zero"));
            }
        }
        if self.first_pause.is_zero() {
            return Err(invalid_config(
                "failure_accrual.first_pause",
                "0s",
                "is zero",
            ));
        }
        if self.max_pause < self.first_pause {
            let max = format!("{:?}", self.max_pause);
            let why = "is shorter than the first pause";
            return Err(invalid_config("failure_accrual.max_pause", max, why));
        }
        if self.interval.is_zero() {
            return Err(invalid_config("failure_accrual.interval", "0s", "is zero"));
        }
        for (field, span) in [
            ("failure_accrual.max_pause", self.max_pause),
            ("failure_accrual.interval", self.interval),
        ] {
            if span > LONGEST {
                return Err(invalid_config(
                    field,
                    format!("{span:?}"),
                    "is longer than a year",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn alarm(&self) -> FailureAlarm {
        FailureAlarm {
            failures: self.failures,
            timeouts: self.timeouts,
            raised: Notify::new(),
        }
    }
}
