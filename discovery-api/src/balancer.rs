//! Choosing an endpoint.

use std::fmt;
use std::sync::Arc;

use crate::{Clock, Endpoint, Result, Rng, Timestamp};

/// The endpoints that may be picked: sorted by id, each id once. Cheap to clone.
pub type Endpoints = Arc<[Arc<Endpoint>]>;

/// A balancing algorithm.
///
/// It is told of every membership change and builds a [`Picker`] for the new set. Calls come one
/// at a time from one owner, off the request path, so it may keep what it wants to carry from one
/// picker to the next (a position, a table to change in place) as plain fields.
pub trait Balancer: fmt::Debug + Send + 'static {
    /// The algorithm's name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether its pickers read the load that servers publish. If not, a client need not follow
    /// it. Default: they may.
    fn reads_load(&self) -> bool {
        true
    }

    /// Builds the picker for `endpoints`, which may be empty.
    ///
    /// Called again when membership, weights or health change; not when load does, which is read
    /// from the endpoints at each pick.
    ///
    /// # Errors
    /// If no picker can be built from these endpoints, say because all weights are zero.
    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>>;
}

impl<B: Balancer + ?Sized> Balancer for Box<B> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn reads_load(&self) -> bool {
        (**self).reads_load()
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        (**self).build(endpoints)
    }
}

/// Picks among a fixed set of endpoints.
///
/// The hot path: synchronous, without locks, without allocation, shared by any number of threads.
/// It reads the endpoints' counters and leaves counting the pick to its caller.
pub trait Picker: fmt::Debug + Send + Sync + 'static {
    /// Chooses an endpoint; `None` only if there is none.
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>>;
}

/// What a pick may depend on besides the endpoints.
#[derive(Debug)]
pub struct PickContext<'a> {
    rng: &'a mut Rng,
    clock: &'a dyn Clock,
    key: Option<u64>,
}

impl<'a> PickContext<'a> {
    /// With this randomness and time.
    #[inline]
    pub fn new(rng: &'a mut Rng, clock: &'a dyn Clock) -> Self {
        Self {
            rng,
            clock,
            key: None,
        }
    }

    /// The same with the request's key, hashed: balancers that hash send equal keys to one
    /// endpoint, others ignore it.
    #[inline]
    #[must_use]
    pub fn with_key(mut self, key: Option<u64>) -> Self {
        self.key = key;
        self
    }

    /// The same once more, so that it can be given another key for a pick within a pick.
    #[inline]
    pub fn reborrow(&mut self) -> PickContext<'_> {
        PickContext {
            rng: self.rng,
            clock: self.clock,
            key: self.key,
        }
    }

    /// The source of randomness.
    #[inline]
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// The time. Read the clock only if it matters: it costs as much as a cheap pick.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The request's key, hashed, where the caller gave one.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<u64> {
        self.key
    }
}

const _: fn(&dyn Balancer, &dyn Picker) = |_, _| {};
