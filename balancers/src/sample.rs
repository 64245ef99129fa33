//! Drawing several different candidates.

use plimsoll_discovery_api::{Endpoints, Error, PickContext, Result, Rng};

use crate::alias::AliasTable;
use crate::hash;

/// The most candidates that one pick may compare.
///
/// The gain over two is small and shrinks with each further one, while stale figures mislead more
/// clients at once the more of them are compared.
pub(crate) const MAX_CHOICES: usize = 8;

/// After so many draws for each candidate wanted, those found are enough: whatever did not come up
/// has next to no share.
const DRAWS_PER_CHOICE: usize = 3;

/// So many draws in search of those that are not excluded, for each candidate wanted, cost less
/// than a look at all.
const SEARCHES_PER_CHOICE: usize = 8;

/// Validates a number of candidates: 2 to [`MAX_CHOICES`].
pub(crate) fn choices(value: usize) -> Result<usize> {
    if (2..=MAX_CHOICES).contains(&value) {
        Ok(value)
    } else {
        Err(Error::invalid("choices", value, "is not between 2 and 8"))
    }
}

/// Draws candidates: each index in proportion to its share.
#[derive(Debug)]
pub(crate) struct Sampler {
    len: usize,
    /// `None` where all shares are equal.
    uneven: Option<Uneven>,
}

#[derive(Debug)]
struct Uneven {
    table: AliasTable,
    shares: Box<[f64]>,
}

impl Sampler {
    /// For `shares`, each finite and above 0.
    pub(crate) fn new(shares: &[f64]) -> Self {
        let even = shares.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            len: shares.len(),
            uneven: (!even).then(|| Uneven {
                table: AliasTable::new(shares),
                shares: shares.into(),
            }),
        }
    }

    /// For so many equal shares.
    pub(crate) const fn even(len: usize) -> Self {
        Self { len, uneven: None }
    }

    /// Whether all shares are equal.
    #[inline]
    pub(crate) fn is_even(&self) -> bool {
        self.uneven.is_none()
    }

    /// One index. There is at least one.
    #[inline]
    pub(crate) fn one(&self, rng: &mut Rng) -> usize {
        match &self.uneven {
            None => rng.below(self.len),
            Some(uneven) => uneven.table.draw(rng),
        }
    }

    /// One index of `endpoints`, of which the shares are, that `context` does not exclude.
    #[inline]
    pub(crate) fn pick(
        &self,
        context: &mut PickContext<'_>,
        endpoints: &Endpoints,
    ) -> Option<usize> {
        if context.exclusion().is_none() {
            return Some(self.one(context.rng()));
        }
        self.others(context, endpoints, 1)
            .as_slice()
            .first()
            .copied()
    }

    /// As [`several`](Self::several), of those that `context` does not exclude: none if there are
    /// none.
    #[inline]
    pub(crate) fn candidates(
        &self,
        context: &mut PickContext<'_>,
        endpoints: &Endpoints,
        count: usize,
    ) -> Drawn {
        if context.exclusion().is_none() {
            return self.several(context.rng(), count);
        }
        self.others(context, endpoints, count)
    }

    /// `count` different indices, or all if there are fewer; `count` is at most [`MAX_CHOICES`].
    ///
    /// The first is drawn in proportion to its share. So are the others, but where a few shares
    /// are so large that others hardly ever come up there may be fewer than `count`.
    #[inline]
    pub(crate) fn several(&self, rng: &mut Rng, count: usize) -> Drawn {
        match &self.uneven {
            None => Drawn::uniform(rng, self.len, count),
            Some(uneven) => Drawn::weighted(rng, &uneven.table, self.len, count),
        }
    }

    /// Those that are not excluded, one after the other, each in proportion to its share of what
    /// is left: `count` of them, or all if there are fewer.
    ///
    /// Whether a draw is refused says nothing of what the next one brings, so it does not matter
    /// for the shares after how many refusals all are looked at.
    #[cold]
    #[inline(never)]
    fn others(&self, context: &mut PickContext<'_>, endpoints: &Endpoints, count: usize) -> Drawn {
        let count = count.min(endpoints.len());
        let mut drawn = Drawn::none();
        for _ in 0..SEARCHES_PER_CHOICE * count {
            if drawn.len == count {
                return drawn;
            }
            let index = self.one(context.rng());
            if !context.excludes(&endpoints[index]) {
                drawn.add(index);
            }
        }
        if drawn.len < count {
            self.add_others(&mut drawn, context, endpoints, count);
        }
        drawn
    }

    /// Each waits for a random time of a mean that is the reciprocal of its share: the first come
    /// are those wanted, in that order
    /// ([Efraimidis, Spirakis 2006](https://doi.org/10.1016/j.ipl.2005.11.003)).
    fn add_others(
        &self,
        drawn: &mut Drawn,
        context: &mut PickContext<'_>,
        endpoints: &Endpoints,
        count: usize,
    ) {
        let found = drawn.len;
        let mut waits = [f64::INFINITY; MAX_CHOICES];
        for (index, endpoint) in endpoints.iter().enumerate() {
            if drawn.as_slice()[..found].contains(&index) || context.excludes(endpoint) {
                continue;
            }
            let share = self
                .uneven
                .as_ref()
                .map_or(1.0, |uneven| uneven.shares[index]);
            let wait = hash::wait(context.rng().next_u64()) / share;
            let place = found + waits[found..drawn.len].partition_point(|&other| other <= wait);
            if place < count {
                drawn.len = (drawn.len + 1).min(count);
                drawn.indices.copy_within(place..drawn.len - 1, place + 1);
                waits.copy_within(place..drawn.len - 1, place + 1);
                (drawn.indices[place], waits[place]) = (index, wait);
            }
        }
    }
}

/// Different indices in the order they were drawn, which is random: among equals, the first is a
/// fair choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    indices: [usize; MAX_CHOICES],
    len: usize,
}

impl Drawn {
    const fn none() -> Self {
        Self {
            indices: [0; MAX_CHOICES],
            len: 0,
        }
    }

    /// Every ordered selection is equally likely.
    #[inline]
    fn uniform(rng: &mut Rng, bound: usize, count: usize) -> Self {
        let mut indices = [0; MAX_CHOICES];
        let len = count.min(bound);
        if len == 2 {
            (indices[0], indices[1]) = rng.two_below(bound);
            return Self { indices, len };
        }
        // The k-th draw is a rank among those not drawn yet; stepping over the smaller ones drawn
        // before, in ascending order, turns the rank into the index.
        let mut ascending = [0; MAX_CHOICES];
        for (drawn, place) in indices[..len].iter_mut().enumerate() {
            let mut index = rng.below(bound - drawn);
            let mut at = 0;
            while at < drawn && ascending[at] <= index {
                index += 1;
                at += 1;
            }
            ascending.copy_within(at..drawn, at + 1);
            ascending[at] = index;
            *place = index;
        }
        Self { indices, len }
    }

    fn weighted(rng: &mut Rng, table: &AliasTable, bound: usize, count: usize) -> Self {
        let mut drawn = Self::none();
        drawn.add(table.draw(rng));
        if count >= bound {
            // All the others, in random order.
            let rest = Self::uniform(rng, bound, bound);
            rest.as_slice().iter().for_each(|&index| drawn.add(index));
            return drawn;
        }
        for _ in 0..DRAWS_PER_CHOICE * count {
            if drawn.len == count {
                break;
            }
            drawn.add(table.draw(rng));
        }
        drawn
    }

    #[inline]
    fn add(&mut self, index: usize) {
        if !self.as_slice().contains(&index) {
            self.indices[self.len] = index;
            self.len += 1;
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.indices[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::{assert_shares, assert_uniform};

    #[test]
    fn every_ordered_selection_is_equally_likely() {
        let mut rng = Rng::from_seed(3);
        let mut seen = HashMap::<Vec<usize>, u64>::new();
        for _ in 0..60_000 {
            let drawn = Drawn::uniform(&mut rng, 5, 3);
            *seen.entry(drawn.as_slice().to_vec()).or_default() += 1;
        }
        assert_eq!(seen.len(), 60, "5 * 4 * 3 ordered selections");
        assert_uniform(&seen.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn wanting_more_than_there_are_draws_each_once() {
        let mut rng = Rng::from_seed(4);
        for bound in 0..=MAX_CHOICES {
            let mut all = Drawn::uniform(&mut rng, bound, MAX_CHOICES)
                .as_slice()
                .to_vec();
            all.sort_unstable();
            assert_eq!(all, (0..bound).collect::<Vec<_>>());
        }
    }

    #[test]
    fn uneven_shares_are_drawn_first_in_proportion_and_never_twice() {
        let shares = [1.0, 2.0, 3.0, 4.0];
        let sampler = Sampler::new(&shares);
        let mut rng = Rng::from_seed(5);
        for count in [2, 3, 4, 8] {
            let mut first = [0; 4];
            for _ in 0..20_000 {
                let drawn = sampler.several(&mut rng, count);
                first[drawn.as_slice()[0]] += 1;
                let mut distinct = drawn.as_slice().to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), drawn.as_slice().len());
                assert!(count < 4 || distinct.len() == 4);
            }
            assert_shares(&first, &shares);
        }
    }

    #[test]
    fn where_all_are_wanted_those_after_the_first_come_in_random_order() {
        let sampler = Sampler::new(&[1e18, 1.0, 1.0, 1.0]);
        let mut rng = Rng::from_seed(7);
        let mut orders = HashMap::<Vec<usize>, u64>::new();
        for _ in 0..6000 {
            let drawn = sampler.several(&mut rng, 8);
            assert_eq!(drawn.as_slice()[0], 0);
            *orders.entry(drawn.as_slice()[1..].to_vec()).or_default() += 1;
        }
        assert_eq!(orders.len(), 6);
        assert_uniform(&orders.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_dominant_share_may_leave_fewer_candidates_but_never_none() {
        let sampler = Sampler::new(&[1e18, 1.0, 1.0, 1.0]);
        let drawn = sampler.several(&mut Rng::from_seed(6), 2);
        assert_eq!(drawn.as_slice(), [0]);
    }

    #[test]
    fn the_number_of_choices_is_checked() {
        assert!(choices(1).is_err() && choices(9).is_err());
        assert_eq!((choices(2).unwrap(), choices(8).unwrap()), (2, 8));
    }
}
