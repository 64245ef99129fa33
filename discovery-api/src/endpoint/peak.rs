//! A latency that rises at once and sinks slowly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Outcome;
use crate::Timestamp;

/// A mean and the time of its last sample, in one word so that both change together: the high
/// half is the mean in nanoseconds as an `f32`, the low half the time in ticks, which may wrap.
/// 0 before the first sample.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicU64);

/// In which a mean that gets no sample falls to 1/e of itself: as in Finagle and Linkerd.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts as at least: far above the latency of anything that works.
const FAILURE: Duration = Duration::from_secs(5);

/// Ticks of 2^17 ns, 0.13 ms, wrap after 6 days. An endpoint left alone for longer may look
/// measured lately, until its next sample.
const TICK_SHIFT: u32 = 17;

impl Peak {
    pub(super) fn at(&self, now: Timestamp) -> Option<Duration> {
        let (mean, tick) = unpack(self.0.load(Ordering::Relaxed))?;
        Some(Duration::from_secs_f64(
            f64::from(mean) * weight(tick, ticks(now)) * 1e-9,
        ))
    }

    pub(super) fn observe(&self, outcome: Outcome, latency: Duration, now: Timestamp) {
        let latency = match outcome {
            Outcome::Success | Outcome::Cancelled => latency,
            Outcome::Failure | Outcome::Unreachable | Outcome::TimedOut => latency.max(FAILURE),
        };
        // Six centuries at most, lest the way back to a `Duration` overflows.
        let sample = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX) as f64;
        let step = |word: u64| {
            let mean = match unpack(word) {
                // One given up says that it would have taken at least so long, and no more.
                None if outcome == Outcome::Cancelled => return None,
                Some((mean, _)) if outcome == Outcome::Cancelled && sample <= f64::from(mean) => {
                    return None;
                }
                Some((mean, tick)) if sample < f64::from(mean) => {
                    let weight = weight(tick, ticks(now));
                    f64::from(mean) * weight + sample * (1.0 - weight)
                }
                _ => sample,
            };
            Some(pack(mean, ticks(now)))
        };
        let _unchanged = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

/// How much of a mean of `then` is left by `now`.
fn weight(then: u32, now: u32) -> f64 {
    let age = now.wrapping_sub(then);
    // Another thread may have read the clock a little later and stored first.
    let age = if age > u32::MAX - (1 << 13) { 0 } else { age };
    let seconds = f64::from(age) * f64::from(1 << TICK_SHIFT) * 1e-9;
    (-seconds / DECAY.as_secs_f64()).exp()
}

fn ticks(now: Timestamp) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "it may wrap")]
    let ticks = (now.as_nanos() >> TICK_SHIFT) as u32;
    ticks
}

fn unpack(word: u64) -> Option<(f32, u32)> {
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    let (mean, tick) = (f32::from_bits((word >> 32) as u32), word as u32);
    (word != 0).then_some((mean, tick))
}

fn pack(mean: f64, tick: u32) -> u64 {
    // At least 1 ns, or a first sample of 0 at the time 0 would look like none.
    #[expect(clippy::cast_possible_truncation, reason = "7 digits are enough")]
    let mean = mean.max(1.0) as f32;
    u64::from(mean.to_bits()) << 32 | u64::from(tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn millis(peak: &Peak, at: Timestamp) -> f64 {
        peak.at(at).unwrap().as_secs_f64() * 1e3
    }

    #[test]
    fn it_rises_at_once_and_sinks_over_ten_seconds() {
        let peak = Peak::default();
        let mut now = Timestamp::ZERO;
        assert_eq!(peak.at(now), None);
        peak.observe(Outcome::Success, 10 * MS, now);
        peak.observe(Outcome::Success, 100 * MS, now);
        assert!((millis(&peak, now) - 100.0).abs() < 0.001);
        now = now.after(DECAY);
        let left = (-1.0_f64).exp();
        assert!(
            (millis(&peak, now) - 100.0 * left).abs() < 0.01,
            "without samples, towards 0"
        );
        peak.observe(Outcome::Success, 10 * MS, now);
        assert!(
            (millis(&peak, now) - (10.0 + 90.0 * left)).abs() < 0.01,
            "with, towards them"
        );
    }

    #[test]
    fn a_failure_is_slow_and_a_cancellation_is_only_a_lower_bound() {
        let peak = Peak::default();
        let now = Timestamp::from_nanos(u64::MAX - 5);
        peak.observe(Outcome::Cancelled, 70 * MS, now);
        assert_eq!(peak.at(now), None);
        peak.observe(Outcome::Success, 10 * MS, now);
        peak.observe(Outcome::Cancelled, MS, now.after(DECAY));
        assert!((millis(&peak, now) - 10.0).abs() < 0.001);
        peak.observe(Outcome::Cancelled, 20 * MS, now);
        assert!((millis(&peak, now) - 20.0).abs() < 0.001);
        peak.observe(Outcome::Failure, MS, now);
        assert!((millis(&peak, now) - 5000.0).abs() < 0.01);
    }

    #[test]
    fn a_clock_read_a_little_earlier_by_another_thread_does_no_harm() {
        let peak = Peak::default();
        let now = Timestamp::ZERO.after(DECAY);
        peak.observe(Outcome::Success, 10 * MS, now);
        let earlier = Timestamp::from_nanos(now.as_nanos() - 1_000_000);
        assert!((millis(&peak, earlier) - 10.0).abs() < 0.001);
    }

    #[test]
    fn no_sample_overflows() {
        let peak = Peak::default();
        for latency in [Duration::ZERO, Duration::MAX] {
            peak.observe(Outcome::Success, latency, Timestamp::ZERO);
            assert!(peak.at(Timestamp::ZERO).is_some());
        }
    }
}
