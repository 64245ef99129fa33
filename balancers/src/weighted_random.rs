//! Chance in proportion to weight.

use std::sync::Arc;

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result};

use crate::eligible::weighed;
use crate::left::only;
use crate::sample::Sampler;

/// Picks at random, in proportion to the weights.
///
/// *Pick*: O(1) whatever the weights, one random draw; writes nothing shared. *Rebuild*: O(n), 24
/// bytes for each endpoint.
///
/// *Use it* to split traffic by weight with no state at all: many short-lived clients, or shares
/// that need only hold in the long run. *Not* where requests are few: the share of an endpoint
/// that is due k requests is off by a factor of about 1 / √k; see
/// [`WeightedRoundRobin`](crate::WeightedRoundRobin).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRandom;

impl WeightedRandom {
    /// The algorithm; it has no parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Balancer for WeightedRandom {
    fn name(&self) -> &'static str {
        "weighted_random"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        let sampler = Sampler::new(&weights);
        Ok(Box::new(WeightedRandomPicker { endpoints, sampler }))
    }
}

#[derive(Debug)]
struct WeightedRandomPicker {
    endpoints: Endpoints,
    sampler: Sampler,
}

impl Picker for WeightedRandomPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let index = self.sampler.pick(context, &self.endpoints)?;
        self.endpoints.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, assert_shares, assert_small_sets, weighted};

    #[test]
    fn picks_are_proportional_to_weight() {
        let sets: [&[u32]; 4] = [
            &[100, 100, 100],
            &[1, 2, 3, 4],
            &[5, 1, 1],
            &[1000, 1, 1_000_000, 10_000],
        ];
        for (seed, weights) in sets.into_iter().enumerate() {
            let mut bench = Bench::new(WeightedRandom::new(), &weighted(weights), seed as u64);
            let shares: Vec<f64> = weights.iter().copied().map(f64::from).collect();
            assert_shares(&bench.tally(100_000), &shares);
        }
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(WeightedRandom::new);
    }
}
