//! Using only some of many endpoints, drawn per client.

use std::sync::Arc;

use plimsoll_discovery_api::{Balancer, Capabilities, Endpoints, Picker, Result, Rng};

use crate::eligible::{eligible, is_well};
use crate::{hash, parameter};

/// Lets an algorithm see `size` of the endpoints only, another choice for each client, so that
/// thousands of clients need not connect to thousands of servers each
/// ([gRPC's A68](https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md)).
///
/// Every client draws a number for each endpoint by hashing the endpoint's id with a seed of its
/// own, and takes the lowest. So the choice depends on nothing else, and changes as little as it
/// can: when an endpoint leaves, only those clients notice that used it, and take one other in its
/// place; when one joins, a share of size / n of the clients exchange one for it. Endpoints that
/// are known not to work (unhealthy or suspect) are not counted: where they are listed at all,
/// the choice grows beyond `size` by as many.
///
/// Over many clients the number that use an endpoint varies by chance: with a mean of m it is off
/// by about √m. Weights play no part in the choice. Of n endpoints below `size`, all are used.
///
/// A pick that excludes all of them, as a retry may where `size` is small, yields none rather than
/// one beyond.
///
/// *Pick*: the inner one. *Rebuild*: the inner one for `size` endpoints, and O(n log n).
///
/// *Use it* where connections cost more than they bring: with c clients, an endpoint has
/// c · size / n of them. 20 to 100 are usual: with fewer, the algorithm inside has too little to
/// choose from. *Not* round an algorithm that hashes, unless all clients share a
/// [seed](Self::with_seed), for they would disagree; and where clients know their number,
/// [`Aperture`](crate::Aperture) spreads them evenly.
#[derive(Clone, Debug)]
pub struct RandomSubset<B> {
    inner: B,
    size: usize,
    seed: u64,
}

impl<B: Balancer> RandomSubset<B> {
    /// `size` endpoints, at least 1, for `inner`, drawn with the operating system's entropy.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for 0.
    pub fn new(inner: B, size: usize) -> Result<Self> {
        Ok(Self {
            inner,
            size: parameter::at_least("size", size, 1)?,
            seed: Rng::from_entropy().next_u64(),
        })
    }

    /// Draws with this seed: with the same one again after a restart, the client returns to the
    /// same endpoints.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    fn choose(&self, endpoints: &Endpoints) -> Endpoints {
        if endpoints.len() <= self.size {
            return Arc::clone(endpoints);
        }
        let seed = hash::mix(self.seed);
        let draw = |id: &str| hash::mix(hash::xxh64(id.as_bytes(), 0) ^ seed);
        let mut order: Vec<_> = endpoints
            .iter()
            .enumerate()
            .map(|(index, e)| (draw(e.id().as_str()), index))
            .collect();
        order.sort_unstable();
        let mut well = 0;
        let lowest = order.iter().map(|&(_, index)| index);
        let mut chosen: Vec<_> = lowest
            .take_while(|&index| {
                let more = well < self.size;
                well += usize::from(is_well(&endpoints[index]));
                more
            })
            .collect();
        chosen.sort_unstable();
        chosen
            .into_iter()
            .map(|index| Arc::clone(&endpoints[index]))
            .collect()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer> Balancer for RandomSubset<B> {
    fn name(&self) -> &'static str {
        "random_subset"
    }

    fn reads_load(&self) -> bool {
        self.inner.reads_load()
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.inner.set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        self.inner.ejects()
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let chosen = self.choose(&eligible(endpoints)?);
        self.inner.build(&chosen)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::Health;

    use super::*;
    use crate::Random;
    use crate::testing::{assert_small_sets, endpoints};

    fn indices(endpoints: &Endpoints, size: usize, seed: u64) -> Vec<usize> {
        let subset = RandomSubset::new(Random::new(), size).unwrap();
        let chosen = subset.with_seed(seed).choose(endpoints);
        assert!(chosen.is_sorted_by(|one, other| one.id() < other.id()));
        let index = |e: &Arc<_>| endpoints.iter().position(|other| Arc::ptr_eq(e, other));
        chosen.iter().map(|e| index(e).unwrap()).collect()
    }

    #[test]
    fn clients_spread_as_evenly_as_chance_does() {
        let all = endpoints(50);
        let mut used = [0_u32; 50];
        for seed in 0..1000 {
            let chosen = indices(&all, 10, seed);
            assert_eq!(chosen.len(), 10);
            chosen.into_iter().for_each(|index| used[index] += 1);
        }
        // Each is drawn by a client with probability 1/5, without replacement, so the squares of
        // the deviations from 200, over 1000 / 5 * 4 / 5 * 50 / 49, follow chi-square with 49
        // degrees of freedom. The limits are its quantiles at 4.75 deviations (by Wilson and
        // Hilferty): a false alarm has a probability of 1e-6 on either side.
        let square = |&count: &u32| (f64::from(count) - 200.0).powi(2) / (160.0 * 50.0 / 49.0);
        let chi_square: f64 = used.iter().map(square).sum();
        assert!(
            (14.7..113.2).contains(&chi_square),
            "{chi_square}: {used:?}"
        );
    }

    #[test]
    fn who_leaves_is_replaced_by_one_other_and_only_where_it_was_used() {
        let all = endpoints(51);
        let fewer: Endpoints = all[1..].iter().map(Arc::clone).collect();
        let mut exchanged = 0;
        for seed in 0..1000 {
            let before = indices(&all, 10, seed);
            let after: Vec<_> = indices(&fewer, 10, seed)
                .iter()
                .map(|index| index + 1)
                .collect();
            let kept = before.iter().filter(|index| after.contains(index)).count();
            assert_eq!(kept, if before[0] == 0 { 9 } else { 10 });
            exchanged += u32::from(kept == 9);
        }
        // 1000 * 10 / 51 = 196 with a deviation of 12.6; 5 of them have a probability below 1e-6.
        // Read backwards, it is what changes when an endpoint joins.
        assert!(exchanged.abs_diff(196) < 63, "{exchanged}");
    }

    #[test]
    fn a_larger_choice_holds_the_smaller_one() {
        let all = endpoints(50);
        let (ten, twenty) = (indices(&all, 10, 7), indices(&all, 20, 7));
        assert!(ten.iter().all(|index| twenty.contains(index)));
    }

    #[test]
    fn who_does_not_work_is_not_counted() {
        let all = endpoints(50);
        let before = indices(&all, 10, 7);
        for &index in &before[..3] {
            all[index].set_health(Health::Unhealthy);
        }
        let after = indices(&all, 10, 7);
        assert_eq!(after.len(), 13);
        assert!(before.iter().all(|index| after.contains(index)));
    }

    #[test]
    fn a_seed_repeats_and_entropy_does_not() {
        let all = endpoints(500);
        assert_eq!(indices(&all, 10, 7), indices(&all, 10, 7));
        let chosen = || RandomSubset::new(Random::new(), 10).unwrap().choose(&all);
        // Two draws of 10 out of 500 are the same with a probability of 1e-20.
        assert!(
            !chosen()
                .iter()
                .zip(chosen().iter())
                .all(|(a, b)| Arc::ptr_eq(a, b))
        );
    }

    #[test]
    fn a_size_of_zero_is_refused() {
        let error = RandomSubset::new(Random::new(), 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid argument: size is below 1 (size: 0)"
        );
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(|| RandomSubset::new(Random::new(), 2).unwrap());
    }
}
