//! Fewest requests of this client's own, by looking at every endpoint.

use std::sync::Arc;

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result, Rng};

use crate::contest::{self, Candidate};
use crate::eligible::weighed;
use crate::left::only;
use crate::sample::Sampler;

/// Looks at all endpoints and picks the one on which this client has the fewest requests under
/// way, relative to its weight. Ties are broken at random, in proportion to weight.
///
/// With unequal weights an endpoint drawn in proportion to weight stands unless another would,
/// with the request added, be no fuller than it is without: so idle endpoints share traffic by
/// weight, and busy ones fill up by weight.
///
/// *Pick*: O(n), one relaxed load for each endpoint, each on cache lines of its own; a random
/// draw or two; writes nothing shared. *Rebuild*: O(n).
///
/// *Use it* for few endpoints and long or costly requests, where one request more or less on an
/// endpoint matters. *Not* for more than some dozens of endpoints:
/// [`LeastRequest`](crate::LeastRequest) comes within a request or two of it in constant time.
/// A server that fails quickly looks idle to it: leave that to health checks.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LeastConnections;

impl LeastConnections {
    /// The algorithm; it has no parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Balancer for LeastConnections {
    fn name(&self) -> &'static str {
        "least_connections"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        let sampler = Sampler::new(&weights);
        let per_request = contest::per_request(&weights);
        Ok(Box::new(LeastConnectionsPicker {
            endpoints,
            sampler,
            per_request,
        }))
    }
}

#[derive(Debug)]
struct LeastConnectionsPicker {
    endpoints: Endpoints,
    sampler: Sampler,
    per_request: Box<[f64]>,
}

impl Picker for LeastConnectionsPicker {
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let first = self.sampler.pick(context, &self.endpoints)?;
        let index = match context.exclusion() {
            None => self.least(first, context.rng(), |_| true),
            Some(exclusion) => self.least(first, context.rng(), |index| {
                !exclusion.excludes(&self.endpoints[index])
            }),
        };
        self.endpoints.get(index)
    }
}

impl LeastConnectionsPicker {
    /// The idlest of those that are left, or `first`, which is one of them.
    #[inline]
    fn least(&self, first: usize, rng: &mut Rng, is_left: impl Fn(usize) -> bool) -> usize {
        let (mut least, mut equals) = (f64::INFINITY, 0);
        for index in (0..self.endpoints.len()).filter(|&index| is_left(index)) {
            let after = self.candidate(index).after();
            if after < least {
                (least, equals) = (after, 0);
            }
            equals += usize::from(after == least);
        }
        if least > self.candidate(first).before() {
            return first;
        }
        // Counting first and walking again costs one random draw, where choosing on the way
        // would cost one for each tie. Other threads may have moved the counts meanwhile: then
        // the last one near enough will do.
        let mut wanted = rng.below(equals);
        let mut found = first;
        for index in (0..self.endpoints.len()).filter(|&index| is_left(index)) {
            if self.candidate(index).after() <= least {
                found = index;
                if wanted == 0 {
                    break;
                }
                wanted -= 1;
            }
        }
        found
    }

    #[inline]
    fn candidate(&self, index: usize) -> Candidate {
        Candidate {
            load: f64::from(self.endpoints[index].in_flight()),
            per_request: self.per_request[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::Pick;

    use super::*;
    use crate::testing::{Bench, assert_shares, assert_small_sets, assert_uniform};
    use crate::testing::{endpoints, weighted};

    #[test]
    fn requests_that_never_end_never_differ_by_more_than_one() {
        let all = endpoints(7);
        let mut bench = Bench::new(LeastConnections::new(), &all, 1);
        let mut under_way = Vec::new();
        for _ in 0..100 {
            under_way.push(bench.begin());
            let counts = || all.iter().map(|e| e.in_flight());
            assert!(counts().max().unwrap() - counts().min().unwrap() <= 1);
        }
    }

    #[test]
    fn ties_are_uniform_even_beside_busy_endpoints() {
        let all = endpoints(6);
        let mut bench = Bench::new(LeastConnections::new(), &all, 2);
        assert_uniform(&bench.tally(12_000));
        let _busy: Vec<_> = [0, 1, 4]
            .map(|index| Pick::new(Arc::clone(&all[index])))
            .into();
        let counts = bench.tally(12_000);
        assert_eq!((counts[0], counts[1], counts[4]), (0, 0, 0));
        assert_uniform(&[counts[2], counts[3], counts[5]]);
    }

    #[test]
    fn idle_endpoints_share_by_weight_and_busy_ones_fill_up_by_weight() {
        let all = weighted(&[10, 20, 70]);
        let mut bench = Bench::new(LeastConnections::new(), &all, 3);
        assert_shares(&bench.tally(20_000), &[10.0, 20.0, 70.0]);
        let _under_way: Vec<_> = (0..1000).map(|_| bench.begin()).collect();
        let counts: Vec<_> = all.iter().map(|e| e.in_flight()).collect();
        for (count, due) in counts.iter().zip([100, 200, 700_u32]) {
            assert!(count.abs_diff(due) <= 10, "{counts:?}");
        }
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(LeastConnections::new);
    }
}
