//! Taking turns in proportion to weight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result, Rng};

use crate::eligible::eligible;
use crate::left::only;
use crate::turn::{MAX_PASSES, Turn};

mod golden;
mod smooth;

use golden::Intervals;

/// Takes turns in proportion to weight, as evenly interleaved as can be: with weights 5, 1 and 1
/// the order is a a b a c a a, never five in a row.
///
/// Where the weights allow a short cycle it is nginx's smooth weighted round robin to the letter
/// ([source, 2-clause BSD](https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1)),
/// computed once and then read: after every cycle each endpoint has had its exact share. The
/// cycle counts as short up to 65,536 turns (the sum of the weights over their greatest common
/// divisor) and 1,048,576 turns times endpoints, so that a rebuild takes about a millisecond.
///
/// Else turns follow the golden ratio (Itai and Rosberg, A golden ratio control policy for a
/// multiple-access channel, IEEE Transactions on Automatic Control 29 (8), 1984): turn t falls
/// to the endpoint whose interval of \[0, 1), as long as its share, holds the fractional part of
/// t φ. The distance between two turns of an endpoint then takes three values at most, and of any
/// run of turns each endpoint has its share to within a few, for weights of any size.
///
/// The first turn is drawn at random, lest every client starts with the heaviest. A rebuild that
/// changes no weight keeps the turn; one that does goes on from a random one, so that a busy
/// registry favours nobody.
///
/// *Pick*: O(1), one atomic increment shared by all threads, and a look-up. *Rebuild*: O(n) or
/// about a millisecond, see above; 4 bytes for each turn of the cycle or 16 for each endpoint.
///
/// *Use it* when requests cost about the same and servers differ in size. *Not* when one server
/// may be slow: it gets its full share nonetheless; see [`LeastRequest`](crate::LeastRequest).
#[derive(Debug)]
pub struct WeightedRoundRobin {
    rng: Rng,
    last: Option<(Weights, Arc<Order>)>,
}

/// What an order depends on: the number and the weights, in the order of the ids.
type Weights = Vec<u32>;

impl WeightedRoundRobin {
    /// With turns at random from the operating system's entropy.
    #[must_use]
    pub fn new() -> Self {
        Self::from_rng(Rng::from_entropy())
    }

    /// With turns drawn from `rng` at the start and where weights change.
    #[must_use]
    pub const fn from_rng(rng: Rng) -> Self {
        Self { rng, last: None }
    }
}

impl Default for WeightedRoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "weighted_round_robin"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        let weights: Weights = endpoints.iter().map(|e| e.weight().get()).collect();
        let order = match &self.last {
            Some((same, order)) if *same == weights => Arc::clone(order),
            _ => {
                let order = Arc::new(Order::new(&weights, &mut self.rng));
                self.last = Some((weights, Arc::clone(&order)));
                order
            }
        };
        Ok(Box::new(WeightedRoundRobinPicker { endpoints, order }))
    }
}

/// Whose turn comes when.
#[derive(Debug)]
enum Order {
    Cycle {
        turn: Turn,
        cycle: Box<[u32]>,
    },
    Golden {
        turn: GoldenTurn,
        intervals: Intervals,
    },
}

/// On cache lines of its own, as every pick writes it.
#[derive(Debug)]
#[repr(align(128))]
struct GoldenTurn(AtomicU64);

impl Order {
    fn new(weights: &[u32], rng: &mut Rng) -> Self {
        match smooth::cycle(weights) {
            Some(cycle) => {
                let start = if cycle.is_empty() {
                    0
                } else {
                    rng.below(cycle.len())
                };
                Self::Cycle {
                    turn: Turn::at(start),
                    cycle,
                }
            }
            None => Self::Golden {
                turn: GoldenTurn(AtomicU64::new(rng.next_u64())),
                intervals: Intervals::new(weights),
            },
        }
    }

    #[inline]
    fn take(&self) -> usize {
        match self {
            Self::Cycle { turn, cycle } => cycle[turn.take(cycle.len())] as usize,
            Self::Golden { turn, intervals } => {
                intervals.at(turn.0.fetch_add(1, Ordering::Relaxed))
            }
        }
    }
}

#[derive(Debug)]
struct WeightedRoundRobinPicker {
    endpoints: Endpoints,
    order: Arc<Order>,
}

impl Picker for WeightedRoundRobinPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        if context.exclusion().is_none() {
            return self.endpoints.get(self.order.take());
        }
        self.other(context)
    }
}

impl WeightedRoundRobinPicker {
    /// Passes over those that are excluded: their turns are lost, so that the others keep their
    /// proportions. Where that takes too long, as one that weighs nearly everything is excluded,
    /// chance decides.
    #[cold]
    #[inline(never)]
    fn other(&self, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        for _ in 0..MAX_PASSES {
            let due = &self.endpoints[self.order.take()];
            if !context.excludes(due) {
                return Some(due);
            }
        }
        context.draw_by_weight(&self.endpoints)
    }
}

#[cfg(test)]
mod tests;
