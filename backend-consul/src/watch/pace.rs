//! No more queries than one can take, and no more work with them.

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

/// A part of a processor's time: some of it at once, the rest as it is earned.
#[derive(Debug)]
pub(crate) struct Share {
    parts: u32,
    most: f64,
    left: f64,
    counted: Instant,
}

impl Share {
    /// One part in `parts`; up to `most` may be saved.
    pub(crate) fn new(parts: u32, most: Duration, now: Instant) -> Self {
        let most = most.as_secs_f64();
        Self {
            parts,
            most,
            left: most,
            counted: now,
        }
    }

    /// Spends `cost`; from when on more may be spent.
    pub(crate) fn spend(&mut self, cost: Duration, now: Instant) -> Instant {
        let earned = now.duration_since(self.counted).as_secs_f64() / f64::from(self.parts);
        self.left = (self.left + earned).min(self.most) - cost.as_secs_f64();
        self.counted = now;
        if self.left >= 0.0 {
            now
        } else {
            now + Duration::from_secs_f64(-self.left) * self.parts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_to_over_time_and_what_was_saved_is_spent_at_once() {
        let (start, saved) = (Instant::now(), Duration::from_millis(20));
        let cost = Duration::from_millis(5);
        let mut share = Share::new(4, saved, start);
        let mut now = start;
        for _ in 0..4 {
            assert_eq!(share.spend(cost, now), start);
        }
        for _ in 0..100 {
            now = share.spend(cost, now);
        }
        let least = cost * 4 * 100;
        assert!((now - start).abs_diff(least) < Duration::from_millis(1));
        now += Duration::from_secs(3_600);
        assert_eq!(share.spend(saved, now), now);
        assert!(share.spend(cost, now) > now);
    }

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
