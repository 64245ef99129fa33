//! Easing a new endpoint in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, PickContext, Picker, Result, Timestamp,
};

use crate::eligible::eligible;
use crate::parameter;
use crate::repick::{chance, pick_admitted};

/// Gives an endpoint that joins a small part of its share at first and all of it after 30 s,
/// whatever the algorithm.
///
/// A new server has cold caches and code, and no load: an algorithm that seeks idle endpoints
/// sends it everything it sees. Here a pick of an endpoint that joined t ago is kept with a
/// probability of max(10 %, (t / window)^(1 / aggression)), which is the factor of
/// [Envoy](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/slow_start),
/// and otherwise made again: so it gets that part of whatever the algorithm would give it. Envoy
/// puts the factor on the weight, which algorithms without weights do not heed.
///
/// What was there when the client began counts as warm: a client that restarts knows nothing of
/// ages, and must not ease in the whole fleet. Where more than half of the endpoints are new,
/// nobody is eased in, as the few others could not carry the difference. The age is kept in the
/// [`Endpoint`] and ends with its incarnation: a restarted server is new again. It counts from the
/// first pick of the first set that holds the endpoint, or from
/// [`mark_joined`](Endpoint::mark_joined), where that was called before.
///
/// Wrapped round an algorithm that hashes, keys move to the new endpoint gradually, each of them
/// once.
///
/// *Pick*: the inner one and a relaxed load; while an endpoint is new also a reading of the clock,
/// a random number, and for a new one a power; what is not kept is picked again, 8 times at most,
/// then O(n). The first pick after a rebuild, and after a window has passed, is O(n). *Rebuild*:
/// the inner one and O(n).
///
/// *Use it* round load- and latency-seeking algorithms, for servers that need time to warm up.
/// *Not* where scaling out is to bring relief at once.
#[derive(Clone, Debug)]
pub struct SlowStart<B> {
    inner: B,
    ramp: Ramp,
    began: bool,
}

/// Caches, pools and compiled code are mostly warm after some ten seconds; three times that.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30);
/// Enough to warm up by, even on a quiet service; Envoy's default.
const DEFAULT_MIN_SHARE: f64 = 0.1;
/// In proportion to age; Envoy's default.
const DEFAULT_AGGRESSION: f64 = 1.0;

impl<B: Balancer> SlowStart<B> {
    /// Round `inner`.
    #[must_use]
    pub const fn new(inner: B) -> Self {
        let ramp = Ramp {
            window: DEFAULT_WINDOW,
            min_share: DEFAULT_MIN_SHARE,
            exponent: 1.0 / DEFAULT_AGGRESSION,
        };
        Self {
            inner,
            ramp,
            began: false,
        }
    }

    /// After which time an endpoint gets its full share: above zero. Default: 30 s, in which
    /// caches, pools and compiled code are mostly warm.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for zero.
    pub fn with_window(mut self, window: Duration) -> Result<Self> {
        self.ramp.window = parameter::span("window", window)?;
        Ok(self)
    }

    /// The part of its share that an endpoint gets at once: 0 to 1. Default: 0.1, as in Envoy:
    /// enough to warm up by.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_min_share(mut self, share: f64) -> Result<Self> {
        self.ramp.min_share = parameter::share("min_share", share)?;
        Ok(self)
    }

    /// How steeply the share rises at first: 0.1 to 10. Default: 1, in proportion to age; above,
    /// steep at first and then flat; below, the reverse.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_aggression(mut self, aggression: f64) -> Result<Self> {
        if !(0.1..=10.0).contains(&aggression) {
            let why = "is not between 0.1 and 10";
            return Err(Error::invalid("aggression", aggression, why));
        }
        self.ramp.exponent = 1.0 / aggression;
        Ok(self)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer> Balancer for SlowStart<B> {
    fn name(&self) -> &'static str {
        "slow_start"
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
        if !self.began {
            endpoints.iter().for_each(|e| e.mark_joined(None));
            self.began = !endpoints.is_empty();
        }
        let endpoints = eligible(endpoints)?;
        Ok(Box::new(SlowStartPicker {
            inner: self.inner.build(&endpoints)?,
            endpoints,
            ramp: self.ramp,
            look_again: AtomicU64::new(0),
            eases: AtomicBool::new(false),
        }))
    }
}

/// How the share rises with age.
#[derive(Clone, Copy, Debug)]
struct Ramp {
    window: Duration,
    min_share: f64,
    exponent: f64,
}

impl Ramp {
    /// What part of its share an endpoint gets.
    #[inline]
    fn part(&self, endpoint: &Endpoint, now: Timestamp) -> f64 {
        match self.age(endpoint, now) {
            Some(age) => {
                let part = age.as_secs_f64() / self.window.as_secs_f64();
                part.powf(self.exponent).max(self.min_share)
            }
            None => 1.0,
        }
    }

    /// `None` once it is warm.
    #[inline]
    fn age(&self, endpoint: &Endpoint, now: Timestamp) -> Option<Duration> {
        let age = now.since(endpoint.joined_at()?);
        (age < self.window).then_some(age)
    }
}

#[derive(Debug)]
struct SlowStartPicker {
    inner: Box<dyn Picker>,
    endpoints: Endpoints,
    ramp: Ramp,
    /// When the next endpoint will be warm, in nanoseconds; [`NEVER`] if all are.
    look_again: AtomicU64,
    eases: AtomicBool,
}

const NEVER: u64 = u64::MAX;

/// Keys are drawn for admission apart from anything else they are drawn for.
const PURPOSE: u64 = 0x510_057A7;

impl Picker for SlowStartPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let look_again = self.look_again.load(Ordering::Relaxed);
        if look_again == NEVER {
            return self.inner.pick(context);
        }
        let now = context.now();
        if now.as_nanos() >= look_again {
            self.look(now);
        }
        if !self.eases.load(Ordering::Relaxed) {
            return self.inner.pick(context);
        }
        // One draw for the whole pick: an algorithm that insists on a new endpoint does not wear
        // the refusal down.
        let drawn = chance(context, PURPOSE);
        pick_admitted(&*self.inner, &self.endpoints, context, |endpoint| {
            drawn >= self.ramp.part(endpoint, now)
        })
    }
}

impl SlowStartPicker {
    /// Several threads may do this at once, to the same effect.
    #[cold]
    fn look(&self, now: Timestamp) {
        let (mut warming, mut look_again) = (0, NEVER);
        for endpoint in self.endpoints.iter() {
            endpoint.mark_joined(Some(now));
            if let Some(age) = self.ramp.age(endpoint, now) {
                warming += 1;
                let warm = now.after(self.ramp.window.saturating_sub(age));
                look_again = look_again.min(warm.as_nanos());
            }
        }
        let eases = 0 < warming && 2 * warming <= self.endpoints.len();
        self.eases.store(eases, Ordering::Relaxed);
        self.look_again.store(look_again, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
