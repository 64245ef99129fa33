//! Picking again what may not be taken.

use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Endpoints, PickContext, Picker};

use crate::hash;

/// With a tenth of the endpoints left out, all of so many independent picks miss the others once
/// in 10^8.
const TRIES: u64 = 8;

/// What `inner`, which picks from `endpoints`, picks and `admits` accepts.
///
/// After 8 picks in vain, the algorithm insists: the next endpoint that is accepted, from
/// a random one on, or if there is none the very first pick. A key is hashed again for each try,
/// so that the keys of an endpoint that is left out spread over all others, each to the same one
/// every time.
pub(crate) fn pick_admitted<'a>(
    inner: &'a dyn Picker,
    endpoints: &'a Endpoints,
    context: &mut PickContext<'_>,
    mut admits: impl FnMut(&Arc<Endpoint>, &mut PickContext<'_>) -> bool,
) -> Option<&'a Arc<Endpoint>> {
    let first = inner.pick(context)?;
    if admits(first, context) || endpoints.len() < 2 {
        return Some(first);
    }
    let plain = context.key();
    for attempt in 1..TRIES {
        let mut again = context.reborrow().with_key(rehashed(plain, attempt));
        let other = inner.pick(&mut again)?;
        if admits(other, &mut again) {
            return Some(other);
        }
    }
    let start = match rehashed(plain, TRIES) {
        Some(key) => hash::below(key, endpoints.len()),
        None => context.rng().below(endpoints.len()),
    };
    let round = endpoints[start..].iter().chain(&endpoints[..start]);
    let mut others = round.filter(|endpoint| !Arc::ptr_eq(endpoint, first));
    others
        .find(|endpoint| admits(endpoint, context))
        .or(Some(first))
}

#[inline]
fn rehashed(key: Option<u64>, attempt: u64) -> Option<u64> {
    key.map(|key| hash::mix(key.wrapping_add(attempt)))
}

/// A number in `[0, 1)`: at random, or always the same one for the same key and `purpose`.
#[inline]
pub(crate) fn chance(context: &mut PickContext<'_>, purpose: u64) -> f64 {
    match context.key() {
        Some(key) => (hash::mix(key ^ purpose) >> 11) as f64 * 2.0_f64.powi(-53),
        None => context.rng().next_f64(),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::{Balancer, ManualClock, Rng};

    use super::*;
    use crate::testing::{assert_uniform, endpoints};
    use crate::{LeastConnections, Maglev, Random, RoundRobin};

    /// How often each of 10 endpoints is picked of which the first is not admitted.
    fn tally(mut balancer: impl Balancer, keys: bool) -> Vec<u64> {
        let all = endpoints(10);
        let inner = balancer.build(&all).unwrap();
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        let mut counts = vec![0; 10];
        for key in 0..20_000_u64 {
            let mut context = PickContext::new(&mut rng, &clock);
            context = context.with_key(keys.then(|| hash::mix(key)));
            let admits =
                |endpoint: &Arc<Endpoint>, _: &mut PickContext<'_>| !Arc::ptr_eq(endpoint, &all[0]);
            let picked = pick_admitted(&*inner, &all, &mut context, admits).unwrap();
            counts[all.iter().position(|e| Arc::ptr_eq(e, picked)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_picks_of_one_left_out_go_to_all_others_alike() {
        for counts in [tally(Random::new(), false), tally(Maglev::new(), true)] {
            assert_eq!(counts[0], 0);
            assert_uniform(&counts[1..]);
        }
    }

    #[test]
    fn turns_stay_even_among_the_others() {
        let counts = tally(RoundRobin::starting_at(0), false);
        assert_eq!(counts[0], 0);
        assert!(
            counts[1..].iter().all(|count| count.abs_diff(2222) <= 1),
            "{counts:?}"
        );
    }

    #[test]
    fn an_algorithm_that_insists_is_overruled() {
        let all = endpoints(5);
        let _busy: Vec<_> = all[1..]
            .iter()
            .map(|e| plimsoll_discovery_api::Pick::new(&**e))
            .collect();
        let inner = LeastConnections::new().build(&all).unwrap();
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        for _ in 0..100 {
            let mut context = PickContext::new(&mut rng, &clock);
            let picked =
                pick_admitted(&*inner, &all, &mut context, |e, _| !Arc::ptr_eq(e, &all[0]));
            assert!(!Arc::ptr_eq(picked.unwrap(), &all[0]));
        }
    }

    #[test]
    fn where_none_is_admitted_the_first_pick_stands() {
        let all = endpoints(3);
        let inner = Maglev::new().build(&all).unwrap();
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        for key in 0..100 {
            let mut context = PickContext::new(&mut rng, &clock).with_key(Some(key));
            let plain = inner.pick(&mut context).unwrap();
            let picked = pick_admitted(&*inner, &all, &mut context, |_, _| false).unwrap();
            assert!(Arc::ptr_eq(plain, picked));
        }
    }
}
