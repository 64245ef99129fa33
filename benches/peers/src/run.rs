//! Measuring a group at every size.

use crate::check::check;
use crate::groups::{Group, reference};
use crate::measure::{Contestant, median};
use crate::set::{Key, Set};
use crate::subject::Kind;

pub const SIZES: [usize; 5] = [3, 10, 100, 1_000, 10_000];

/// One subject's measurements; an empty list where it did not take part.
pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub one: [Vec<f64>; SIZES.len()],
    pub two: [Vec<f64>; SIZES.len()],
    pub allocations: f64,
}

/// A group's measurements, for equal or unequal weights.
pub struct Results {
    pub rows: Vec<Row>,
    /// By size, the reference's last median over its first, and the spread of both: the distance
    /// between the quartiles over the median.
    pub drift: Vec<(f64, f64)>,
}

pub fn run(group: &Group, weighted: bool, repetitions: usize, keys: &[Key]) -> Results {
    let mut results = Results {
        rows: Vec::new(),
        drift: Vec::new(),
    };
    for (place, &size) in SIZES.iter().enumerate() {
        let set = Set { size, weighted };
        let mut all = vec![reference(set, "(reference)")];
        all.extend((group.make)(set));
        all.push(reference(set, "(reference again)"));
        if size == 10 {
            all.iter()
                .for_each(|contestant| check(contestant, set, keys));
        }
        all.iter_mut()
            .for_each(|contestant| contestant.calibrate(keys));
        for _ in 0..repetitions {
            all.iter_mut()
                .for_each(|contestant| contestant.repeat(keys));
        }
        all.iter().for_each(|contestant| contestant.probe.settled());
        results.drift.push(drift(&all));
        all.into_iter()
            .for_each(|contestant| results.take(contestant, place));
    }
    results
}

fn drift(all: &[Contestant]) -> (f64, f64) {
    let [first, .., last] = all else {
        return (f64::NAN, f64::NAN);
    };
    let mut both: Vec<f64> = first.one.iter().chain(&last.one).copied().collect();
    both.sort_by(f64::total_cmp);
    let quartiles = both[both.len() * 3 / 4] - both[both.len() / 4];
    let (begun, ended) = (
        median(first.one.iter().copied()),
        median(last.one.iter().copied()),
    );
    (ended / begun, quartiles / both[both.len() / 2])
}

impl Results {
    fn take(&mut self, contestant: Contestant, place: usize) {
        let Contestant {
            name,
            kind,
            one,
            two,
            allocations,
            ..
        } = contestant;
        let at = self
            .rows
            .iter()
            .position(|row| row.name == name)
            .unwrap_or_else(|| {
                let (one, two) = Default::default();
                self.rows.push(Row {
                    name,
                    kind,
                    one,
                    two,
                    allocations,
                });
                self.rows.len() - 1
            });
        let row = &mut self.rows[at];
        row.allocations = row.allocations.max(allocations);
        (row.one[place], row.two[place]) = (one, two);
    }

    pub fn of(&self, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.kind == kind)
    }

    /// The one with the lowest median among those of these kinds.
    pub fn fastest(&self, kinds: &[Kind], place: usize) -> Option<&Row> {
        let takes_part = |row: &&Row| kinds.contains(&row.kind) && !row.one[place].is_empty();
        let peers = self.rows.iter().filter(takes_part);
        let nanos = |row: &&Row| median(row.one[place].iter().copied());
        peers.min_by(|a, b| nanos(a).total_cmp(&nanos(b)))
    }
}
