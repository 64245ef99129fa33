//! Taking turns by how much servers say they can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, Error, PickContext, Picker, Result, Rng, Timestamp,
};

use crate::eligible::eligible;
use crate::left::only;
use crate::turn::MAX_PASSES;
use crate::{hash, parameter};

mod stride;

use stride::{Counter, Table};

/// Takes turns in proportion to what each server achieves with what it has: the requests it serves
/// in a second over the part of its capacity that takes
/// ([gRPC's A58](https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md)).
///
/// weight = requests per second / (utilization + errors / requests · penalty)
///
/// The numbers are those that servers report in their responses ([`Endpoint::report_utilization`]);
/// the weights that the registry lists do not count, zero aside. A report counts once an endpoint
/// has been reporting for 10 s (blackout), lest the numbers of a server that is just starting
/// mislead, and for 3 min (expiration). An endpoint without a usable one weighs as much as the
/// others on average; while fewer than two have one, turns are equal. Weights are held to 1/10 to
/// 10 times their mean.
///
/// Turns follow gRPC's static stride scheduler: the endpoints are gone round again and again, and
/// each is passed over but for its part of the rounds. In which rounds that is, differs from
/// endpoint to endpoint by the golden ratio, where gRPC knows two groups: so no round is empty. The
/// first turn is drawn at random, and a rebuild goes on from the last one.
///
/// *Pick*: an atomic increment shared by all threads, a division, a reading of the clock, and one
/// to some ten relaxed loads: as many as the largest weight is of the mean. There is no task: the
/// first pick after each second computes the weights, O(n), in the table that others go on using.
/// *Rebuild*: O(n), 4 bytes for each.
///
/// *Use it* where servers report utilization and serve many clients each. *Not* where a client has
/// most of a server's requests under way itself, which this does not look at: see
/// [`LeastLoad`](crate::LeastLoad) and [`LeastRequest`](crate::LeastRequest).
#[derive(Debug)]
pub struct ClientSideWeightedRoundRobin {
    rules: Rules,
    counter: Arc<Counter>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    blackout: Duration,
    expiration: Duration,
    update_period: Duration,
    error_penalty: f64,
}

/// As in A58; more often brings nothing that servers' averages could tell.
const MIN_UPDATE_PERIOD: Duration = Duration::from_millis(100);

impl ClientSideWeightedRoundRobin {
    /// With a first turn at random from the operating system's entropy.
    #[must_use]
    pub fn new() -> Self {
        Self::from_rng(Rng::from_entropy())
    }

    /// With a first turn drawn from `rng`.
    #[must_use]
    pub fn from_rng(mut rng: Rng) -> Self {
        Self {
            rules: Rules {
                blackout: Duration::from_secs(10),
                expiration: Duration::from_secs(180),
                update_period: Duration::from_secs(1),
                error_penalty: 1.0,
            },
            counter: Arc::new(Counter::at(rng.next_u64() >> 32)),
        }
    }

    /// For how long an endpoint must have reported before it counts. Default: 10 s: the time in
    /// which the averages of a server that has just begun become meaningful.
    #[must_use]
    pub const fn with_blackout(mut self, blackout: Duration) -> Self {
        self.rules.blackout = blackout;
        self
    }

    /// For how long a report counts: above zero. Default: 3 min: a server that is asked so seldom
    /// that it does not report more often has hardly changed.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for zero.
    pub fn with_expiration(mut self, expiration: Duration) -> Result<Self> {
        self.rules.expiration = parameter::span("expiration", expiration)?;
        Ok(self)
    }

    /// How often weights are computed: at least 100 ms. Default: 1 s, as servers' averages move no
    /// faster.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) below 100 ms.
    pub fn with_update_period(mut self, period: Duration) -> Result<Self> {
        if period < MIN_UPDATE_PERIOD {
            let why = "is below 100 ms";
            return Err(Error::invalid("update_period", format!("{period:?}"), why));
        }
        self.rules.update_period = period;
        Ok(self)
    }

    /// What part of its capacity a server counts as losing if all requests fail: 0 or more, finite.
    /// Default: 1, so that failing quickly, which takes little, does not pay.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_error_penalty(mut self, penalty: f64) -> Result<Self> {
        if !(0.0..f64::INFINITY).contains(&penalty) {
            return Err(Error::invalid(
                "error_penalty",
                penalty,
                "is negative or not finite",
            ));
        }
        self.rules.error_penalty = penalty;
        Ok(self)
    }
}

impl Default for ClientSideWeightedRoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for ClientSideWeightedRoundRobin {
    fn name(&self) -> &'static str {
        "client_side_weighted_round_robin"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        Ok(Box::new(ClientSideWeightedRoundRobinPicker {
            table: Table::even(endpoints.len()),
            endpoints,
            rules: self.rules,
            counter: Arc::clone(&self.counter),
            next_update: AtomicU64::new(0),
        }))
    }
}

impl Rules {
    /// `None` if the endpoint has not reported for long enough, or not lately.
    fn weight(&self, endpoint: &Endpoint, now: Timestamp) -> Option<f64> {
        let report = endpoint.utilization()?;
        if now.since(report.received) >= self.expiration {
            // Whoever reports again after a silence counts as new.
            endpoint.forget_utilization();
            return None;
        }
        let errors = report.errors_per_second / report.requests_per_second;
        let cost = report.utilization + errors * self.error_penalty;
        let weight = report.requests_per_second / cost;
        let counts = now.since(report.since) >= self.blackout;
        (counts && weight.is_finite() && weight > 0.0).then_some(weight)
    }
}

#[derive(Debug)]
struct ClientSideWeightedRoundRobinPicker {
    endpoints: Endpoints,
    table: Table,
    rules: Rules,
    counter: Arc<Counter>,
    /// In nanoseconds of a [`Timestamp`].
    next_update: AtomicU64,
}

impl Picker for ClientSideWeightedRoundRobinPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let now = context.now();
        let due = self.next_update.load(Ordering::Relaxed);
        if now.as_nanos() >= due {
            self.update(due, now);
        }
        if context.exclusion().is_none() {
            return self.endpoints.get(self.table.next(&self.counter));
        }
        self.other(context)
    }
}

impl ClientSideWeightedRoundRobinPicker {
    /// Passes over those that are excluded, whose turns are lost. Where that takes too long, all
    /// are looked at and chance decides, in the same proportions.
    #[cold]
    #[inline(never)]
    fn other(&self, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        for _ in 0..MAX_PASSES {
            let due = &self.endpoints[self.table.next(&self.counter)];
            if !context.excludes(due) {
                return Some(due);
            }
        }
        let (mut least, mut found) = (f64::INFINITY, None);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let wait = hash::wait(context.rng().next_u64()) / self.table.weight(index);
            if wait < least && !context.excludes(endpoint) {
                (least, found) = (wait, Some(endpoint));
            }
        }
        found
    }

    /// Computes the weights, unless another thread has begun to.
    #[cold]
    fn update(&self, due: u64, now: Timestamp) {
        let next = now.after(self.rules.update_period).as_nanos();
        let (next_update, order) = (&self.next_update, Ordering::Relaxed);
        if next_update
            .compare_exchange(due, next, order, order)
            .is_err()
        {
            return;
        }
        let weights = || self.endpoints.iter().map(|e| self.rules.weight(e, now));
        let (count, sum) = weights()
            .flatten()
            .fold((0, 0.0), |(count, sum), weight| (count + 1, sum + weight));
        if count < 2 {
            self.table.make_even();
        } else {
            let mean = sum / f64::from(count);
            let relative = weights().map(|weight| weight.map_or(1.0, |weight| weight / mean));
            self.table.set(relative);
        }
    }
}

#[cfg(test)]
mod tests;
