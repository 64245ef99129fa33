//! Hashing that lets no endpoint overflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, Error, PickContext, Picker, Result, Rng,
};

use crate::eligible::{eligible, weights};
use crate::hash;
use crate::maglev::{self, Table};

/// Sends equal keys to one endpoint while it carries no more than `balance` times its share of
/// this client's requests under way, and else to the next of an order that the key alone decides
/// ([Mirrokni, Thorup, Zadimoghaddam 2018](https://arxiv.org/abs/1608.01350)).
///
/// The order is a walk over [`Maglev`](crate::Maglev)'s table in jumps that look random, rather
/// than to the neighbour: the overflow of a hot endpoint then falls on all others alike
/// ([Chen, Coleman, Shrivastava 2021](https://arxiv.org/abs/1908.08762)). An overflowing key keeps
/// its second choice, and its third, so caches there stay warm. Where 32 jumps all meet full
/// endpoints, all are looked at one after the other. A request without a key starts anywhere.
///
/// The mean is kept by re-reading all counts once in n / 8 picks on average: it lags behind by an
/// eighth of a request for each endpoint, and with up to 8 endpoints by nothing.
///
/// *Pick*: O(1) on average: one look-up and one relaxed load for each jump, about `balance` /
/// (`balance` - 1) of them where most are full; now and then all counts are read. *Rebuild*: as
/// [`Maglev`](crate::Maglev).
///
/// *Use it* for caches and other per-key state where some keys are hot. *Not* where a key must
/// never leave its endpoint: see [`Maglev`](crate::Maglev).
#[derive(Clone, Debug)]
pub struct BoundedLoadHash {
    maglev: maglev::Maglev,
    balance: f64,
}

/// A quarter above the mean: a full endpoint's keys find room after 5 jumps at worst, on average.
const DEFAULT_BALANCE: f64 = 1.25;

/// Beyond that nothing is bounded in practice.
const MAX_BALANCE: f64 = 100.0;

/// With the default balance at most 4 in 5 endpoints are full, and 32 jumps meet only full ones
/// with probability below 0.001, unless one key has most of the traffic.
const MAX_JUMPS: u64 = 32;

/// How many endpoints' counts are read again for each pick, on average.
const READS_PER_PICK: usize = 8;

impl BoundedLoadHash {
    /// With a balance of 1.25 and a table of 65,537 slots.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            maglev: maglev::Maglev::new(),
            balance: DEFAULT_BALANCE,
        }
    }

    /// With this many times an endpoint's share as its bound: above 1, up to 100. Default: 1.25.
    ///
    /// Less spreads load more evenly, more keeps keys together.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_balance(mut self, balance: f64) -> Result<Self> {
        if !(balance > 1.0 && balance <= MAX_BALANCE) {
            return Err(Error::invalid(
                "balance",
                balance,
                "is not above 1 and up to 100",
            ));
        }
        self.balance = balance;
        Ok(self)
    }

    /// With a table of this many slots; see [`Maglev`](crate::Maglev::with_table_size).
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range
    /// or if it is not prime.
    pub fn with_table_size(mut self, size: usize) -> Result<Self> {
        self.maglev = self.maglev.with_table_size(size)?;
        Ok(self)
    }
}

impl Default for BoundedLoadHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for BoundedLoadHash {
    fn name(&self) -> &'static str {
        "bounded_load_hash"
    }

    fn reads_load(&self) -> bool {
        false
    }

    /// # Errors
    /// Also if there are more endpoints than slots.
    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        let table = Table::new(&endpoints, self.maglev.size())?;
        let weights = weights(&endpoints);
        let sum: f64 = weights.iter().sum();
        let bounds = weights
            .iter()
            .map(|weight| self.balance * weight / sum)
            .collect();
        let picker = BoundedLoadHashPicker {
            endpoints,
            table,
            bounds,
            total: Total(AtomicU64::new(0)),
        };
        picker.count();
        Ok(Box::new(picker))
    }
}

#[derive(Debug)]
struct BoundedLoadHashPicker {
    endpoints: Endpoints,
    table: Table,
    /// The part of all requests that each endpoint may carry.
    bounds: Box<[f64]>,
    total: Total,
}

/// This client's requests under way, as last counted. Apart from what every pick reads.
#[derive(Debug)]
#[repr(align(128))]
struct Total(AtomicU64);

impl Picker for BoundedLoadHashPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return self.endpoints.first();
        }
        let mut place = hash::mix(hash::key(context));
        let total = self.total(context.rng());
        let mut index = self.table.get(place);
        for jump in 1..=MAX_JUMPS {
            if self.fullness(index, total) <= 1.0 {
                return self.endpoints.get(index);
            }
            place = hash::mix(place.wrapping_add(jump));
            index = self.table.get(place);
        }
        self.first_with_room(index, total)
    }
}

impl BoundedLoadHashPicker {
    /// What part of its bound an endpoint would carry with one request more.
    #[inline]
    fn fullness(&self, index: usize, total: f64) -> f64 {
        let after = f64::from(self.endpoints[index].in_flight()) + 1.0;
        after / (self.bounds[index] * (total + 1.0)).ceil()
    }

    /// The first endpoint with room from `start` on, or else the least full: bounds add up to more
    /// than the total, so there is room unless the total is out of date.
    #[cold]
    fn first_with_room(&self, start: usize, total: f64) -> Option<&Arc<Endpoint>> {
        let mut least = (f64::INFINITY, start);
        let n = self.endpoints.len();
        for index in (start..n).chain(0..start) {
            let fullness = self.fullness(index, total);
            if fullness < least.0 {
                least = (fullness, index);
            }
            if fullness <= 1.0 {
                break;
            }
        }
        self.endpoints.get(least.1)
    }

    /// Requests under way, counted again at times.
    #[inline]
    fn total(&self, rng: &mut Rng) -> f64 {
        let n = self.endpoints.len();
        if n <= READS_PER_PICK || rng.below(n) < READS_PER_PICK {
            self.count()
        } else {
            self.total.0.load(Ordering::Relaxed) as f64
        }
    }

    fn count(&self) -> f64 {
        let total = self
            .endpoints
            .iter()
            .map(|e| u64::from(e.in_flight()))
            .sum();
        self.total.0.store(total, Ordering::Relaxed);
        total as f64
    }
}

#[cfg(test)]
mod tests;
