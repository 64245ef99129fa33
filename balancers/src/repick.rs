//! Picking again what a wrapper leaves out.

use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Endpoints, Exclusion, PickContext, Picker};

use crate::hash;

/// What `inner`, which picks from `endpoints`, picks of those that `refuses` leaves in; or if there
/// are none, what it picks at all.
///
/// The second choice is `inner`'s own, by the rule of the first: what is refused is excluded, on top
/// of what the context excludes.
#[inline]
pub(crate) fn pick_admitted<'a>(
    inner: &'a dyn Picker,
    endpoints: &'a Endpoints,
    context: &mut PickContext<'_>,
    refuses: impl Fn(&Endpoint) -> bool,
) -> Option<&'a Arc<Endpoint>> {
    let first = inner.pick(context)?;
    if !refuses(first) && !context.excludes(first) {
        return Some(first);
    }
    pick_other(inner, endpoints, context, &refuses).or(Some(first))
}

/// What `inner` picks of those that `refuses` leaves in. For an `inner` that heeds no exclusion,
/// chance decides, by weight.
#[cold]
pub(crate) fn pick_other<'a>(
    inner: &'a dyn Picker,
    endpoints: &'a Endpoints,
    context: &mut PickContext<'_>,
    refuses: &dyn Fn(&Endpoint) -> bool,
) -> Option<&'a Arc<Endpoint>> {
    let exclusion = Exclusion::by(refuses).and(context.exclusion());
    let mut others = context.reborrow().with_exclusion(Some(&exclusion));
    let picked = inner.pick(&mut others)?;
    if exclusion.excludes(picked) {
        return others.draw_by_weight(endpoints);
    }
    Some(picked)
}

/// A number in `[0, 1)`: at random, or always the same one for the same key and `purpose`.
#[inline]
pub(crate) fn chance(context: &mut PickContext<'_>, purpose: u64) -> f64 {
    match context.key() {
        Some(key) => chance_of(key, purpose),
        None => context.rng().next_f64(),
    }
}

/// A number in `[0, 1)`, always the same one for the same key and `purpose`.
#[inline]
pub(crate) fn chance_of(key: u64, purpose: u64) -> f64 {
    (hash::mix(key ^ purpose) >> 11) as f64 * 2.0_f64.powi(-53)
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::{Balancer, ManualClock, Pick, Rng};

    use super::*;
    use crate::testing::{Deaf, assert_shares, assert_uniform, endpoints, weighted};
    use crate::{LeastConnections, Maglev, Random, RoundRobin, WeightedRandom};

    /// How often each of `all` is picked, of which the first is refused.
    fn tally(mut balancer: impl Balancer, all: &Endpoints, keys: bool) -> Vec<u64> {
        let inner = balancer.build(all).unwrap();
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        let mut counts = vec![0; all.len()];
        for key in 0..20_000_u64 {
            let mut context = PickContext::new(&mut rng, &clock);
            context = context.with_key(keys.then(|| hash::mix(key)));
            let refuses = |endpoint: &Endpoint| endpoint.id() == all[0].id();
            let picked = pick_admitted(&*inner, all, &mut context, refuses).unwrap();
            counts[all.iter().position(|e| Arc::ptr_eq(e, picked)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_picks_of_one_left_out_go_to_all_others_alike() {
        let all = endpoints(10);
        for counts in [
            tally(Random::new(), &all, false),
            tally(Maglev::new(), &all, true),
        ] {
            assert_eq!(counts[0], 0);
            assert_uniform(&counts[1..]);
        }
    }

    #[test]
    fn the_picks_of_one_left_out_go_to_the_others_by_weight() {
        let weights = [1000, 1, 2, 3];
        let all = weighted(&weights);
        for counts in [
            tally(WeightedRandom::new(), &all, false),
            tally(Deaf::new(WeightedRandom::new()), &all, false),
            tally(Maglev::new(), &all, true),
        ] {
            assert_eq!(counts[0], 0);
            assert_shares(&counts[1..], &[1.0, 2.0, 3.0]);
        }
    }

    #[test]
    fn turns_stay_even_among_the_others() {
        let counts = tally(RoundRobin::starting_at(0), &endpoints(10), false);
        assert_eq!(counts[0], 0);
        assert!(
            counts[1..].iter().all(|count| count.abs_diff(2222) <= 1),
            "{counts:?}"
        );
    }

    #[test]
    fn an_algorithm_that_insists_gives_its_next_best() {
        let all = endpoints(5);
        let _busy: Vec<_> = all[1..]
            .iter()
            .zip([3, 1, 2, 2])
            .flat_map(|(e, count)| (0..count).map(|_| Pick::new(&**e)))
            .collect();
        let inner = LeastConnections::new().build(&all).unwrap();
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        for _ in 0..100 {
            let mut context = PickContext::new(&mut rng, &clock);
            let refuses = |endpoint: &Endpoint| endpoint.id() == all[0].id();
            let picked = pick_admitted(&*inner, &all, &mut context, refuses).unwrap();
            assert!(Arc::ptr_eq(picked, &all[2]));
        }
    }

    #[test]
    fn where_all_are_refused_the_first_pick_stands_unless_it_is_excluded() {
        let all = endpoints(3);
        let inner = Maglev::new().build(&all).unwrap();
        let (mut rng, clock) = (Rng::from_seed(1), ManualClock::new());
        for key in 0..100 {
            let mut context = PickContext::new(&mut rng, &clock).with_key(Some(key));
            let plain = inner.pick(&mut context).unwrap();
            let picked = pick_admitted(&*inner, &all, &mut context, |_| true).unwrap();
            assert!(Arc::ptr_eq(plain, picked));
            let tried = [Arc::clone(plain)];
            let tried = Exclusion::listed(&tried);
            let mut context = context.with_exclusion(Some(&tried));
            let second = inner.pick(&mut context).unwrap();
            let picked = pick_admitted(&*inner, &all, &mut context, |_| true).unwrap();
            assert!(Arc::ptr_eq(second, picked) && !Arc::ptr_eq(plain, picked));
        }
    }
}
