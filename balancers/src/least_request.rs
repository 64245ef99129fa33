//! Fewest requests of this client's own under way.

use std::sync::Arc;

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result};

use crate::contest::{self, Candidate, Contest};
use crate::eligible::weighed;
use crate::left::only;
use crate::sample::{self, Sampler};

/// Draws `choices` different endpoints at random, in proportion to weight, and picks the one on
/// which this client has the fewest requests under way, relative to its weight; among equals, the
/// one drawn first.
///
/// With two choices, the default, the fullest of n endpoints holds about ln ln n / ln 2 requests
/// more than the mean, against ln n / ln ln n with one choice
/// ([Azar, Broder, Karlin, Upfal 1999](https://doi.org/10.1137/S0097539795288490)). The candidates
/// always differ: comparing an endpoint with itself would let the busier of two win one time in
/// four.
///
/// With unequal weights the one drawn first stands unless another would, with the request added,
/// be no fuller than it is without: so idle endpoints share traffic by weight, and busy ones fill
/// up by weight.
///
/// *Pick*: O(`choices`), a random draw and a relaxed load for each; writes nothing shared.
/// *Rebuild*: O(n).
///
/// *Use it* by default wherever servers publish no load: it steers around a slow server at once,
/// for requests pile up there. *Not* when each client has so few requests under way that all
/// counts are zero: it is then [`WeightedRandom`](crate::WeightedRandom), and
/// [`LeastLoad`](crate::LeastLoad) sees further. A server that fails quickly looks idle to it:
/// leave that to health checks. [`LeastConnections`](crate::LeastConnections) is the same with
/// all endpoints as candidates.
#[derive(Clone, Debug)]
pub struct LeastRequest {
    choices: usize,
}

/// Two bring nearly all the gain; see [`sample::MAX_CHOICES`].
const DEFAULT_CHOICES: usize = 2;

impl LeastRequest {
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

impl Default for LeastRequest {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for LeastRequest {
    fn name(&self) -> &'static str {
        "least_request"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        Ok(Box::new(LeastRequestPicker {
            sampler: Sampler::new(&weights),
            per_request: contest::per_request(&weights),
            endpoints,
            choices: self.choices,
        }))
    }
}

#[derive(Debug)]
struct LeastRequestPicker {
    endpoints: Endpoints,
    sampler: Sampler,
    per_request: Box<[f64]>,
    choices: usize,
}

impl Picker for LeastRequestPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        if self.choices == 2 && self.sampler.is_even() && context.exclusion().is_none() {
            // The usual case, and the same contest: without shares, the lesser count wins.
            let (first, second) = context.rng().two_below(self.endpoints.len());
            let (first, second) = (&self.endpoints[first], &self.endpoints[second]);
            let second_wins = second.in_flight() < first.in_flight();
            return Some(if second_wins { second } else { first });
        }
        let drawn = self
            .sampler
            .candidates(context, &self.endpoints, self.choices);
        let mut contest = Contest::new();
        for &index in drawn.as_slice() {
            contest.enter(Candidate {
                load: f64::from(self.endpoints[index].in_flight()),
                per_request: self.per_request[index],
            });
        }
        self.endpoints.get(*drawn.as_slice().get(contest.winner())?)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::Pick;

    use super::*;
    use crate::testing::{self, Bench, assert_shares, assert_uniform, endpoints, weighted};

    /// The fullest of 1,000 endpoints after 1,000 requests that do not end, the worst of 10 runs.
    fn fullest<B: Balancer>(balancer: impl Fn() -> B) -> u32 {
        let run = |seed| {
            let all = endpoints(1000);
            let mut bench = Bench::new(balancer(), &all, seed);
            let _under_way: Vec<_> = (0..1000).map(|_| bench.begin()).collect();
            all.iter().map(|endpoint| endpoint.in_flight()).max()
        };
        (0..10).filter_map(run).max().unwrap()
    }

    /// As many balls as bins. With two choices one bin in 10^10 holds 5 or more, so a run fails
    /// with probability below 1e-6; with one choice, 1 in 270 does, and ten runs all miss it with
    /// probability below 1e-15 (Mitzenmacher 2001, The power of two choices in randomized load
    /// balancing, table 1).
    #[test]
    fn two_choices_keep_the_fullest_far_below_one_choice() {
        assert!(fullest(LeastRequest::new) <= 4);
        assert!(fullest(crate::Random::new) >= 5);
    }

    #[test]
    fn the_busier_of_two_is_never_picked() {
        let two = endpoints(2);
        let _under_way = Pick::new(Arc::clone(&two[0]));
        let mut bench = Bench::new(LeastRequest::new(), &two, 1);
        assert_eq!(bench.tally(1000), [0, 1000]);
    }

    #[test]
    fn ties_are_spread_evenly() {
        for choices in [2, 3, 8] {
            let balancer = LeastRequest::new().with_choices(choices).unwrap();
            let mut bench = Bench::new(balancer, &endpoints(7), 2);
            assert_uniform(&bench.tally(14_000));
        }
    }

    #[test]
    fn as_many_choices_as_endpoints_always_find_the_idlest() {
        let all = endpoints(5);
        let _under_way: Vec<_> = [0, 1, 2, 4]
            .map(|index| Pick::new(Arc::clone(&all[index])))
            .into();
        let mut bench = Bench::new(LeastRequest::new().with_choices(8).unwrap(), &all, 3);
        assert_eq!(bench.tally(500), [0, 0, 0, 500, 0]);
    }

    #[test]
    fn two_choices_keep_the_fullest_within_the_bound_that_one_choice_breaks() {
        // n requests that never end, on n endpoints. For two choices theory puts the fullest at
        // ln ln n / ln 2 + O(1) = 3.2 + O(1) for n = 10,000; 6 or more has probability below
        // 1e-6. For one choice it is 7 in expectation, and at most 5 with probability
        // exp(-n / (e * 6!)) < 1e-2.
        let n = 10_000;
        let fullest = |mut bench: Bench| {
            let under_way: Vec<_> = (0..n).map(|_| bench.begin()).collect();
            under_way
                .iter()
                .map(|pick| pick.endpoint().in_flight())
                .max()
                .unwrap()
        };
        let two = fullest(Bench::new(LeastRequest::new(), &endpoints(n), 4));
        let one = fullest(Bench::new(crate::Random::new(), &endpoints(n), 4));
        assert!(two <= 5 && one > 5, "two choices: {two}, one: {one}");
    }

    #[test]
    fn idle_endpoints_share_by_weight_and_busy_ones_fill_up_by_weight() {
        for choices in [2, 3] {
            let all = weighted(&[10, 20, 30, 140]);
            let balancer = LeastRequest::new().with_choices(choices).unwrap();
            let mut bench = Bench::new(balancer, &all, 5);
            assert_shares(&bench.tally(20_000), &[10.0, 20.0, 30.0, 140.0]);
            let _under_way: Vec<_> = (0..2000).map(|_| bench.begin()).collect();
            let counts: Vec<_> = all.iter().map(|e| e.in_flight()).collect();
            for (count, due) in counts.iter().zip([100, 200, 300, 1400_u32]) {
                assert!(count.abs_diff(due) <= 20, "{counts:?}");
            }
        }
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        testing::assert_small_sets(LeastRequest::new);
    }

    #[test]
    fn choices_out_of_range_are_refused_by_name() {
        let error = LeastRequest::new().with_choices(9).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid argument: choices is not between 2 and 8 (choices: 9)"
        );
    }
}
