//! What is left of a set when a pick excludes some of it.

use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Endpoints, PickContext};

use crate::hash;

/// The first of `endpoints` unless it is excluded: for sets that leave no choice.
#[inline]
pub(crate) fn only<'a>(
    endpoints: &'a Endpoints,
    context: &PickContext<'_>,
) -> Option<&'a Arc<Endpoint>> {
    endpoints
        .first()
        .filter(|endpoint| !context.excludes(endpoint))
}

/// An index of those that `is_left` names, in proportion to weight, and always the same one for
/// the same `key`, as [`Rendezvous`](crate::Rendezvous) draws. O(n): for when an algorithm's own
/// order does not come to one that is left within a bounded number of steps.
#[cold]
#[inline(never)]
pub(crate) fn by_key(
    endpoints: &[Arc<Endpoint>],
    key: u64,
    is_left: impl Fn(usize) -> bool,
) -> Option<usize> {
    let key = hash::mix(key);
    let mut best: Option<(f64, usize)> = None;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let id = hash::xxh64(endpoint.id().as_str().as_bytes(), 0);
        let wait = hash::wait(hash::mix(id ^ key)) / f64::from(endpoint.weight().get());
        let is_best = best.is_none_or(|(least, _)| wait < least);
        if wait.is_finite() && is_best && is_left(index) {
            best = Some((wait, index));
        }
    }
    best.map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::{Exclusion, ManualClock, Rng};

    use super::*;
    use crate::testing::{assert_shares, weighted};

    #[test]
    fn keys_spread_by_weight_over_what_is_left_and_stay_where_they_are() {
        let all = weighted(&[1000, 1, 2, 3, 0, 1000]);
        let is_left = |index| index != 0 && index != 5;
        let mut counts = [0; 6];
        for key in 0..20_000 {
            let index = by_key(&all, key, is_left).unwrap();
            assert_eq!(by_key(&all, key, is_left), Some(index));
            counts[index] += 1;
        }
        assert_eq!((counts[0], counts[4], counts[5]), (0, 0, 0));
        assert_shares(&counts[1..4], &[1.0, 2.0, 3.0]);
        assert_eq!(by_key(&all, 1, |_| false), None);
    }

    #[test]
    fn the_only_one_is_none_where_it_is_excluded() {
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        let (one, none) = (weighted(&[1]), weighted(&[]));
        let exclusion = Exclusion::listed(&one);
        let context = PickContext::new(&mut rng, &clock);
        assert!(only(&one, &context).is_some() && only(&none, &context).is_none());
        assert!(only(&one, &context.with_exclusion(Some(&exclusion))).is_none());
    }
}
