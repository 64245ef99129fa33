//! No more queries than one can take.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of permits: some at once, the rest at a pace. Consul's own advice for blocking queries,
/// whose every answer carries the whole service: <https://developer.hashicorp.com/consul/api-docs/features/blocking>.
#[derive(Debug)]
pub(crate) struct Pace {
    burst: f64,
    interval: Duration,
    permits: f64,
    counted: Instant,
}

impl Pace {
    /// `burst` at once, and one more each `interval`.
    pub(crate) fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            interval,
            permits: burst,
            counted: now,
        }
    }

    /// Takes a permit; from when on it may be used.
    pub(crate) fn take(&mut self, now: Instant) -> Instant {
        let earned = now.duration_since(self.counted).as_secs_f64() / self.interval.as_secs_f64();
        self.permits = (self.permits + earned).min(self.burst) - 1.0;
        self.counted = now;
        if self.permits >= 0.0 {
            now
        } else {
            now + self.interval.mul_f64(-self.permits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_held_to_its_pace_and_a_quiet_time_restores_the_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(3, Duration::from_millis(200), start);
        let mut now = start;
        for _ in 0..100 {
            now = pace.take(now);
        }
        let least = Duration::from_millis(200 * (100 - 3));
        assert!((now - start).abs_diff(least) < Duration::from_millis(2));
        now += Duration::from_secs(1);
        assert_eq!([pace.take(now), pace.take(now), pace.take(now)], [now; 3]);
        assert!(pace.take(now) > now);
    }
}
