//! Taking turns.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, Exclusion, PickContext, Picker, Result, Rng,
};

use crate::eligible::eligible;
use crate::left::only;
use crate::turn::{MAX_PASSES, Turn};

/// Picks one endpoint after the other, in the order of their ids, whatever the weights (zero
/// aside: weight zero gets no traffic).
///
/// The order survives every rebuild: the endpoint whose turn it was is still next, or the one
/// after it if it has left, so a busy registry never sends the turn back to the first few. The
/// first turn is drawn at random, lest clients that start together march in step.
///
/// *Pick*: O(1), one atomic increment shared by all threads and a 32-bit division. *Rebuild*:
/// O(n), to read the weights; the list is copied only where one is zero.
///
/// *Use it* when requests cost about the same on servers of about the same size: it spreads
/// requests as evenly as can be. *Not* when one server may be slow: it gets its full share
/// nonetheless; see [`LeastRequest`](crate::LeastRequest).
#[derive(Debug)]
pub struct RoundRobin {
    start: Start,
    last: Option<(Endpoints, Arc<Turn>)>,
}

#[derive(Debug)]
enum Start {
    At(usize),
    Random(Rng),
}

impl RoundRobin {
    /// With a first turn at random, from the operating system's entropy.
    #[must_use]
    pub fn new() -> Self {
        Self::from_rng(Rng::from_entropy())
    }

    /// With a first turn drawn from `rng`.
    #[must_use]
    pub fn from_rng(rng: Rng) -> Self {
        Self {
            start: Start::Random(rng),
            last: None,
        }
    }

    /// With a first turn at `index` in the first set that is not empty, counted round it.
    #[must_use]
    pub fn starting_at(index: usize) -> Self {
        Self {
            start: Start::At(index),
            last: None,
        }
    }

    /// The index in `endpoints`, which is not empty, of the one whose turn it is.
    fn resume(&mut self, endpoints: &Endpoints) -> usize {
        let Some((before, turn)) = &self.last else {
            return match &mut self.start {
                Start::At(index) => *index % endpoints.len(),
                Start::Random(rng) => rng.below(endpoints.len()),
            };
        };
        let due = before[turn.peek(before.len())].id();
        let index = endpoints.partition_point(|endpoint| endpoint.id() < due);
        if index == endpoints.len() { 0 } else { index }
    }
}

impl Default for RoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        let turn = if endpoints.is_empty() {
            Arc::new(Turn::at(0))
        } else {
            let turn = Arc::new(Turn::at(self.resume(&endpoints)));
            self.last = Some((Arc::clone(&endpoints), Arc::clone(&turn)));
            turn
        };
        Ok(Box::new(RoundRobinPicker { endpoints, turn }))
    }
}

#[derive(Debug)]
struct RoundRobinPicker {
    endpoints: Endpoints,
    turn: Arc<Turn>,
}

impl Picker for RoundRobinPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let size = self.endpoints.len();
        if size < 2 {
            return only(&self.endpoints, context);
        }
        match context.exclusion() {
            None => self.endpoints.get(self.turn.take(size)),
            Some(exclusion) => self.other(exclusion),
        }
    }
}

impl RoundRobinPicker {
    /// Passes over those that are excluded: their turns are lost, so that the others' stay even.
    #[cold]
    #[inline(never)]
    fn other(&self, exclusion: &Exclusion<'_>) -> Option<&Arc<Endpoint>> {
        let size = self.endpoints.len();
        let mut due = self.turn.take(size);
        for _ in 0..MAX_PASSES.min(size) {
            if !exclusion.excludes(&self.endpoints[due]) {
                return self.endpoints.get(due);
            }
            due = self.turn.take(size);
        }
        let mut round = self.endpoints[due..].iter().chain(&self.endpoints[..due]);
        round.find(|endpoint| !exclusion.excludes(endpoint))
    }
}

#[cfg(test)]
mod tests;
