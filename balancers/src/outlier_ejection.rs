//! Leaving out endpoints that fail.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, PickContext, Picker, Result, Timestamp,
};

use crate::SuccessRates;
use crate::eligible::eligible;
use crate::parameter;
use crate::repick::pick_other;

mod detector;

use detector::{Detector, Rules, Schedule};

/// Leaves out, for a while, endpoints on which this client's requests fail, whatever the
/// algorithm: those with 5 failures in a row, and those whose success rate stands out among the
/// others' (the rules and numbers of
/// [gRPC's A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md) and
/// [Envoy](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier)).
///
/// A server that fails at once has few requests under way and a splendid latency, and so attracts
/// the more traffic the better an algorithm steers: this is the remedy. It goes by the outcomes
/// reported to [`Pick`](plimsoll_discovery_api::Pick); cancelled requests do not count. Who is left
/// out comes back after 30 s, after its second ejection 60 s, up to 300 s, and up to a tenth more
/// by chance; every evaluation that finds it in forgives one. It comes back with a clean slate.
///
/// At most a tenth of the endpoints, but at least one, is left out at any time, so a fault that
/// all share takes nobody out for long; and while less than half of them are usable (neither
/// ejected nor unhealthy nor suspect), nobody is left out at all: the few would not survive it.
///
/// What is known of an endpoint is kept in the [`Endpoint`], and so survives changes of
/// membership and weights. One such balancer may watch an endpoint, not two.
///
/// The success rate is judged every 10 s by comparison: below the mean less 1.9 standard
/// deviations is out. Where all fail a little, chance alone puts one below the line at times; that
/// costs the traffic of at most a tenth. With fewer than 5 endpoints of 100 requests each within
/// the interval nothing is judged that way.
///
/// In place of one that is ejected, the algorithm picks the next by its own rule: round one that
/// hashes, each key of the one left out goes to its second choice, and returns.
///
/// *Pick*: the inner one, a reading of the clock, and two relaxed loads of the endpoint picked; if
/// that is ejected, the inner one again among the others. There is no task: the pick that finds the
/// interval over evaluates, O(n), and so does the one that ejects; others go on meanwhile.
/// *Rebuild*: the inner one and O(n).
///
/// *Use it* wherever outcomes are reported, round all that compares load or latency. *Not* where
/// failures are the requests' own fault: report those as successes.
#[derive(Debug)]
pub struct OutlierEjection<B> {
    inner: B,
    rules: Rules,
    schedule: Arc<Schedule>,
}

impl<B: Balancer> OutlierEjection<B> {
    /// Round `inner`.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            rules: Rules::default(),
            schedule: Arc::default(),
        }
    }

    /// How many failures in a row are too many: at least 1. Default: 5, as in Envoy: fewer happen
    /// by chance.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for 0.
    pub fn with_consecutive_failures(mut self, failures: u32) -> Result<Self> {
        if failures == 0 {
            return Err(Error::invalid("consecutive_failures", 0, "is zero"));
        }
        self.rules.consecutive_failures = failures;
        Ok(self)
    }

    /// How success rates are judged: how many standard deviations below the mean are too far
    /// (above 0, up to 10), of how many endpoints at least (2 or more), with how many requests
    /// each within the interval (1 or more). Default: 1.9, 5 and 100. One of five endpoints can be
    /// 2 deviations below their mean at most, so 1.9 still works with five.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside of these.
    pub fn with_success_rate(
        mut self,
        deviations: f64,
        min_endpoints: usize,
        min_requests: u64,
    ) -> Result<Self> {
        self.rules.success_rates = SuccessRates::new(deviations, min_endpoints, min_requests)?;
        Ok(self)
    }

    /// How often success rates are judged and ejections forgiven: above zero. Default: 10 s.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for zero.
    pub fn with_interval(mut self, interval: Duration) -> Result<Self> {
        self.rules.interval = parameter::span("interval", interval)?;
        Ok(self)
    }

    /// How long the first ejection lasts, above zero, and how long any may last at most, not less.
    /// Default: 30 s and 300 s: time for a restart, and no longer than an operator would wait.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside of these.
    pub fn with_ejection_time(mut self, first: Duration, max: Duration) -> Result<Self> {
        self.rules.first_ejection = parameter::span("first_ejection", first)?;
        if max < first {
            let why = "is shorter than the first ejection";
            return Err(Error::invalid("max_ejection", format!("{max:?}"), why));
        }
        self.rules.max_ejection = max;
        Ok(self)
    }

    /// The share of the endpoints that may be left out at a time: 0 to 1, rounded down, but one
    /// endpoint always may. Default: 0.1, a loss that the others can carry.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_max_ejected(mut self, share: f64) -> Result<Self> {
        self.rules.max_ejected = parameter::share("max_ejected", share)?;
        Ok(self)
    }

    /// While less than this share of the endpoints is usable, none is left out: 0 (never mind) to
    /// 1. Default: 0.5: below it, the rest would carry more than twice their load.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_panic_below(mut self, share: f64) -> Result<Self> {
        self.rules.panic_below = parameter::share("panic_below", share)?;
        Ok(self)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer> Balancer for OutlierEjection<B> {
    fn name(&self) -> &'static str {
        "outlier_ejection"
    }

    fn reads_load(&self) -> bool {
        self.inner.reads_load()
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.inner.set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        true
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        Ok(Box::new(OutlierEjectionPicker {
            inner: self.inner.build(&endpoints)?,
            detector: Detector::new(self.rules, endpoints, Arc::clone(&self.schedule)),
        }))
    }
}

#[derive(Debug)]
struct OutlierEjectionPicker {
    inner: Box<dyn Picker>,
    detector: Detector,
}

impl Picker for OutlierEjectionPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let now = context.now();
        if self.detector.is_due(now) {
            self.detector.evaluate(now, context.rng());
        }
        if self.detector.panics() {
            return self.inner.pick(context);
        }
        let first = self.inner.pick(context)?;
        if self.detector.admits(first, now, context.rng()) && !context.excludes(first) {
            return Some(first);
        }
        self.other(now, context).or(Some(first))
    }
}

impl OutlierEjectionPicker {
    /// What the inner one picks of those that are not ejected. One that turns out to have failed
    /// too often is ejected on the spot, and another is picked: there are fewer each time.
    #[cold]
    #[inline(never)]
    fn other(&self, now: Timestamp, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        let endpoints = self.detector.endpoints();
        let is_out = |endpoint: &Endpoint| endpoint.ejected_until().is_some_and(|end| now < end);
        for _ in 0..endpoints.len() {
            let other = pick_other(&*self.inner, endpoints, context, &is_out)?;
            if self.detector.admits(other, now, context.rng()) {
                return Some(other);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
