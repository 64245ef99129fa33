//! The arithmetic of each algorithm, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Node;
use crate::set::{Key, Set, hash};

/// Chooses an index.
pub trait Choose: Send + Sync + 'static {
    /// What each thread has of its own.
    type State;

    fn new(set: Set) -> Self;
    fn state(&self) -> Self::State;
    fn choose(&self, nodes: &[Arc<Node>], state: &mut Self::State, key: &Key) -> usize;
}

/// Taking turns, each thread for itself.
pub struct OwnTurn;

impl Choose for OwnTurn {
    type State = usize;

    fn new(_: Set) -> Self {
        Self
    }

    fn state(&self) -> usize {
        0
    }

    #[inline]
    fn choose(&self, nodes: &[Arc<Node>], next: &mut usize, _: &Key) -> usize {
        let index = *next;
        *next = if index + 1 == nodes.len() {
            0
        } else {
            index + 1
        };
        index
    }
}

/// Taking turns in a cycle where each has as many in a row as it weighs, from a shared counter.
pub struct SharedTurn {
    cycle: Box<[u32]>,
    turn: Turn,
}

#[repr(align(128))]
struct Turn(AtomicUsize);

impl Choose for SharedTurn {
    type State = ();

    fn new(set: Set) -> Self {
        let turns = |number| std::iter::repeat_n(number as u32, set.weight(number) as usize);
        let cycle = if set.weighted {
            set.numbers().flat_map(turns).collect()
        } else {
            Box::default()
        };
        Self {
            cycle,
            turn: Turn(AtomicUsize::new(0)),
        }
    }

    fn state(&self) {}

    #[inline]
    fn choose(&self, nodes: &[Arc<Node>], (): &mut (), _: &Key) -> usize {
        let turn = self.turn.0.fetch_add(1, Ordering::Relaxed);
        if self.cycle.is_empty() {
            turn % nodes.len()
        } else {
            self.cycle[turn % self.cycle.len()] as usize
        }
    }
}

/// Any.
pub struct Chance;

impl Choose for Chance {
    type State = fastrand::Rng;

    fn new(_: Set) -> Self {
        Self
    }

    fn state(&self) -> fastrand::Rng {
        fastrand::Rng::new()
    }

    #[inline]
    fn choose(&self, nodes: &[Arc<Node>], rng: &mut fastrand::Rng, _: &Key) -> usize {
        rng.usize(..nodes.len())
    }
}

/// Any in proportion to weight: Walker's alias table in integers.
pub struct Alias(Box<[(u32, u32)]>);

impl Alias {
    pub fn of(weights: &[u32]) -> Self {
        let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut left: Vec<u64> = weights
            .iter()
            .map(|&w| u64::from(w) * weights.len() as u64)
            .collect();
        let mut columns: Box<[_]> = (0..weights.len() as u32)
            .map(|other| (u32::MAX, other))
            .collect();
        let (mut short, mut long): (Vec<_>, Vec<_>) =
            (0..weights.len()).partition(|&i| left[i] < sum);
        while let (Some(&little), Some(&large)) = (short.last(), long.last()) {
            short.pop();
            columns[little] = (((left[little] << 32) / sum) as u32, large as u32);
            left[large] -= sum - left[little];
            if left[large] < sum {
                long.pop();
                short.push(large);
            }
        }
        Self(columns)
    }
}

impl Choose for Alias {
    type State = fastrand::Rng;

    fn new(set: Set) -> Self {
        Self::of(&set.weights())
    }

    fn state(&self) -> fastrand::Rng {
        fastrand::Rng::new()
    }

    #[inline]
    fn choose(&self, nodes: &[Arc<Node>], rng: &mut fastrand::Rng, _: &Key) -> usize {
        let index = rng.usize(..nodes.len());
        let (own, other) = self.0[index];
        if rng.u32(..) < own {
            index
        } else {
            other as usize
        }
    }
}

/// The one of two different ones, drawn at random, with fewer in flight.
pub struct TwoChoices;

impl Choose for TwoChoices {
    type State = fastrand::Rng;

    fn new(_: Set) -> Self {
        Self
    }

    fn state(&self) -> fastrand::Rng {
        fastrand::Rng::new()
    }

    #[inline]
    fn choose(&self, nodes: &[Arc<Node>], rng: &mut fastrand::Rng, _: &Key) -> usize {
        let first = rng.usize(..nodes.len());
        let second = rng.usize(..nodes.len() - 1);
        let second = if second >= first { second + 1 } else { second };
        if nodes[second].in_flight() < nodes[first].in_flight() {
            second
        } else {
            first
        }
    }
}

/// The one with the fewest in flight, from a place at random on.
pub struct Least;

impl Choose for Least {
    type State = fastrand::Rng;

    fn new(_: Set) -> Self {
        Self
    }

    fn state(&self) -> fastrand::Rng {
        fastrand::Rng::new()
    }

    #[inline]
    fn choose(&self, nodes: &[Arc<Node>], rng: &mut fastrand::Rng, _: &Key) -> usize {
        let start = rng.usize(..nodes.len());
        let (mut best, mut least) = (start, u32::MAX);
        for index in (start..nodes.len()).chain(0..start) {
            let in_flight = nodes[index].in_flight();
            if in_flight < least {
                (best, least) = (index, in_flight);
            }
        }
        best
    }
}

/// 160 points for each, or as its weight is due; binary search.
pub struct Ring(Box<[(u64, u32)]>);

impl Ring {
    pub fn of(weights: &[u32]) -> Self {
        let mean = f64::from(weights.iter().sum::<u32>()) / weights.len() as f64;
        let mut points = Vec::new();
        for (number, &weight) in weights.iter().enumerate() {
            let count = (160.0 * f64::from(weight) / mean).round() as u64;
            let point = |replica: u64| {
                let key = u128::from(replica) << 64 | number as u128;
                (hash(&key.to_le_bytes()), number as u32)
            };
            points.extend((1..=count).map(point));
        }
        points.sort_unstable();
        Self(points.into())
    }
}

impl Choose for Ring {
    type State = ();

    fn new(set: Set) -> Self {
        Self::of(&set.weights())
    }

    fn state(&self) {}

    #[inline]
    fn choose(&self, _: &[Arc<Node>], (): &mut (), key: &Key) -> usize {
        let place = hash(key);
        let next = self.0.partition_point(|point| point.0 < place);
        self.0.get(next).unwrap_or(&self.0[0]).1 as usize
    }
}

/// 65,537 slots, handed out in turns of weight.
pub struct Table(Box<[u32]>);

impl Choose for Table {
    type State = ();

    fn new(set: Set) -> Self {
        let turns = |number| std::iter::repeat_n(number as u32, set.weight(number) as usize);
        let cycle: Vec<u32> = set.numbers().flat_map(turns).collect();
        let mut slots: Box<[u32]> = cycle.iter().copied().cycle().take(65_537).collect();
        fastrand::Rng::with_seed(2).shuffle(&mut slots);
        Self(slots)
    }

    fn state(&self) {}

    #[inline]
    fn choose(&self, _: &[Arc<Node>], (): &mut (), key: &Key) -> usize {
        let slot = (u128::from(hash(key)) * self.0.len() as u128) >> 64;
        self.0[slot as usize] as usize
    }
}
