//! Leaving an endpoint out for a while because it fails.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Endpoint;
use crate::Timestamp;

/// What a detector of outliers keeps of one endpoint, so that it outlives every rebuild.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// In nanoseconds of a [`Timestamp`], plus one; 0 while it is not ejected.
    until: AtomicU64,
    times: AtomicU32,
    counted_successes: AtomicU64,
    counted_failures: AtomicU64,
}

/// What a detector of outliers keeps and changes: there is one at most.
impl Endpoint {
    /// Until when it is to be left out; `None` while it is not ejected.
    ///
    /// It stays so beyond that time, until somebody [readmits](Self::readmit) it.
    #[inline]
    #[must_use]
    pub fn ejected_until(&self) -> Option<Timestamp> {
        let until = self.ejection.until.load(Ordering::Relaxed);
        until.checked_sub(1).map(Timestamp::from_nanos)
    }

    /// How often it was ejected, less what [`forgive_ejection`](Self::forgive_ejection) took off.
    #[must_use]
    pub fn ejections(&self) -> u32 {
        self.ejection.times.load(Ordering::Relaxed)
    }

    /// Leaves it out until `until`, and counts that.
    pub fn eject(&self, until: Timestamp) {
        let stamp = until.as_nanos().saturating_add(1);
        self.ejection.until.store(stamp, Ordering::Relaxed);
        let more = |times: u32| Some(times.saturating_add(1));
        let _always = self
            .ejection
            .times
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Lets it in again, with a clean slate: failures before count neither as
    /// [consecutive](Self::consecutive_failures) nor as [recent](Self::recent_failures).
    pub fn readmit(&self) {
        self.forget_streak();
        self.count_anew();
        self.ejection.until.store(0, Ordering::Relaxed);
    }

    /// Counts one ejection less, if there is one.
    pub fn forgive_ejection(&self) {
        let less = |times: u32| times.checked_sub(1);
        let _unless_zero =
            self.ejection
                .times
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Successes since it was last told to [count anew](Self::count_anew).
    #[must_use]
    pub fn recent_successes(&self) -> u64 {
        let before = self.ejection.counted_successes.load(Ordering::Relaxed);
        self.successes().saturating_sub(before)
    }

    /// Failures since it was last told to [count anew](Self::count_anew).
    #[must_use]
    pub fn recent_failures(&self) -> u64 {
        let before = self.ejection.counted_failures.load(Ordering::Relaxed);
        self.failures().saturating_sub(before)
    }

    /// Starts [`recent_successes`](Self::recent_successes) and
    /// [`recent_failures`](Self::recent_failures) at 0.
    pub fn count_anew(&self) {
        self.ejection
            .counted_successes
            .store(self.successes(), Ordering::Relaxed);
        self.ejection
            .counted_failures
            .store(self.failures(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Incarnation, Instance, Member, Outcome, Pick};

    fn endpoint() -> Endpoint {
        let instance = Instance::builder("s", "h", 1).with_id("a").build().unwrap();
        Endpoint::new(&Member::new(
            Arc::new(instance),
            Incarnation::from_bits(1),
            Arc::default(),
        ))
    }

    #[test]
    fn who_is_readmitted_starts_with_a_clean_slate_but_is_remembered() {
        let endpoint = endpoint();
        Pick::new(&endpoint).finish(Outcome::Success);
        (0..3).for_each(|_| Pick::new(&endpoint).finish(Outcome::Failure));
        assert_eq!(
            (endpoint.recent_successes(), endpoint.recent_failures()),
            (1, 3)
        );
        endpoint.eject(Timestamp::ZERO);
        assert_eq!(endpoint.ejected_until(), Some(Timestamp::ZERO));
        endpoint.readmit();
        assert_eq!(endpoint.ejected_until(), None);
        assert_eq!(
            (endpoint.recent_successes(), endpoint.recent_failures()),
            (0, 0)
        );
        assert_eq!(
            (endpoint.consecutive_failures(), endpoint.failures()),
            (0, 3)
        );
        assert_eq!(endpoint.ejections(), 1);
        (0..2).for_each(|_| endpoint.forgive_ejection());
        assert_eq!(endpoint.ejections(), 0);
    }

    #[test]
    fn an_ejection_for_ever_does_not_wrap() {
        let endpoint = endpoint();
        endpoint.eject(Timestamp::from_nanos(u64::MAX));
        assert!(endpoint.ejected_until() > Some(Timestamp::from_nanos(u64::MAX - 2)));
    }
}
