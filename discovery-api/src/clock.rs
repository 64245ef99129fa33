//! Time, injected so that every decision can be repeated under test.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment on this process's monotonic clock, in nanoseconds since the clock was first read.
///
/// It fits an atomic, which an `Instant` does not. Moments of two processes cannot be compared,
/// and nothing in plimsoll ever compares the clocks of two machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment the clock was first read.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds since the clock's zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long before `self` the moment `earlier` was; zero if it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

/// Nanoseconds as `u64`: saturates after 584 years.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl From<Instant> for Timestamp {
    fn from(instant: Instant) -> Self {
        static ZERO: OnceLock<Instant> = OnceLock::new();
        let zero = *ZERO.get_or_init(|| instant);
        Self(nanos(instant.saturating_duration_since(zero)))
    }
}

/// Where balancers and statistics read the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present moment; never earlier than one returned before.
    fn now(&self) -> Timestamp;
}

/// The operating system's monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// The clock.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Timestamp {
        Timestamp::from(Instant::now())
    }
}

/// A clock that stands still until it is moved: for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

impl ManualClock {
    /// A clock at [`Timestamp::ZERO`].
    #[must_use]
    pub const fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }

    /// Moves the clock on by `span`.
    pub fn advance(&self, span: Duration) {
        self.0
            .fetch_add(nanos(span), std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_saturate_instead_of_wrapping() {
        let late = Timestamp::from_nanos(5).after(Duration::MAX);
        assert_eq!(late.as_nanos(), u64::MAX);
        assert_eq!(Timestamp::ZERO.since(late), Duration::ZERO);
        let clock = ManualClock::new();
        clock.advance(Duration::from_nanos(3));
        assert_eq!(clock.now().since(Timestamp::ZERO), Duration::from_nanos(3));
    }
}
