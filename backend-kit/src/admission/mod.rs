//! Sending a registry no more than it is able to answer.
//!
//! Whatever a handle wants of its registry it asks for when it is admitted: so many calls are under
//! way as are answered without a long queue, and the others wait here, where waiting costs the
//! registry nothing and spoils nobody's time limit. A registry that is sent everything at once
//! answers nothing in time, and is asked for it again while it works on what nobody waits for any
//! more (congestion collapse; V. Jacobson, "Congestion Avoidance and Control", SIGCOMM 1988).
//!
//! ```text
//!   registrations, watches, loads                        the registry
//!        │ enter(class)        ┌─ liveness ─┐  window      │
//!        └────────────────────▶│  claims    │────────────▶ │ answered: how late? ──▶ Limit
//!            waits, unbounded  │  others    │  call, timed │ not in time: halved ──▶ Limit,
//!                              └─ loads ────┘  from here   │               longer ──▶ Patience
//! ```

mod limit;
mod patience;
mod permit;
mod queue;
#[cfg(test)]
mod tests;
mod turn;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::permit::Permit;
use self::permit::Shared;
pub(crate) use self::permit::bounded;
pub(crate) use self::turn::Turn;
use crate::Timings;

/// What a call is for, which says whose turn it is: keeping alive what stands goes before all else,
/// and loads go after all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Keeps a lease, a session or a check alive, or confirms that it is. Waits behind nothing but
    /// its like: some are sent however many calls of other classes are under way.
    Liveness,
    /// Puts a record into the registry, or changes its attributes.
    Claim,
    /// Removes a record: whoever leaves is called until that is done, so it waits behind nothing but
    /// what keeps others alive. Takes a time of its own, by which the registry is not judged.
    Removal,
    /// Lists and subscriptions: what takes a time of its own, too. Takes turns with claims, so that
    /// neither waits for thousands of the other.
    Other,
    /// Publishes a load.
    Load,
}

const CLASSES: usize = 5;

impl Class {
    /// Whether the time that an answer takes says how long the queue at the registry is.
    const fn is_judged(self) -> bool {
        !matches!(self, Self::Removal | Self::Other)
    }
}

/// How many calls a handle may have under way.
///
/// The number follows LEDBAT++
/// ([draft-irtf-iccrg-ledbat-plus-plus](https://datatracker.ietf.org/doc/draft-irtf-iccrg-ledbat-plus-plus/),
/// after [RFC 6817](https://www.rfc-editor.org/rfc/rfc6817)): while answers come no later than
/// [`target`](Self::target) after the quickest that were seen lately it doubles at first and then
/// grows by one with every round of answers; where they come later it shrinks in proportion, to half
/// at most; and a call that is not answered in time halves it, once a round. So what queues at the
/// registry stays short, whether its speed changes or the number of those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmissionPolicy {
    /// How many at first. Default: 8, so that a registry that has just started answers hundreds of
    /// handles within the time that a call has.
    pub initial: usize,
    /// How many at least; 1 or more. Default: 4, so that a lost answer is not the only one.
    pub least: usize,
    /// How many at most. Default: 512, half of what `ZooKeeper` takes by default before it stops
    /// reading from its clients (`globalOutstandingLimit`).
    pub most: usize,
    /// How long calls may queue at the registry on average; more than zero. Default: 100 ms, the most
    /// that RFC 6817 allows: what keeps any registry busy, and a small part of the time that a call
    /// has.
    pub target: Duration,
}

impl Default for AdmissionPolicy {
    fn default() -> Self {
        Self {
            initial: 8,
            least: 4,
            most: 512,
            target: Duration::from_millis(100),
        }
    }
}

impl AdmissionPolicy {
    /// The same, with what cannot be meant put right.
    fn sound(mut self) -> Self {
        self.least = self.least.max(1);
        self.most = self.most.max(self.least);
        self.initial = self.initial.clamp(self.least, self.most);
        self.target = self.target.max(Duration::from_millis(1));
        self
    }
}

/// What the calls of one handle are admitted by. Clones share it.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

impl Admission {
    /// By the policy of `timings`. Claims that are answered too late again and again are given more
    /// time, up to the lease there.
    #[must_use]
    pub fn new(timings: &Timings) -> Self {
        Self(Arc::new(Shared::new(timings.admission, timings.lease)))
    }

    /// Waits until a call of `class` may be made; unbounded, in the order of those who wait. Cancel
    /// safe: whoever is dropped leaves the queue.
    pub async fn enter(&self, class: Class) -> Permit {
        permit::enter(&self.0, class).await
    }

    /// How long a call that usually has `usual` is to be waited for now: longer, up to the lease, while
    /// claims are not answered in time.
    #[must_use]
    pub fn patience(&self, usual: Duration) -> Duration {
        self.0.patience(usual)
    }

    /// How many calls may be under way now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit()
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
