//! Success rates, compared.

use plimsoll_discovery_api::{Error, Result};

use crate::parameter;

/// How success rates are judged by comparison: below the mean less so many standard deviations is
/// too far, as in
/// [Envoy](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRates {
    deviations: f64,
    min_endpoints: usize,
    min_requests: u64,
}

/// 1.9 deviations below the mean, of at least 5 endpoints with 100 requests each. One of five
/// endpoints can be 2 deviations below their mean at most, so 1.9 still works with five.
impl Default for SuccessRates {
    fn default() -> Self {
        Self {
            deviations: 1.9,
            min_endpoints: 5,
            min_requests: 100,
        }
    }
}

impl SuccessRates {
    /// How many standard deviations below the mean are too far (above 0, up to 10), of how many
    /// endpoints at least (2 or more), with how many requests each (1 or more).
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside of these.
    pub fn new(deviations: f64, min_endpoints: usize, min_requests: u64) -> Result<Self> {
        if !(deviations > 0.0 && deviations <= 10.0) {
            let why = "is not above 0 and up to 10";
            return Err(Error::invalid("deviations", deviations, why));
        }
        if min_requests == 0 {
            return Err(Error::invalid("min_requests", 0, "is zero"));
        }
        Ok(Self {
            deviations,
            min_endpoints: parameter::at_least("min_endpoints", min_endpoints, 2)?,
            min_requests,
        })
    }

    /// The share of successes, 0 to 1; `None` if there were too few requests to say.
    #[must_use]
    pub fn of(&self, successes: u64, failures: u64) -> Option<f64> {
        let requests = successes + failures;
        (requests >= self.min_requests).then(|| successes as f64 / requests as f64)
    }

    /// What a rate must not be below; `None` if there are too few to compare, or they are equal.
    #[must_use]
    pub fn floor(&self, rates: impl Iterator<Item = f64>) -> Option<f64> {
        let (mut count, mut sum, mut squares) = (0, 0.0, 0.0);
        for rate in rates {
            count += 1;
            sum += rate;
            squares += rate * rate;
        }
        if count < self.min_endpoints {
            return None;
        }
        let mean = sum / count as f64;
        let deviation = (squares / count as f64 - mean * mean).max(0.0).sqrt();
        // What is left of equal rates after rounding is no deviation.
        (deviation >= 1e-6).then_some(mean - self.deviations * deviation)
    }
}
