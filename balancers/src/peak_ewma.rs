//! Quickest by this client's own measurement.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, PickContext, Picker, Result, Timestamp,
};

use crate::contest;
use crate::eligible::weighed;
use crate::left::only;
use crate::sample::{self, Sampler};

/// Draws `choices` different endpoints at random, in proportion to weight, and picks the one that
/// promises the quickest answer: the least of latency times one plus the requests of this client
/// under way there, relative to weight; among equals, the one drawn first
/// ([Finagle's design](https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-least-loaded)).
///
/// The latency is [`Endpoint::peak_latency`], which rises at once when an endpoint slows down,
/// sinks within some 10 s when it recovers, and counts a failure as 5 s, so that failing quickly
/// does not attract traffic. It needs requests to be reported with
/// [`Pick::finish_at`](plimsoll_discovery_api::Pick::finish_at); without it
/// [`Endpoint::latency`] stands in, and without that it is [`LeastRequest`](crate::LeastRequest).
/// What nobody has tried lately sinks towards zero, and so is tried again.
///
/// An endpoint that was never measured gets one request of this client's at a time until it
/// answers.
///
/// *Pick*: O(`choices`): a random draw, a few relaxed loads and an exponential for each, and one
/// reading of the clock; writes nothing shared. *Rebuild*: O(n).
///
/// *Use it* where servers differ in speed for reasons that neither they nor the registry publish:
/// distance, noisy neighbours, a failing disk. *Not* where latency says more of the request than
/// of the server: long polls, streams, or methods of very different cost on one client.
#[derive(Clone, Debug)]
pub struct PeakEwma {
    choices: usize,
}

/// Two bring nearly all the gain; see [`sample::MAX_CHOICES`].
const DEFAULT_CHOICES: usize = 2;

/// Stands for the latency, in seconds, of an endpoint that has yet to answer for the first time:
/// worse than any that has.
const UNPROVEN: f64 = 1e12;

impl PeakEwma {
    /// With two choices.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            choices: DEFAULT_CHOICES,
        }
    }

    /// With this many candidates in each pick: 2 to 8. Default: 2. More than there are endpoints
    /// means all of them.
    ///
    /// More help where a large share of the endpoints is slow: with a share f of them slow, f to
    /// the power of `choices` of all picks meet only slow ones.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_choices(mut self, choices: usize) -> Result<Self> {
        self.choices = sample::choices(choices)?;
        Ok(self)
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for PeakEwma {
    fn name(&self) -> &'static str {
        "peak_ewma"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        Ok(Box::new(PeakEwmaPicker {
            sampler: Sampler::new(&weights),
            per_request: contest::per_request(&weights),
            endpoints,
            choices: self.choices,
        }))
    }
}

#[derive(Debug)]
struct PeakEwmaPicker {
    endpoints: Endpoints,
    sampler: Sampler,
    per_request: Box<[f64]>,
    choices: usize,
}

impl Picker for PeakEwmaPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let drawn = self
            .sampler
            .candidates(context, &self.endpoints, self.choices);
        let now = context.now();
        let costs = drawn
            .as_slice()
            .iter()
            .map(|&index| (index, self.cost(index, now)));
        // `min_by` keeps the first of several minima.
        let (index, _) = costs.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        self.endpoints.get(index)
    }
}

impl PeakEwmaPicker {
    /// In seconds.
    #[inline]
    fn cost(&self, index: usize, now: Timestamp) -> f64 {
        let endpoint = &self.endpoints[index];
        let under_way = f64::from(endpoint.in_flight());
        let latency = match endpoint.peak_latency(now).or_else(|| endpoint.latency()) {
            Some(latency) => latency.as_secs_f64(),
            None if under_way == 0.0 => 0.0,
            None => UNPROVEN,
        };
        latency * (1.0 + under_way * self.per_request[index])
    }
}

#[cfg(test)]
mod tests;
