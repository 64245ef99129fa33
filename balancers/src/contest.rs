//! Which of several candidates takes a request.

/// One candidate: how many requests it carries, and what one request means to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) load: f64,
    /// The reciprocal of its share: 1 for an endpoint of the usual size, 0.5 for one of double.
    pub(crate) per_request: f64,
}

impl Candidate {
    /// How full it is.
    #[inline]
    pub(crate) fn before(&self) -> f64 {
        self.load * self.per_request
    }

    /// How full it would be with one request more.
    #[inline]
    pub(crate) fn after(&self) -> f64 {
        (self.load + 1.0) * self.per_request
    }
}

/// Finds the winner of candidates that enter one by one.
///
/// The first stands unless another would, with the request added, be no fuller than the first is
/// without it; of several such the one that would be least full, the earliest among equals.
///
/// For equal shares this is the least load, ties going to the first. For unequal shares it keeps
/// both ends right where simpler rules miss one: while all are idle the first stands, so traffic
/// follows the shares by which the first was drawn (least load after adding would always take
/// the largest); and one small idle endpoint does not win against a large one that carries a
/// single request (least load before adding would let it).
#[derive(Debug)]
pub(crate) struct Contest {
    entered: usize,
    first_before: f64,
    best: usize,
    best_after: f64,
}

impl Contest {
    pub(crate) const fn new() -> Self {
        Self {
            entered: 0,
            first_before: 0.0,
            best: 0,
            best_after: f64::INFINITY,
        }
    }

    #[inline]
    pub(crate) fn enter(&mut self, candidate: Candidate) {
        if self.entered == 0 {
            self.first_before = candidate.before();
        } else if candidate.after() < self.best_after {
            self.best = self.entered;
            self.best_after = candidate.after();
        }
        self.entered += 1;
    }

    /// The place of the winner in the order of entry.
    #[inline]
    pub(crate) fn winner(&self) -> usize {
        if self.best_after <= self.first_before {
            self.best
        } else {
            0
        }
    }
}

/// The reciprocals of `shares` relative to their mean: what one request means to each.
pub(crate) fn per_request(shares: &[f64]) -> Box<[f64]> {
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    shares.iter().map(|share| mean / share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(candidates: &[(u32, f64)]) -> usize {
        let candidate = |&(load, share): &(u32, f64)| Candidate {
            load: f64::from(load),
            per_request: 1.0 / share,
        };
        let mut contest = Contest::new();
        candidates
            .iter()
            .map(candidate)
            .for_each(|candidate| contest.enter(candidate));
        contest.winner()
    }

    #[test]
    fn among_equal_shares_the_least_load_wins_and_the_first_of_equals() {
        assert_eq!(among(&[(3, 1.0), (3, 1.0), (3, 1.0)]), 0);
        assert_eq!(among(&[(3, 1.0), (2, 1.0), (2, 1.0)]), 1);
        assert_eq!(among(&[(3, 1.0), (2, 1.0), (1, 1.0)]), 2);
        assert_eq!(among(&[(0, 1.0)]), 0);
    }

    #[test]
    fn among_idle_ones_the_first_stands_whatever_its_share() {
        assert_eq!(among(&[(0, 1.0), (0, 8.0)]), 0);
        assert_eq!(among(&[(0, 8.0), (0, 1.0)]), 0);
    }

    #[test]
    fn a_request_moves_only_where_it_leaves_a_fuller_endpoint_behind() {
        assert_eq!(
            among(&[(1, 8.0), (0, 1.0)]),
            0,
            "1 of 1 is fuller than 1 of 8"
        );
        assert_eq!(
            among(&[(8, 8.0), (0, 1.0)]),
            1,
            "1 of 1 is as full as 8 of 8"
        );
        assert_eq!(among(&[(1, 1.0), (7, 8.0)]), 1);
        assert_eq!(among(&[(1, 1.0), (8, 8.0)]), 0);
    }
}
