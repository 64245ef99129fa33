//! How many retries a client may make.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{Result, Timestamp};

use crate::invalid::invalid_config;

/// How many retries a client may make beside its calls: a share of them, and a few a second for
/// clients that call seldom.
///
/// Where everything fails, retries multiply the load on whatever is left. A bound for each call
/// does not help, as every call reaches it; a share of all calls does. The rule is Finagle's
/// `RetryBudget`, and that of gRPC's retry throttling ([gRFC
/// A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs)).
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct RetryBudget {
    share: f64,
    per_second: f64,
    burst: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            share: 0.2,
            per_second: 3.0,
            burst: 100,
        }
    }
}

impl RetryBudget {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Retries for each call: 0 to 10. Default: 0.2, a fifth, as in Finagle.
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Retries for each second, whatever the calls: 0 to 1,000. Default: 3: whoever calls once in a
    /// while could not save any up.
    pub fn with_per_second(mut self, retries: f64) -> Self {
        self.per_second = retries;
        self
    }

    /// How many may be saved up: 1 to 1,000,000; a tenth of them is there from the start.
    /// Default: 100.
    pub fn with_burst(mut self, retries: u32) -> Self {
        self.burst = retries;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=10.0).contains(&self.share) {
            let why = "is not between 0 and 10";
            return Err(invalid_config("retry_budget.share", self.share, why));
        }
        if !(0.0..=1_000.0).contains(&self.per_second) {
            let why = "is not between 0 and 1000";
            return Err(invalid_config(
                "retry_budget.per_second",
                self.per_second,
                why,
            ));
        }
        if !(1..=1_000_000).contains(&self.burst) {
            let why = "is not between 1 and 1000000";
            return Err(invalid_config("retry_budget.burst", self.burst, why));
        }
        Ok(())
    }
}

/// In thousandths of a retry.
const ONE: i64 = 1_000;

/// What is left of a budget. Calls and retries take turns without a lock.
#[derive(Debug)]
pub(super) struct Balance {
    earned_by_call: i64,
    per_second: f64,
    most: i64,
    left: AtomicI64,
    /// Until when seconds have been counted, in nanoseconds of a [`Timestamp`].
    counted: AtomicU64,
}

impl Balance {
    #[expect(clippy::cast_possible_truncation, reason = "checked: 10,000 at most")]
    pub(super) fn new(budget: RetryBudget, now: Timestamp) -> Self {
        let most = i64::from(budget.burst) * ONE;
        Self {
            earned_by_call: (budget.share * ONE as f64) as i64,
            per_second: budget.per_second,
            most,
            left: AtomicI64::new((most / 10).max(ONE)),
            counted: AtomicU64::new(now.as_nanos()),
        }
    }

    /// What a call adds.
    pub(super) fn earn(&self) {
        self.add(self.earned_by_call);
    }

    /// Whether a retry may be made; if so it is paid for.
    pub(super) fn spend(&self, now: Timestamp) -> bool {
        self.count_time(now);
        let pay = |left: i64| (left >= ONE).then(|| left - ONE);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay)
            .is_ok()
    }

    fn add(&self, more: i64) {
        if more > 0 {
            let fill = |left: i64| Some(left.saturating_add(more).min(self.most));
            let _always = self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
        }
    }

    /// Adds what time does, in whole thousandths; whoever moves the mark adds. The mark moves by what
    /// was added, so that looking often rounds nothing away.
    fn count_time(&self, now: Timestamp) {
        let counted = self.counted.load(Ordering::Relaxed);
        let passed = now.since(Timestamp::from_nanos(counted));
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is capped")]
        let more = (passed.min(Duration::from_secs(1_000_000)).as_secs_f64()
            * self.per_second
            * ONE as f64) as i64;
        if more <= 0 {
            return;
        }
        let taken = Duration::from_secs_f64(more as f64 / ONE as f64 / self.per_second);
        let mark = Timestamp::from_nanos(counted).after(taken).as_nanos();
        let (same, other) = (Ordering::Relaxed, Ordering::Relaxed);
        if self
            .counted
            .compare_exchange(counted, mark, same, other)
            .is_ok()
        {
            self.add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(balance: &Balance, now: Timestamp) -> usize {
        (0..100_000).take_while(|_| balance.spend(now)).count()
    }

    #[test]
    fn a_fifth_of_the_calls_may_be_retried() {
        let now = Timestamp::ZERO;
        let balance = Balance::new(RetryBudget::new(), now);
        assert_eq!(spent(&balance, now), 10, "what is there from the start");
        for _ in 0..100 {
            balance.earn();
        }
        assert_eq!(spent(&balance, now), 20);
    }

    #[test]
    fn a_few_a_second_may_be_retried_without_calls() {
        let balance = Balance::new(RetryBudget::new(), Timestamp::ZERO);
        assert_eq!(spent(&balance, Timestamp::ZERO), 10);
        let later = Timestamp::ZERO.after(Duration::from_secs(2));
        assert_eq!(spent(&balance, later), 6);
        // Looking often must not round away what time adds.
        let mut total = 0;
        for tick in 1..=10_000_u32 {
            // Each adds 1.98 thousandths.
            total += spent(&balance, later.after(Duration::from_micros(660) * tick));
        }
        assert_eq!(total, 19);
    }

    #[test]
    fn no_more_is_saved_than_the_burst() {
        let now = Timestamp::ZERO;
        let balance = Balance::new(RetryBudget::new(), now);
        (0..10_000).for_each(|_| balance.earn());
        assert_eq!(spent(&balance, now.after(Duration::from_secs(10_000))), 100);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = |budget: RetryBudget| budget.check().unwrap_err().to_string();
        let good = RetryBudget::new();
        assert!(error(good.with_share(f64::NAN)).contains("retry_budget.share"));
        assert!(error(good.with_per_second(-1.0)).contains("retry_budget.per_second"));
        assert!(error(good.with_burst(0)).contains("retry_budget.burst"));
        assert!(good.check().is_ok());
    }
}
