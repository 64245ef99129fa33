//! Choosing an endpoint.

use std::fmt;
use std::sync::Arc;

use crate::{Capabilities, Clock, Endpoint, Exclusion, Result, Rng, Timestamp};

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

    /// Hears what the registry can do that the endpoints come from, such as how old a load may be
    /// and still be true. Whoever builds pickers says so before the first one, as plimsoll's client
    /// does; what a user has set by hand stands. Default: of no interest.
    ///
    /// A balancer that goes round others passes it on to each, also to those that it makes later.
    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        let _of_no_interest = capabilities;
    }

    /// Whether it leaves out by itself what fails. If so, a client leaves that to it. Asked after
    /// each build. Default: it does not.
    fn ejects(&self) -> bool {
        false
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

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer + ?Sized> Balancer for Box<B> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn reads_load(&self) -> bool {
        (**self).reads_load()
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        (**self).set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        (**self).ejects()
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        (**self).build(endpoints)
    }
}

/// Picks among a fixed set of endpoints.
///
/// The hot path: synchronous, without locks, without allocation, shared by any number of threads.
/// It reads the endpoints' counters and leaves counting the pick to its caller.
///
/// # Exclusion
/// The context may [exclude](PickContext::excludes) endpoints, as a retry does those it has tried.
/// The choice is then made by the same rule among the others, so that what holds for the first
/// choice holds for the second:
///
/// - An endpoint that the context excludes is never returned.
/// - `None` is returned only if all that the algorithm may pick from are excluded, or there are
///   none; and then it is.
/// - The others keep their proportions, as given by weight, load or latency.
/// - With a key, the second choice is as stable as the first: equal keys with equal exclusions lead
///   to one endpoint.
/// - A picker that goes round another one passes the exclusion on, and adds to it
///   ([`Exclusion::and`]) what it leaves out itself. If that leaves nothing, its own rule yields,
///   never the context's.
///
/// An algorithm that cannot tell which is next may ask itself again a few times and then
/// [draw by weight](PickContext::draw_by_weight).
pub trait Picker: fmt::Debug + Send + Sync + 'static {
    /// Chooses an endpoint that `context` does not exclude; `None` if there is none.
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>>;
}

/// What a pick may depend on besides the endpoints.
#[derive(Debug)]
pub struct PickContext<'a> {
    rng: &'a mut Rng,
    clock: &'a dyn Clock,
    key: Option<u64>,
    exclusion: Option<&'a Exclusion<'a>>,
}

impl<'a> PickContext<'a> {
    /// With this randomness and time.
    #[inline]
    pub fn new(rng: &'a mut Rng, clock: &'a dyn Clock) -> Self {
        Self {
            rng,
            clock,
            key: None,
            exclusion: None,
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

    /// The same with these endpoints left out, in place of those that were; see [`Picker`]. To
    /// leave out more, chain them with [`Exclusion::and`]. `None` for a first choice.
    #[inline]
    #[must_use]
    pub fn with_exclusion(mut self, exclusion: Option<&'a Exclusion<'a>>) -> Self {
        self.exclusion = exclusion;
        self
    }

    /// The same once more, so that it can be given another key or exclusion for a pick within a
    /// pick.
    #[inline]
    pub fn reborrow(&mut self) -> PickContext<'_> {
        PickContext {
            rng: self.rng,
            clock: self.clock,
            key: self.key,
            exclusion: self.exclusion,
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

    /// What must be left out; `None` where nothing is, which is nearly always: the path to keep
    /// short.
    #[inline]
    #[must_use]
    pub fn exclusion(&self) -> Option<&'a Exclusion<'a>> {
        self.exclusion
    }

    /// Whether `endpoint` must not be returned.
    #[inline]
    #[must_use]
    pub fn excludes(&self, endpoint: &Endpoint) -> bool {
        self.exclusion
            .is_some_and(|exclusion| exclusion.excludes(endpoint))
    }

    /// One of `endpoints` that is not excluded, at random in proportion to weight; `None` if there
    /// is none that weighs anything. O(n): a last resort where an algorithm finds no other way
    /// round an exclusion.
    pub fn draw_by_weight<'e>(
        &mut self,
        endpoints: &'e [Arc<Endpoint>],
    ) -> Option<&'e Arc<Endpoint>> {
        let (mut sum, mut drawn) = (0.0, None);
        for endpoint in endpoints {
            let weight = f64::from(endpoint.weight().get());
            if weight == 0.0 || self.excludes(endpoint) {
                continue;
            }
            sum += weight;
            // Each takes the place of the one before with its part of the sum so far.
            if drawn.is_none() || self.rng.next_f64() * sum < weight {
                drawn = Some(endpoint);
            }
        }
        drawn
    }
}

const _: fn(&dyn Balancer, &dyn Picker) = |_, _| {};
