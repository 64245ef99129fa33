//! Uniform choice.

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result};
use std::sync::Arc;

use crate::eligible::eligible;
use crate::sample::Sampler;

/// Picks uniformly at random, whatever the weights (zero aside: weight zero gets no traffic).
///
/// *Pick*: O(1), one random draw; writes nothing shared. *Rebuild*: O(n), to read the weights; the
/// list is copied only where one is zero.
///
/// *Use it* when there are so many requests per endpoint that chance evens out, when clients come
/// and go too quickly to keep a position, or as a baseline. *Not* when requests differ much in
/// cost: with n requests on n endpoints the fullest has about ln n / ln ln n of them, against
/// ln ln n / ln 2 with [`LeastRequest`](crate::LeastRequest)
/// ([Mitzenmacher, Richa, Sitaraman 2001](https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf)).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Random;

impl Random {
    /// The algorithm; it has no parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Balancer for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        let sampler = Sampler::even(endpoints.len());
        Ok(Box::new(RandomPicker { endpoints, sampler }))
    }
}

#[derive(Debug)]
struct RandomPicker {
    endpoints: Endpoints,
    sampler: Sampler,
}

impl Picker for RandomPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.is_empty() {
            return None;
        }
        let index = self.sampler.pick(context, &self.endpoints)?;
        self.endpoints.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, assert_uniform, endpoints};

    #[test]
    fn every_endpoint_is_picked_equally_often() {
        for n in [2, 3, 7, 100] {
            let mut bench = Bench::new(Random::new(), &endpoints(n), 10 + n as u64);
            assert_uniform(&bench.tally(1000 * n));
        }
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        crate::testing::assert_small_sets(Random::new);
    }
}
