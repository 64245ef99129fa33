//! Staying with an endpoint once chosen.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, PickContext, Picker, Result,
};

use crate::eligible::{eligible, is_well};
use crate::hash;

mod memory;

use memory::Memory;

/// Keeps each key, and all requests without one together, at the endpoint that the algorithm first
/// picked for it, for as long as that may be used.
///
/// An algorithm that hashes finds the same endpoint anew each time, and moves keys when endpoints
/// join; here the first pick goes by load, latency or turns, and stays when endpoints join. It ends
/// when the endpoint leaves, loses its weight, turns unhealthy or suspect, or is ejected; the next
/// pick is then kept in its place. A restarted server is another endpoint.
///
/// Where a pick excludes the endpoint of its key, as a retry does, the key has a second choice that
/// is kept like the first, and after that a third; they take room of their own. The next pick
/// without that exclusion returns to the first.
///
/// The choice is remembered in this client only. There is room for 4,096 keys, in sets of four:
/// where more keys are in use, a new one takes the place of another, which is then picked anew. Two
/// threads that meet a new key at once may each pick; the later pick is kept.
///
/// [`OutlierEjection`](crate::OutlierEjection) belongs round it, not within, where it would see the
/// first pick of each key only.
///
/// *Pick*: one to four relaxed loads and a hash; where nothing is remembered, the inner one, a
/// search by id, O(log n), and a store. *Rebuild*: the inner one, O(n) and O(keys); 8 bytes for
/// each key.
///
/// *Use it* for sessions whose state a server keeps, and for connections that one client should not
/// multiply. *Not* to spread load: a busy key stays where it is. For caches that all clients share
/// see [`Maglev`](crate::Maglev).
#[derive(Debug)]
pub struct Sticky<B> {
    inner: B,
    keys: usize,
    last: Option<(Endpoints, Arc<Memory>)>,
}

/// 32 KiB: as much as a core's first cache holds.
const DEFAULT_KEYS: usize = 4096;
/// 128 MiB.
const MAX_KEYS: usize = 1 << 24;

impl<B: Balancer> Sticky<B> {
    /// Round `inner`.
    #[must_use]
    pub const fn new(inner: B) -> Self {
        Self {
            inner,
            keys: DEFAULT_KEYS,
            last: None,
        }
    }

    /// How many keys to remember: 1 to 16,777,216. Default: 4,096, which take 32 KiB. Twice as
    /// many as there are leave hardly one without room.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_keys(mut self, keys: usize) -> Result<Self> {
        if !(1..=MAX_KEYS).contains(&keys) {
            return Err(Error::invalid(
                "keys",
                keys,
                "is not between 1 and 16777216",
            ));
        }
        self.keys = keys;
        self.last = None;
        Ok(self)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer> Balancer for Sticky<B> {
    fn name(&self) -> &'static str {
        "sticky"
    }

    fn reads_load(&self) -> bool {
        self.inner.reads_load()
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.inner.set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        self.inner.ejects()
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        let inner = self.inner.build(&endpoints)?;
        let memory = Arc::new(match &self.last {
            Some((before, memory)) => memory.moved(&places(before, &endpoints)),
            None => Memory::new(self.keys),
        });
        self.last = Some((Arc::clone(&endpoints), Arc::clone(&memory)));
        Ok(Box::new(StickyPicker {
            inner,
            endpoints,
            memory,
        }))
    }
}

/// Where in `after` each endpoint of `before` is, if it is there. Both are sorted by id.
fn places(before: &Endpoints, after: &Endpoints) -> Vec<Option<usize>> {
    let place = |endpoint: &Arc<Endpoint>| {
        let index = place_of(endpoint, after)?;
        Arc::ptr_eq(endpoint, &after[index]).then_some(index)
    };
    before.iter().map(place).collect()
}

fn place_of(endpoint: &Endpoint, endpoints: &Endpoints) -> Option<usize> {
    let place = endpoints.binary_search_by(|other| other.id().cmp(endpoint.id()));
    place.ok()
}

#[derive(Debug)]
struct StickyPicker {
    inner: Box<dyn Picker>,
    endpoints: Endpoints,
    memory: Arc<Memory>,
}

impl Picker for StickyPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let key = context.key();
        match self.kept(key, context) {
            Some(kept) if context.excludes(kept) => self.other(key, context),
            Some(kept) => Some(kept),
            None => self.pick_anew(key, context),
        }
    }
}

impl StickyPicker {
    /// Where what is remembered as `key` may stay.
    #[inline]
    fn kept(&self, key: Option<u64>, context: &PickContext<'_>) -> Option<&Arc<Endpoint>> {
        let kept = self.endpoints.get(self.memory.get(key)?)?;
        may_stay(kept, context).then_some(kept)
    }

    fn pick_anew(&self, key: Option<u64>, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        let picked = self.inner.pick(context)?;
        if let Some(index) = place_of(picked, &self.endpoints) {
            self.memory.put(key, index, context.rng());
        }
        Some(picked)
    }

    /// While a key's endpoint is excluded, it has a second one, and a third, which are remembered
    /// under names derived from the key; and it returns.
    #[cold]
    #[inline(never)]
    fn other(&self, key: Option<u64>, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        for alternative in 1..=ALTERNATIVES {
            let name = hash::mix(key.unwrap_or(KEYLESS).wrapping_add(alternative));
            match self.kept(Some(name), context) {
                Some(kept) if context.excludes(kept) => {}
                Some(kept) => return Some(kept),
                None => return self.pick_anew(Some(name), context),
            }
        }
        self.inner.pick(context)
    }
}

/// More than two retries of one request are rare, and each takes room from other keys.
const ALTERNATIVES: u64 = 2;

/// Stands for the key of requests without one.
const KEYLESS: u64 = 0x4B45_594C_4553_5300;

#[inline]
fn may_stay(endpoint: &Endpoint, context: &PickContext<'_>) -> bool {
    let ejected = endpoint.ejected_until();
    is_well(endpoint) && ejected.is_none_or(|until| until <= context.now())
}

#[cfg(test)]
mod tests;
