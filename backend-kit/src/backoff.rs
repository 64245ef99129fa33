//! The pace of repeated attempts.

use std::time::Duration;

use plimsoll_discovery_api::Rng;
use tokio::time::Instant;

/// Capped exponential backoff with full jitter, unbounded in time.
///
/// The delay before attempt *n* is uniform between [`floor`](Self::floor) and
/// `min(cap, base · 2ⁿ)`, which spreads a fleet that lost its registry in one instant over the
/// whole interval ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The bound of the first delay. Default: 100 ms, so that a blip is repaired unnoticed.
    pub base: Duration,
    /// The bound that delays grow to. Default: 10 s, so that whatever the length of an outage,
    /// everything is back within about that time of its end.
    pub cap: Duration,
    /// The shortest delay, so that jitter never makes a busy loop. Default: 10 ms.
    pub floor: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(10),
            floor: Duration::from_millis(10),
        }
    }
}

impl Backoff {
    /// The delay before attempt `attempt`, counted from 0.
    #[must_use]
    pub fn delay(&self, attempt: u32, rng: &mut Rng) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.min(30));
        let bound = self
            .base
            .saturating_mul(factor)
            .min(self.cap)
            .max(self.floor);
        self.floor + (bound - self.floor).mul_f64(rng.next_f64())
    }
}

/// Errors that waiting rarely cures are repeated no faster than this, so that a wrong password is
/// not tried ten times a second.
pub(crate) const PERMANENT_RETRY: Duration = Duration::from_secs(1);

/// Counts attempts, and forgets them only after a success that lasted: what succeeds and fails
/// again at once is still paced.
#[derive(Debug)]
pub(crate) struct Attempts {
    backoff: Backoff,
    failed: u32,
    succeeded_at: Option<Instant>,
}

impl Attempts {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            failed: 0,
            succeeded_at: None,
        }
    }

    pub(crate) fn succeeded(&mut self) {
        self.succeeded_at.get_or_insert_with(Instant::now);
    }

    /// The delay before the next attempt, after a failure or after what had succeeded ended.
    pub(crate) fn failed(&mut self, rng: &mut Rng) -> Duration {
        if self
            .succeeded_at
            .take()
            .is_some_and(|at| at.elapsed() >= self.backoff.cap)
        {
            self.failed = 0;
        }
        let delay = self.backoff.delay(self.failed, rng);
        self.failed = self.failed.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_between_floor_and_the_growing_bound() {
        let backoff = Backoff::default();
        let mut rng = Rng::from_seed(1);
        for attempt in [0, 1, 5, 40, u32::MAX] {
            let bound = backoff
                .base
                .saturating_mul(2_u32.saturating_pow(attempt.min(20)));
            for _ in 0..1_000 {
                let delay = backoff.delay(attempt, &mut rng);
                assert!(
                    delay >= backoff.floor && delay <= bound.min(backoff.cap),
                    "{delay:?}"
                );
            }
        }
    }

    #[test]
    fn jitter_spreads_over_the_whole_interval() {
        let mut rng = Rng::from_seed(2);
        let delays: Vec<_> = (0..1_000)
            .map(|_| Backoff::default().delay(20, &mut rng).as_secs_f64())
            .collect();
        // Uniform on 0.01..10: the mean of 1,000 has sigma 0.09, so ±0.6 fails with p < 1e-10.
        let mean = delays.iter().sum::<f64>() / 1_000.0;
        assert!((mean - 5.0).abs() < 0.6, "{mean}");
        assert!(delays.iter().any(|d| *d < 1.0) && delays.iter().any(|d| *d > 9.0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_success_that_lasts_resets_the_pace() {
        let backoff = Backoff {
            floor: Duration::ZERO,
            ..Backoff::default()
        };
        let mut attempts = Attempts::new(backoff);
        let mut rng = Rng::from_seed(3);
        for _ in 0..20 {
            attempts.succeeded();
            let _ = attempts.failed(&mut rng);
        }
        assert_eq!(attempts.failed, 20);
        attempts.succeeded();
        tokio::time::advance(backoff.cap).await;
        let _ = attempts.failed(&mut rng);
        assert_eq!(attempts.failed, 1);
    }
}
