//! Hashing that lets no endpoint overflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, Exclusion, PickContext, Picker, Result, Rng,
};

use crate::eligible::weights;
use crate::hash;
use crate::keyed::{KeyedBalancer, KeyedPicker};
use crate::left::{by_key, only};
use crate::maglev::Maglev;

/// Sends equal keys to one endpoint while it carries no more than `balance` times its share of
/// this client's requests under way, and else to the next of an order that the key alone decides
/// ([Mirrokni, Thorup, Zadimoghaddam 2018](https://arxiv.org/abs/1608.01350)).
///
/// The order is that of the algorithm it goes round, so an overflowing key keeps its second choice,
/// and its third, and caches there stay warm:
///
/// - [`Maglev`]'s, the default, is a walk over the table in jumps that look random: the overflow of
///   a hot endpoint falls on all others alike
///   ([Chen, Coleman, Shrivastava 2021](https://arxiv.org/abs/1908.08762)).
/// - [`RingHash`](crate::RingHash)'s leads on along the ring, as in the paper and as other clients
///   of the ring go: the overflow falls on whoever stands behind the points of the full one.
/// - [`Rendezvous`](crate::Rendezvous)'s goes from the best draw to the worst: overflow falls on
///   all others by weight.
/// - Any [`KeyedBalancer`] may take their place.
///
/// Where the order ends with none that has room (the first two give up after 32), all endpoints are
/// looked at one after the other: while any has room, one with room is picked. A request without a
/// key starts anywhere.
///
/// The mean is kept by re-reading all counts once in n / 8 picks on average: it lags behind by an
/// eighth of a request for each endpoint, and with up to 8 endpoints by nothing.
///
/// *Pick*: that of the algorithm it goes round, and for each alternative one more step of it and
/// one relaxed load, about `balance` / (`balance` - 1) of them where most are full; now and then
/// all counts are read. *Rebuild*: as the algorithm, and O(n).
///
/// *Use it* for caches and other per-key state where some keys are hot. *Not* where a key must
/// never leave its endpoint: use the algorithm alone.
///
/// ```
/// use plimsoll_balancers::{BoundedLoadHash, RingHash};
///
/// # fn main() -> plimsoll_discovery_api::Result<()> {
/// let balancer = BoundedLoadHash::over(RingHash::new().with_authority(true)).with_balance(1.5)?;
/// # drop(balancer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BoundedLoadHash<B = Maglev> {
    keyed: B,
    balance: f64,
}

/// A quarter above the mean: a full endpoint's keys find room after 5 steps at worst, on average.
const DEFAULT_BALANCE: f64 = 1.25;

/// Beyond that nothing is bounded in practice.
const MAX_BALANCE: f64 = 100.0;

/// How many endpoints' counts are read again for each pick, on average.
const READS_PER_PICK: usize = 8;

impl BoundedLoadHash {
    /// Over [`Maglev`] with a table of 65,537 slots, with a balance of 1.25.
    #[must_use]
    pub const fn new() -> Self {
        Self::over(Maglev::new())
    }

    /// With a table of this many slots; see [`Maglev::with_table_size`].
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range
    /// or if it is not prime.
    pub fn with_table_size(mut self, size: usize) -> Result<Self> {
        self.keyed = self.keyed.with_table_size(size)?;
        Ok(self)
    }
}

impl<B> BoundedLoadHash<B> {
    /// Over `keyed`, with a balance of 1.25.
    #[must_use]
    pub const fn over(keyed: B) -> Self {
        Self {
            keyed,
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
}

impl<B: Default> Default for BoundedLoadHash<B> {
    fn default() -> Self {
        Self::over(B::default())
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: KeyedBalancer> Balancer for BoundedLoadHash<B> {
    fn name(&self) -> &'static str {
        "bounded_load_hash"
    }

    fn reads_load(&self) -> bool {
        self.keyed.reads_load()
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.keyed.set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        self.keyed.ejects()
    }

    /// # Errors
    /// As the algorithm it goes round.
    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let keyed = self.keyed.build_keyed(endpoints)?;
        let weights = weights(keyed.endpoints());
        let sum: f64 = weights.iter().sum();
        let bounds = weights
            .iter()
            .map(|weight| self.balance * weight / sum)
            .collect();
        let picker = BoundedLoadHashPicker {
            keyed,
            bounds,
            total: Total(AtomicU64::new(0)),
        };
        picker.count();
        Ok(Box::new(picker))
    }
}

#[derive(Debug)]
struct BoundedLoadHashPicker<P> {
    keyed: P,
    /// The part of all requests that each endpoint may carry.
    bounds: Box<[f64]>,
    total: Total,
}

/// This client's requests under way, as last counted. Apart from what every pick reads.
#[derive(Debug)]
#[repr(align(128))]
struct Total(AtomicU64);

impl<P: KeyedPicker> Picker for BoundedLoadHashPicker<P> {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let endpoints = self.keyed.endpoints();
        if endpoints.len() < 2 {
            return only(endpoints, context);
        }
        let exclusion = context.exclusion();
        let key = hash::key(context);
        let total = self.total(context.rng());
        let mut last = 0;
        let found = self.keyed.find(key, |index| {
            last = index;
            self.fullness(index, total, exclusion) <= 1.0
        });
        let index = found
            .or_else(|| {
                // One that stands in for most of the table may be excluded.
                exclusion.and_then(|_| {
                    let has_room = |index| self.fullness(index, total, exclusion) <= 1.0;
                    by_key(endpoints, key, has_room)
                })
            })
            .or_else(|| self.first_with_room(last, total, exclusion));
        endpoints.get(index?)
    }
}

impl<P: KeyedPicker> BoundedLoadHashPicker<P> {
    /// What part of its bound an endpoint would carry with one request more; infinite for one that
    /// is excluded, or an index that there is not.
    #[inline]
    fn fullness(&self, index: usize, total: f64, exclusion: Option<&Exclusion<'_>>) -> f64 {
        let of = self
            .keyed
            .endpoints()
            .get(index)
            .zip(self.bounds.get(index));
        let of = of.filter(|(endpoint, _)| exclusion.is_none_or(|e| !e.excludes(endpoint)));
        of.map_or(f64::INFINITY, |(endpoint, bound)| {
            (f64::from(endpoint.in_flight()) + 1.0) / (bound * (total + 1.0)).ceil()
        })
    }

    /// The first endpoint with room from `start` on, or else the least full; `None` if all are
    /// excluded. Bounds add up to more than the total, so there is room unless the total is out of
    /// date or too many are excluded.
    #[cold]
    fn first_with_room(
        &self,
        start: usize,
        total: f64,
        exclusion: Option<&Exclusion<'_>>,
    ) -> Option<usize> {
        let mut least = (f64::INFINITY, None);
        let n = self.bounds.len();
        let start = start.min(n);
        for index in (start..n).chain(0..start) {
            let fullness = self.fullness(index, total, exclusion);
            if fullness < least.0 {
                least = (fullness, Some(index));
            }
            if fullness <= 1.0 {
                break;
            }
        }
        least.1
    }

    /// Requests under way, counted again at times.
    #[inline]
    fn total(&self, rng: &mut Rng) -> f64 {
        let n = self.bounds.len();
        if n <= READS_PER_PICK || rng.below(n) < READS_PER_PICK {
            self.count()
        } else {
            self.total.0.load(Ordering::Relaxed) as f64
        }
    }

    fn count(&self) -> f64 {
        let endpoints = self.keyed.endpoints().iter();
        let total = endpoints.map(|e| u64::from(e.in_flight())).sum();
        self.total.0.store(total, Ordering::Relaxed);
        total as f64
    }
}

#[cfg(test)]
mod tests;
