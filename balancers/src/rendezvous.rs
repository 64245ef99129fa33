//! Hashing by the highest draw.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, Exclusion, PickContext, Picker, Result,
};

use crate::eligible::weighed;
use crate::hash;
use crate::keyed::{KeyedBalancer, KeyedPicker};
use crate::left::only;

/// Sends equal keys to one endpoint: for each key every endpoint draws a number by hashing, and
/// the best draw wins
/// ([Thaler, Ravishankar 1998](https://doi.org/10.1109/90.663936); weights by
/// [Schindelhauer, Schomaker 2005](https://doi.org/10.1145/1073970.1074008)).
///
/// Nothing moves that need not: when an endpoint leaves, only its keys do, to all others in
/// proportion to their weights; when one joins or gains weight, keys move to it alone. Keys
/// spread as evenly as chance does. A request without a key goes anywhere, by weight.
///
/// Endpoints are known by their ids: an instance that moves to another address keeps its keys.
/// The choice depends on ids and weights alone, so clients that see the same members agree, but
/// for a key in some 2^53 where weights differ and two machines round logarithms differently.
///
/// *Pick*: O(n): a multiplication or two for each endpoint where weights are equal, and a
/// logarithm where they are not; writes nothing shared. *Rebuild*: O(n), 16 bytes for each.
///
/// *Use it* for up to some dozens of endpoints, where the fewest possible keys may move. *Not* for
/// hundreds: see [`Maglev`](crate::Maglev) and [`RingHash`](crate::RingHash).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rendezvous;

impl Rendezvous {
    /// The algorithm; it has no parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Balancer for Rendezvous {
    fn name(&self) -> &'static str {
        "rendezvous"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        Ok(Box::new(self.build_keyed(endpoints)?))
    }
}

impl KeyedBalancer for Rendezvous {
    type Picker = RendezvousPicker;

    fn build_keyed(&mut self, endpoints: &Endpoints) -> Result<RendezvousPicker> {
        let (endpoints, weights) = weighed(endpoints)?;
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let ids = endpoints
            .iter()
            .map(|e| hash::xxh64(e.id().as_str().as_bytes(), 0));
        let draws = ids
            .zip(weights)
            .map(|(id, weight)| Draw {
                id,
                per_weight: 1.0 / weight,
            })
            .collect();
        Ok(RendezvousPicker {
            endpoints,
            draws,
            even,
        })
    }
}

/// What [`Rendezvous`] builds.
#[derive(Debug)]
pub struct RendezvousPicker {
    endpoints: Endpoints,
    draws: Box<[Draw]>,
    even: bool,
}

#[derive(Debug)]
struct Draw {
    /// The hash of the endpoint's id.
    id: u64,
    per_weight: f64,
}

impl Draw {
    #[inline]
    fn number(&self, key: u64) -> u64 {
        hash::mix(self.id ^ key)
    }

    /// An exponential variate of mean 1 / weight: the least of several falls to each in proportion
    /// to its weight.
    #[inline]
    fn wait(&self, key: u64) -> f64 {
        hash::wait(self.number(key)) * self.per_weight
    }
}

impl Picker for RendezvousPicker {
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let key = hash::key(context);
        let index = match context.exclusion() {
            None => self.find(key, |_| true),
            Some(exclusion) => self.other(key, exclusion),
        };
        self.endpoints.get(index?)
    }
}

impl RendezvousPicker {
    /// The best draw of those that are left. Apart, so that picks without exclusion stay small.
    #[cold]
    #[inline(never)]
    fn other(&self, key: u64, exclusion: &Exclusion<'_>) -> Option<usize> {
        self.find(key, |index| !exclusion.excludes(&self.endpoints[index]))
    }
}

impl KeyedPicker for RendezvousPicker {
    fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// From the best draw to the worst: all endpoints, each once, in one pass.
    #[inline]
    fn find(&self, key: u64, accept: impl FnMut(usize) -> bool) -> Option<usize> {
        // Mixed first, for `mix(id ^ key)` of two plain numbers may be related.
        let key = hash::mix(key);
        if self.even {
            // The shortest wait is that of the highest number.
            self.least(|draw| !draw.number(key), accept)
        } else {
            self.least(|draw| draw.wait(key), accept)
        }
    }
}

impl RendezvousPicker {
    /// The one with the least wait that `accept` takes. Only those are asked that beat all taken
    /// before: about ln n where none is refused.
    #[inline]
    fn least<W: PartialOrd + Copy>(
        &self,
        wait: impl Fn(&Draw) -> W,
        mut accept: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut best: Option<(W, usize)> = None;
        for (index, draw) in self.draws.iter().enumerate() {
            let wait = wait(draw);
            if best.is_none_or(|(least, _)| wait < least) && accept(index) {
                best = Some((wait, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        Bench, Server, assert_keys_stay, assert_shares, assert_small_sets, assert_uniform,
        endpoints, owners, servers, views, weighted,
    };

    #[test]
    fn keys_are_spread_as_evenly_as_chance_by_weight() {
        assert_uniform(&Bench::new(Rendezvous::new(), &endpoints(50), 1).tally_keys(100_000));
        let weights = [1, 10, 100, 389];
        let mut bench = Bench::new(Rendezvous::new(), &weighted(&weights), 1);
        assert_shares(&bench.tally_keys(100_000), &weights.map(f64::from));
    }

    #[test]
    fn plain_numbers_make_good_keys_and_none_goes_anywhere() {
        let mut bench = Bench::new(Rendezvous::new(), &endpoints(10), 1);
        let mut counts = vec![0; 10];
        for key in 0..50_000 {
            bench.key = Some(key);
            counts[bench.index()] += 1;
        }
        assert_uniform(&counts);
        bench.key = None;
        assert_uniform(&bench.tally(20_000));
    }

    #[test]
    fn only_the_keys_of_the_one_that_left_move_and_they_go_everywhere() {
        let all = servers(20);
        let before = owners(Rendezvous::new(), &views(&all));
        let left: Endpoints = views(&all)[1..].iter().map(Arc::clone).collect();
        let after = owners(Rendezvous::new(), &left);
        let mut heirs = vec![0; 19];
        for (before, after) in before.iter().zip(&after) {
            if before == "000000" {
                let index: usize = after.parse().unwrap();
                heirs[index - 1] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert_uniform(&heirs);
    }

    #[test]
    fn keys_move_only_towards_an_endpoint_that_gains_weight() {
        // From equal weights as well: the shortcut for them must not choose otherwise.
        for lighter in [10, 11] {
            let before = owners(Rendezvous::new(), &weighted(&[10, 10, lighter]));
            let after = owners(Rendezvous::new(), &weighted(&[10, 10, 22]));
            let changed = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| before != after);
            assert!(changed.clone().count() > 1000);
            assert!(
                changed.clone().all(|(_, after)| after == "000002"),
                "from {lighter}"
            );
        }
    }

    #[test]
    fn equal_keys_go_to_one_endpoint_across_clients_and_rebuilds() {
        assert_keys_stay(Rendezvous::new);
    }

    #[test]
    fn owners_are_fixed_for_good() {
        // By an independent program. Versions that disagree would send a key to two endpoints.
        const EVEN: [usize; 20] = [2, 1, 2, 1, 0, 0, 0, 1, 0, 2, 2, 0, 0, 1, 2, 0, 0, 2, 1, 1];
        const UNEVEN: [usize; 20] = [2, 1, 2, 2, 2, 0, 0, 1, 2, 2, 2, 0, 2, 1, 2, 2, 2, 2, 1, 1];
        for (weights, owners) in [([1, 1, 1], EVEN), ([1, 2, 4], UNEVEN)] {
            let server = |(id, weight): (&str, u32)| Server::with(id, |b| b.with_weight(weight));
            let ids = ["orders-1", "orders-2", "orders-3"];
            let servers: Vec<_> = ids.into_iter().zip(weights).map(server).collect();
            let mut bench = Bench::new(Rendezvous::new(), &views(&servers), 1);
            for (key, owner) in (0..).zip(owners) {
                bench.key = Some(key);
                assert_eq!(bench.index(), owner, "key {key}");
            }
        }
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(Rendezvous::new);
    }
}
