//! When load is published.

use std::time::Duration;

use tokio::time::Instant;

/// How much change, and how much time, makes a publication worth its write.
///
/// Registries are not made for fast-changing data: each write goes through consensus and to every
/// watcher. The defaults follow what Apache Pulsar settled on for the same job in `ZooKeeper` (10 %,
/// a minimum interval of seconds).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadPolicy {
    /// The shortest time between two publications. Default: 2 s.
    pub min_interval: Duration,
    /// A change of at least this much is published as soon as the interval allows. Default: 8.
    pub absolute: u64,
    /// A change of at least this part of the published value is, too, if it is larger than
    /// [`absolute`](Self::absolute). Default: 0.1.
    pub relative: f64,
    /// A smaller change that lasts is published after this. Default: 10 s.
    pub settle: Duration,
    /// Even an unchanged value is published again after this, so that readers can tell an idle
    /// server from a mute one. Default: 60 s.
    pub max_age: Duration,
}

impl Default for LoadPolicy {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(2),
            absolute: 8,
            relative: 0.1,
            settle: Duration::from_secs(10),
            max_age: Duration::from_secs(60),
        }
    }
}

impl LoadPolicy {
    /// Whether going from `published` to `current` is worth a write as soon as one is allowed.
    /// Becoming idle and ceasing to be idle always are.
    fn is_significant(&self, published: u64, current: u64) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a threshold; the value is non-negative and f64 saturates when cast"
        )]
        let relative = (published as f64 * self.relative).ceil() as u64;
        let threshold = self.absolute.max(relative).max(1);
        published == 0 || current == 0 || published.abs_diff(current) >= threshold
    }
}

/// Decides when one instance's load is to be published.
///
/// A pure state machine: it is told what was written and asked when to write next.
#[derive(Clone, Debug)]
pub struct Throttle {
    policy: LoadPolicy,
    /// `None` while it is not certain.
    written: Option<u64>,
    written_at: Instant,
}

impl Throttle {
    /// After `written` was published at `at`, say with the registration itself. `phase`, 0 to 1,
    /// shifts this instance's rhythm against its siblings'.
    #[must_use]
    pub fn new(policy: LoadPolicy, written: u64, at: Instant, phase: f64) -> Self {
        // A first publication that is up to one interval early spreads a fleet that started as one.
        let shift = policy.min_interval.mul_f64(phase.clamp(0.0, 1.0));
        let written_at = at.checked_sub(shift).unwrap_or(at);
        Self {
            policy,
            written: Some(written),
            written_at,
        }
    }

    /// What was last published; `None` while that is in doubt.
    #[must_use]
    pub fn written(&self) -> Option<u64> {
        self.written
    }

    /// Records that what stands in the registry may be older than what was last published.
    pub fn doubt(&mut self) {
        self.written = None;
    }

    /// Records that `value` was published at `at`.
    pub fn wrote(&mut self, value: u64, at: Instant) {
        self.written = Some(value);
        self.written_at = at;
    }

    /// The earliest that anything may be published again.
    #[must_use]
    pub fn earliest(&self) -> Instant {
        self.written_at + self.policy.min_interval
    }

    /// When `current` is to be published; in the past if that is overdue.
    #[must_use]
    pub fn due(&self, current: u64) -> Instant {
        let policy = &self.policy;
        let wait = match self.written {
            Some(written) if written == current => policy.max_age,
            Some(written) if !policy.is_significant(written, current) => {
                policy.settle.max(policy.min_interval)
            }
            Some(_) | None => policy.min_interval,
        };
        self.written_at + wait.min(policy.max_age.max(policy.min_interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(written: u64) -> (Throttle, Instant) {
        let now = Instant::now();
        (Throttle::new(LoadPolicy::default(), written, now, 0.0), now)
    }

    #[test]
    fn large_changes_wait_for_the_interval_small_ones_settle_and_none_is_never_forgotten() {
        let policy = LoadPolicy::default();
        for (written, current, wait) in [
            (100, 110, policy.min_interval),
            (100, 90, policy.min_interval),
            (100, 109, policy.settle),
            (1_000, 1_050, policy.settle),
            (10, 18, policy.min_interval),
            (10, 17, policy.settle),
            (0, 1, policy.min_interval),
            (1, 0, policy.min_interval),
            (7, 7, policy.max_age),
        ] {
            let (throttle, now) = throttle(written);
            assert_eq!(throttle.due(current), now + wait, "{written} to {current}");
        }
    }

    #[test]
    fn a_storm_of_changes_writes_at_most_once_per_interval() {
        let (mut throttle, start) = throttle(0);
        let mut writes = 0;
        for step in 1..=60_000_u64 {
            let (now, load) = (start + Duration::from_millis(step), step % 5_000);
            if throttle.due(load) <= now {
                throttle.wrote(load, now);
                writes += 1;
            }
        }
        assert!((25..=30).contains(&writes), "{writes} writes in a minute");
    }

    #[test]
    fn phase_brings_the_first_publication_forward_by_less_than_an_interval() {
        let now = Instant::now() + Duration::from_secs(60);
        let early = Throttle::new(LoadPolicy::default(), 0, now, 0.5);
        assert_eq!(early.due(1), now + LoadPolicy::default().min_interval / 2);
    }
}
