//! The ring itself.

use std::fmt;
use std::sync::Arc;

use super::layout::Point;
use crate::keyed::MAX_TRIES;

/// Points on a circle of 2^32 places, each owned by an index.
pub(super) struct Ring {
    /// In ascending order; where several share a place, the first of them stands.
    points: Arc<[Point]>,
    /// For each of 2^k equal arcs, the first point at or after its start.
    guide: Box<[u32]>,
    /// 32 - k.
    shift: u32,
}

impl Ring {
    /// Over `points` in ascending order.
    pub(super) fn new(points: Arc<[Point]>) -> Self {
        let arcs = points.len().next_power_of_two().clamp(2, 1 << 31);
        let shift = 32 - arcs.trailing_zeros();
        let mut guide = vec![0; arcs].into_boxed_slice();
        // Before the first at or after an arc's start there are all points of the arcs before it.
        // Counts and their sums take no branch that chance decides.
        for point in points.iter() {
            if let Some(count) = guide.get_mut((point.place >> shift) as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for first in &mut guide {
            sum += *first;
            *first = sum;
        }
        Self {
            points,
            guide,
            shift,
        }
    }

    /// Who owns the first point at or after `place`, round the circle. The ring is not empty.
    #[inline]
    pub(super) fn at(&self, place: u32) -> usize {
        let first = self.first(place);
        self.points.get(first).unwrap_or(&self.points[0]).owner as usize
    }

    /// The first owner that `accept` takes, from `place` on, once round the circle at most. An
    /// owner of several points in a row is asked once.
    pub(super) fn find(&self, place: u32, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        let (before, from) = self.points.split_at_checked(self.first(place))?;
        let (mut tries, mut refused) = (0, None);
        for point in from.iter().chain(before) {
            let owner = point.owner as usize;
            if refused == Some(owner) {
                continue;
            }
            if accept(owner) {
                return Some(owner);
            }
            refused = Some(owner);
            tries += 1;
            if tries == MAX_TRIES {
                break;
            }
        }
        None
    }

    /// The index of the first point at or after `place`; if there is none, the number of points.
    #[inline]
    fn first(&self, place: u32) -> usize {
        let mut next = self.guide[(place >> self.shift) as usize] as usize;
        while self
            .points
            .get(next)
            .is_some_and(|point| point.place < place)
        {
            next += 1;
        }
        next
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("points", &self.points.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Label, Layout};
    use super::*;
    use crate::hash::mix;

    #[test]
    fn the_guide_leads_where_a_search_would_and_the_circle_closes() {
        for n in [1, 2, 3, 10, 257] {
            let labels = (0..n).map(|i| (Label::new(&format!("{i:03}"), None), 1));
            let points = Layout::default().next(labels.collect()).points();
            let ring = Ring::new(Arc::clone(&points));
            #[expect(clippy::cast_possible_truncation, reason = "any 32 bits")]
            let random = (0..20_000).map(|n| mix(n) as u32);
            let edges = points
                .iter()
                .flat_map(|p| [p.place, p.place.wrapping_add(1), p.place.wrapping_sub(1)]);
            for place in random.chain(edges).chain([0, u32::MAX]) {
                let searched = points.partition_point(|point| point.place < place);
                let owner = points[searched % points.len()].owner as usize;
                assert_eq!(ring.at(place), owner);
            }
        }
    }
}
