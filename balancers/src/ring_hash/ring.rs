//! The ring itself.

use crate::md5::md5;

/// Points on a circle of 2^32 places, each owned by an index.
#[derive(Debug)]
pub(super) struct Ring {
    /// In ascending order of place, each place once.
    points: Box<[Point]>,
    /// For each of 2^k equal arcs, the first point at or after its start.
    guide: Box<[u32]>,
    /// 32 - k.
    shift: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u32,
    owner: u32,
}

/// Digests for an endpoint of mean weight; each gives four points.
const DIGESTS: u64 = 40;

impl Ring {
    /// For each label, as many points as its weight is due, at least four.
    ///
    /// Where two points fall on one place, the one of the lower index stands.
    pub(super) fn new(labels: &[(String, u32)]) -> Self {
        let sum: u64 = labels.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut points = Vec::with_capacity(labels.len() * 160);
        for ((label, weight), owner) in labels.iter().zip(0..) {
            let digests = DIGESTS * labels.len() as u64 * u64::from(*weight) / sum;
            for number in 0..digests.max(1) {
                let digest = md5(format!("{label}-{number}").as_bytes());
                points.extend(digest.chunks_exact(4).map(|bytes| {
                    let place = bytes
                        .iter()
                        .rev()
                        .fold(0, |n, &byte| n << 8 | u32::from(byte));
                    Point { place, owner }
                }));
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|point| point.place);
        let arcs = points.len().next_power_of_two().clamp(2, 1 << 31);
        let shift = 32 - arcs.trailing_zeros();
        let mut first = 0_u32;
        let guide = (0..arcs as u64)
            .map(|arc| {
                let before = |at: u32| {
                    points
                        .get(at as usize)
                        .is_some_and(|p| u64::from(p.place) < arc << shift)
                };
                while before(first) {
                    first += 1;
                }
                first
            })
            .collect();
        Self {
            points: points.into(),
            guide,
            shift,
        }
    }

    /// Who owns the first point at or after `place`, round the circle. The ring is not empty.
    #[inline]
    pub(super) fn at(&self, place: u32) -> usize {
        let mut next = self.guide[(place >> self.shift) as usize] as usize;
        while self
            .points
            .get(next)
            .is_some_and(|point| point.place < place)
        {
            next += 1;
        }
        self.points.get(next).unwrap_or(&self.points[0]).owner as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix;

    fn labels(weights: &[u32]) -> Vec<(String, u32)> {
        weights
            .iter()
            .enumerate()
            .map(|(i, &w)| (format!("10.0.1.{}:11211", i + 1), w))
            .collect()
    }

    #[test]
    fn points_are_those_of_ketama() {
        // Laid out by an independent program, with another MD5, from the rule of libketama.
        let ring = Ring::new(&labels(&[1; 8]));
        let point = |place, owner| Point { place, owner };
        assert_eq!(ring.points.len(), 1280);
        assert_eq!(
            ring.points[..5],
            [
                point(762_113, 4),
                point(2_322_555, 4),
                point(3_967_256, 5),
                point(4_398_564, 3),
                point(4_826_654, 1),
            ]
        );
        assert_eq!(
            ring.points[1278..],
            [point(4_290_842_419, 6), point(4_293_620_028, 4)]
        );
    }

    #[test]
    fn points_are_numbered_by_weight() {
        let ring = Ring::new(&labels(&[1, 2, 5]));
        let count = |owner| {
            ring.points
                .iter()
                .filter(|point| point.owner == owner)
                .count()
        };
        assert_eq!([count(0), count(1), count(2)], [60, 120, 300]);
        let skewed = Ring::new(&labels(&[1, 1_000_000]));
        assert_eq!(
            skewed
                .points
                .iter()
                .filter(|point| point.owner == 0)
                .count(),
            4
        );
    }

    #[test]
    fn the_guide_leads_where_a_search_would_and_the_circle_closes() {
        for n in [1, 2, 3, 10, 257] {
            let ring = Ring::new(&labels(&vec![1; n]));
            #[expect(clippy::cast_possible_truncation, reason = "any 32 bits")]
            let random = (0..20_000).map(|n| mix(n) as u32);
            let edges = ring
                .points
                .iter()
                .flat_map(|p| [p.place, p.place.wrapping_add(1), p.place.wrapping_sub(1)]);
            for place in random.chain(edges).chain([0, u32::MAX]) {
                let searched = ring.points.partition_point(|point| point.place < place);
                let owner = ring.points[searched % ring.points.len()].owner as usize;
                assert_eq!(ring.at(place), owner);
            }
        }
    }
}
