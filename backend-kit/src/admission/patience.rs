//! How long a call is waited for.

use std::time::Duration;

use tokio::time::Instant;

/// No limit is lengthened by more than two to this power.
const MOST: u32 = 16;

/// Doubles what a claim is given while claims are answered too late, again and again, and goes
/// back step by step: as the timer of [RFC 6298](https://www.rfc-editor.org/rfc/rfc6298), section
/// 5.5. What takes longer than its limit would otherwise be done again and again, and never once.
#[derive(Debug)]
pub(super) struct Patience {
    /// No more than this, if the usual limit is not more: what is answered after the lease has ended
    /// is of no use.
    lease: Option<Duration>,
    /// How many times in a row a claim was answered too late, of those sent after the one before.
    failed: u32,
    changed: Instant,
}

impl Patience {
    pub(super) fn new(lease: Option<Duration>, now: Instant) -> Self {
        Self {
            lease,
            failed: 0,
            changed: now,
        }
    }

    /// What a call is given that usually has `usual`. The first time that an answer is late may have
    /// been nothing.
    pub(super) fn of(&mut self, usual: Duration, now: Instant) -> Duration {
        self.forget(now);
        let most = self.lease.unwrap_or(usual).max(usual);
        let given = |failed: u32| usual.saturating_mul(1 << failed.saturating_sub(1).min(MOST));
        // What lengthens nothing any more need not be undone either.
        while self.failed > 1 && given(self.failed - 1) >= most {
            self.failed -= 1;
        }
        given(self.failed).min(most)
    }

    /// Whoever makes a claim now and then has few answers to go by: a lease without a late one counts
    /// as an early one.
    fn forget(&mut self, now: Instant) {
        let Some(lease) = self.lease.filter(|lease| !lease.is_zero()) else {
            return;
        };
        while self.failed > 0 && now.duration_since(self.changed) >= lease {
            self.failed -= 1;
            self.changed += lease;
        }
    }

    pub(super) fn timed_out(&mut self, sent: Instant, now: Instant) {
        if sent >= self.changed {
            self.failed = (self.failed + 1).min(MOST + 1);
            self.changed = now;
        }
    }

    /// An answer came in less than half of the time that it had.
    pub(super) fn answered_soon(&mut self, sent: Instant, now: Instant) {
        if self.failed > 0 && sent >= self.changed {
            self.failed -= 1;
            self.changed = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_time_outs_double_the_limit_up_to_the_lease_and_early_answers_undo_it() {
        let (usual, second) = (Duration::from_secs(2), Duration::from_secs(1));
        let mut now = Instant::now();
        let mut patience = Patience::new(Some(second * 10), now);
        let mut limits = Vec::new();
        for _ in 0..6 {
            limits.push(patience.of(usual, now).as_secs());
            let sent = now;
            now += patience.of(usual, now);
            // All that was sent at that time is late as one.
            patience.timed_out(sent, now);
            patience.timed_out(sent, now);
        }
        assert_eq!(limits, [2, 2, 4, 8, 10, 10]);
        for _ in 0..6 {
            let sent = now;
            now += second;
            patience.answered_soon(sent, now);
        }
        assert_eq!(patience.of(usual, now), usual);
    }

    #[test]
    fn a_limit_beyond_the_lease_and_one_without_a_lease_stay_as_they_are() {
        let (usual, mut now) = (Duration::from_secs(5), Instant::now());
        for lease in [None, Some(Duration::from_secs(1))] {
            let mut patience = Patience::new(lease, now);
            for _ in 0..40 {
                let sent = now;
                now += usual;
                patience.timed_out(sent, now);
            }
            assert_eq!(patience.of(usual, now), usual, "{lease:?}");
        }
    }

    #[test]
    fn leases_without_a_late_answer_undo_what_many_late_ones_did() {
        let (usual, lease) = (Duration::from_secs(2), Duration::from_secs(10));
        let mut now = Instant::now();
        let mut patience = Patience::new(Some(lease), now);
        for _ in 0..40 {
            let sent = now;
            now += patience.of(usual, now);
            patience.timed_out(sent, now);
        }
        let given = |patience: &mut Patience, now| patience.of(usual, now).as_secs();
        let limits: Vec<_> = (0..5)
            .map(|n| given(&mut patience, now + lease * n))
            .collect();
        assert_eq!(limits, [10, 8, 4, 2, 2]);
    }
}
