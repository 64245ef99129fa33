//! What a client's failure accrual keeps of an endpoint.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Endpoint, Outcome};
use crate::Timestamp;

/// How an endpoint stands with its client's failure accrual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Admission {
    /// Picked like any other.
    #[default]
    Admitted,
    /// Left out for now.
    LeftOut,
    /// One request may try it.
    OnOffer,
    /// A request is trying it.
    OnTrial,
    /// The request that tried it failed.
    Failed,
}

/// From how many failures on an endpoint's client wants to be told, and by what. One for all
/// endpoints of a client.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by clients alone")]
pub struct FailureAlarm {
    /// Failures in a row: at least 1.
    pub failures: u32,
    /// Requests in a row that [timed out](Outcome::TimedOut): at least 1.
    pub timeouts: u32,
    /// Told when an endpoint reaches any of these, when it could not be reached at all, when a
    /// request to it was given up that had waited in vain, and when its [`Admission`] changes by a
    /// request's end.
    pub raised: Notify,
}

/// Whatever is written here is written when a request fails, or succeeds after a failure.
#[derive(Debug, Default)]
pub(super) struct Accrual {
    admission: AtomicU8,
    unreachable: AtomicU32,
    timeouts: AtomicU32,
    /// For how long the requests given up in a row were waited for, together, in nanoseconds.
    waited_ns: AtomicU64,
    /// When the first of them began, in nanoseconds of a [`Timestamp`].
    given_up_since: AtomicU64,
    alarm: OnceLock<Arc<FailureAlarm>>,
}

/// Requests in a row without a success, in one word that a success has to look at: failures in the
/// low half, requests given up in the high half.
#[derive(Debug, Default)]
pub(super) struct Streak(AtomicU64);

const GIVEN_UP: u64 = 1 << 32;

impl Streak {
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    #[inline]
    pub(super) fn failures(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        let failures = self.0.load(Ordering::Relaxed) as u32;
        failures
    }

    fn given_up(&self) -> u32 {
        (self.0.load(Ordering::Relaxed) >> 32) as u32
    }

    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn add(&self, step: u64) -> u64 {
        self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step)
    }
}

/// What a failure accrual reads and changes.
impl Endpoint {
    /// Tells `alarm` of failures from now on. The first alarm given counts.
    pub fn set_failure_alarm(&self, alarm: Arc<FailureAlarm>) {
        let _unless_given = self.accrual.alarm.set(alarm);
    }

    /// How it stands with its client's failure accrual.
    #[inline]
    #[must_use]
    pub fn admission(&self) -> Admission {
        decode(self.accrual.admission.load(Ordering::Relaxed))
    }

    /// Says how it stands. For the one failure accrual that watches it.
    pub fn set_admission(&self, admission: Admission) {
        self.accrual
            .admission
            .store(admission as u8, Ordering::Relaxed);
    }

    /// Takes the offer to try it: true for one caller for each [offer](Admission::OnOffer), who
    /// then makes a [`Pick::on_trial`](super::Pick::on_trial).
    #[must_use]
    pub fn claim_trial(&self) -> bool {
        // A look first, as most find it taken: an exchange that fails costs all others the line.
        self.admission() == Admission::OnOffer && self.turn(Admission::OnOffer, Admission::OnTrial)
    }

    /// Requests in a row that could not reach it.
    #[must_use]
    pub fn unreachable(&self) -> u32 {
        self.accrual.unreachable.load(Ordering::Relaxed)
    }

    /// Requests in a row that [timed out](Outcome::TimedOut).
    #[must_use]
    pub fn timeouts(&self) -> u32 {
        self.accrual.timeouts.load(Ordering::Relaxed)
    }

    /// Requests in a row that were given up after a time that is known, without a success: how
    /// many, when the first of them began, and how long they were waited for on average.
    #[must_use]
    pub fn given_up(&self) -> Option<(u32, Timestamp, Duration)> {
        let count = self.hot.streak.given_up();
        let waited = self.accrual.waited_ns.load(Ordering::Relaxed);
        let mean = Duration::from_nanos(waited.checked_div(u64::from(count))?);
        let since = self.accrual.given_up_since.load(Ordering::Relaxed);
        Some((count, Timestamp::from_nanos(since), mean))
    }

    /// When a request there was last answered, as far as a time was told; `None` before the first.
    #[must_use]
    pub fn answered_at(&self) -> Option<Timestamp> {
        let at = self.hot.answered_at.load(Ordering::Relaxed);
        at.checked_sub(1).map(Timestamp::from_nanos)
    }

    #[inline]
    pub(super) fn mark_answered(&self, now: Timestamp) {
        let stamp = now.as_nanos().saturating_add(1);
        self.hot.answered_at.store(stamp, Ordering::Relaxed);
    }

    /// For a success after failures, and for one of a trial.
    #[cold]
    pub(super) fn recover(&self, trial: bool) {
        let had_streak = !self.hot.streak.is_none();
        self.forget_streak();
        if self.admission() != Admission::Admitted && (trial || had_streak) {
            self.set_admission(Admission::Admitted);
            self.raise();
        }
    }

    pub(super) fn forget_streak(&self) {
        self.hot.streak.reset();
        self.accrual.unreachable.store(0, Ordering::Relaxed);
        self.accrual.timeouts.store(0, Ordering::Relaxed);
        self.accrual.waited_ns.store(0, Ordering::Relaxed);
    }

    #[cold]
    pub(super) fn accrue(&self, outcome: Outcome, trial: bool) {
        self.hot.streak.add(1);
        let add = |counter: &AtomicU32| counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (mut unreachable, mut timeouts) = (0, 0);
        match outcome {
            Outcome::Unreachable => unreachable = add(&self.accrual.unreachable),
            Outcome::TimedOut => timeouts = add(&self.accrual.timeouts),
            _ => {}
        }
        if trial {
            self.fail_trial();
        } else if self.admission() == Admission::Admitted
            && let Some(alarm) = self.accrual.alarm.get()
        {
            // Each time that many more have failed, and not each time: a client that is told may
            // have decided not to leave it out.
            let reached = |count: u32, limit: u32| count != 0 && count.is_multiple_of(limit.max(1));
            if unreachable != 0
                || reached(timeouts, alarm.timeouts)
                || reached(self.hot.streak.failures(), alarm.failures)
            {
                alarm.raised.notify_one();
            }
        }
    }

    /// One given up after `waited`, or after a time that nobody knows.
    #[cold]
    pub(super) fn give_up(&self, waited: Option<(Duration, Timestamp)>, trial: bool) {
        let Some((waited, now)) = waited else {
            if trial {
                self.turn(Admission::OnTrial, Admission::OnOffer);
            }
            return;
        };
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        if self.hot.streak.given_up() == 0 {
            let since = now.as_nanos().saturating_sub(nanos);
            self.accrual.given_up_since.store(since, Ordering::Relaxed);
        }
        let more = |total: u64| Some(total.saturating_add(nanos));
        let _always =
            self.accrual
                .waited_ns
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        self.hot.streak.add(GIVEN_UP);
        let since = self.accrual.given_up_since.load(Ordering::Relaxed);
        let answers_others = self.answered_at().is_some_and(|at| at.as_nanos() > since);
        if trial && self.latency().is_some_and(|mean| waited < mean) {
            // Too soon for an answer.
            self.turn(Admission::OnTrial, Admission::OnOffer);
        } else if trial {
            self.fail_trial();
        } else if self.admission() == Admission::Admitted && !answers_others {
            self.raise();
        }
    }

    fn fail_trial(&self) {
        if self.turn(Admission::OnTrial, Admission::Failed) {
            self.raise();
        }
    }

    fn raise(&self) {
        if let Some(alarm) = self.accrual.alarm.get() {
            alarm.raised.notify_one();
        }
    }

    fn turn(&self, from: Admission, to: Admission) -> bool {
        let turned = self.accrual.admission.compare_exchange(
            from as u8,
            to as u8,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        turned.is_ok()
    }
}

fn decode(code: u8) -> Admission {
    const ALL: [Admission; 5] = [
        Admission::Admitted,
        Admission::LeftOut,
        Admission::OnOffer,
        Admission::OnTrial,
        Admission::Failed,
    ];
    ALL.get(usize::from(code)).copied().unwrap_or_default()
}
