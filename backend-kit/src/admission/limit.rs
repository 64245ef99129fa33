//! How many calls may be under way.

use std::time::Duration;

use tokio::time::Instant;

use super::{AdmissionPolicy, CLASSES, Class};

/// The quickest answer of the last one to two of these is what an answer takes without a queue.
const EPOCH: Duration = Duration::from_secs(30);
/// A round has at least so many answers, so that one odd one does not decide.
const LEAST_ROUND: u32 = 8;
/// The first growth ends when answers take this part of the target, as a doubling more would be past
/// it: answers, and not their delay, as whoever comes to a queue that is there takes the first answers
/// for what they take without one.
const START_UNTIL: f64 = 0.75;

/// A window in the manner of LEDBAT++: it doubles until answers are delayed, grows by one a round
/// while the delay is below the target, and shrinks by the part by which it is above.
///
/// A pure state machine: it is told what happened, and when.
#[derive(Debug)]
pub(super) struct Limit {
    policy: AdmissionPolicy,
    window: f64,
    is_starting: bool,
    bases: [Base; CLASSES],
    epoch: Instant,
    round: Round,
    /// Calls that were sent before this say nothing of the window there is now.
    changed: Instant,
    /// The window to go back to, while a small one shows what an answer takes without a queue.
    probing: Option<f64>,
}

/// The quickest answers of this epoch, and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Base {
    current: Option<Duration>,
    former: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    answers: u32,
    /// Those of them whose time says something of the registry.
    judged: u32,
    took: Duration,
    delay: Duration,
    /// Whether the window kept anybody waiting: otherwise it need not grow.
    is_full: bool,
}

impl Base {
    fn learn(&mut self, took: Duration) {
        self.current = Some(self.current.map_or(took, |least| least.min(took)));
    }

    fn get(self) -> Option<Duration> {
        match (self.current, self.former) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

impl Limit {
    pub(super) fn new(policy: AdmissionPolicy, now: Instant) -> Self {
        let policy = policy.sound();
        Self {
            window: float(policy.initial),
            is_starting: true,
            bases: [Base::default(); CLASSES],
            epoch: now,
            round: Round::default(),
            changed: now,
            probing: None,
            policy,
        }
    }

    /// At least one.
    pub(super) fn get(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the most, which is a usize"
        )]
        let whole = self.window as usize;
        whole
    }

    /// Somebody waits because of it.
    pub(super) fn keeps_waiting(&mut self) {
        self.round.is_full = true;
    }

    /// A call that was sent at `sent` has been answered.
    pub(super) fn answered(&mut self, class: Class, sent: Instant, now: Instant) {
        let took = now.duration_since(sent);
        let is_judged = class.is_judged();
        if is_judged {
            self.begin_an_epoch_if_due(now);
            self.bases[class as usize].learn(took);
        }
        if sent < self.changed {
            return;
        }
        self.round.answers += 1;
        if is_judged {
            let least = self.bases[class as usize].get().unwrap_or(took);
            self.round.judged += 1;
            self.round.took += took;
            self.round.delay += took.saturating_sub(least);
        }
        if self.round.answers >= LEAST_ROUND && float(self.round.answers as usize) >= self.window {
            self.end_round(now);
        }
    }

    /// A call that was sent at `sent` was not answered in time, or the registry says that it has too
    /// much to do.
    pub(super) fn overloaded(&mut self, sent: Instant, now: Instant) {
        if sent >= self.changed {
            self.is_starting = false;
            let window = self.probing.take().unwrap_or(self.window);
            self.set(window / 2.0, now);
        }
    }

    fn end_round(&mut self, now: Instant) {
        let Round {
            judged,
            took,
            delay,
            is_full,
            ..
        } = std::mem::take(&mut self.round);
        if let Some(window) = self.probing.take() {
            self.set(window, now);
            return;
        }
        // Of a round in which nothing was judged it is known that answers come, and no more.
        let of_target =
            |sum: Duration| sum.div_duration_f64(self.policy.target) / f64::from(judged.max(1));
        let ratio = of_target(delay);
        self.is_starting &= of_target(took) < START_UNTIL;
        if ratio > 1.0 {
            let part = (ratio - 1.0).min(0.5);
            self.set(self.window * (1.0 - part), now);
        } else if is_full {
            let doubles = self.is_starting && judged > 0;
            let more = if doubles { self.window } else { 1.0 };
            self.window = (self.window + more).min(float(self.policy.most));
        }
    }

    fn set(&mut self, window: f64, now: Instant) {
        self.window = window.clamp(float(self.policy.least), float(self.policy.most));
        self.round = Round::default();
        self.changed = now;
    }

    /// What is always queued for shows nothing but the queue: so now and then, for one round, the
    /// queue is let run empty.
    fn begin_an_epoch_if_due(&mut self, now: Instant) {
        let passed = now.duration_since(self.epoch);
        if passed < EPOCH {
            return;
        }
        let is_fresh = passed < EPOCH * 2;
        for base in &mut self.bases {
            base.former = base.current.take().filter(|_| is_fresh);
        }
        self.epoch = now;
        let is_full = self.round.is_full;
        if is_full && self.probing.is_none() && self.window > float(self.policy.least) {
            let window = self.window;
            self.set(0.0, now);
            self.probing = Some(window);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "far fewer calls than a float can count"
)]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);

    fn limit(now: Instant) -> Limit {
        Limit::new(AdmissionPolicy::default(), now)
    }

    /// A round of answers that each took `took`, of calls that somebody waited to make.
    fn round(limit: &mut Limit, now: &mut Instant, took: Duration) {
        let sent = *now;
        *now += took;
        limit.keeps_waiting();
        for _ in 0..limit.get().max(8) {
            limit.answered(Class::Claim, sent, *now);
        }
    }

    #[test]
    fn the_window_doubles_at_first_then_grows_by_one_and_shrinks_by_the_excess() {
        let mut now = Instant::now();
        let policy = AdmissionPolicy::default();
        let mut limit = limit(now);
        assert_eq!(limit.get(), policy.initial);
        round(&mut limit, &mut now, QUICK);
        round(&mut limit, &mut now, QUICK);
        assert_eq!(limit.get(), policy.initial * 4);
        round(&mut limit, &mut now, QUICK + policy.target.mul_f64(0.8));
        round(&mut limit, &mut now, QUICK);
        assert_eq!(limit.get(), policy.initial * 4 + 2);
        round(&mut limit, &mut now, QUICK + policy.target.mul_f64(1.25));
        assert_eq!(limit.get(), (policy.initial * 4 + 2) * 3 / 4);
        for _ in 0..20 {
            round(&mut limit, &mut now, QUICK + policy.target * 9);
        }
        assert_eq!(limit.get(), policy.least);
    }

    #[test]
    fn a_window_that_keeps_nobody_waiting_does_not_grow() {
        let now = Instant::now();
        let mut limit = limit(now);
        for _ in 0..1_000 {
            limit.answered(Class::Claim, now, now + QUICK);
        }
        assert_eq!(limit.get(), AdmissionPolicy::default().initial);
    }

    #[test]
    fn calls_sent_before_the_window_was_halved_do_not_halve_it_again() {
        let now = Instant::now();
        let policy = AdmissionPolicy {
            initial: 64,
            ..AdmissionPolicy::default()
        };
        let mut limit = Limit::new(policy, now);
        let late = now + Duration::from_secs(2);
        for _ in 0..64 {
            limit.overloaded(now, late);
        }
        assert_eq!(limit.get(), 32);
        limit.overloaded(late, late + Duration::from_secs(2));
        assert_eq!(limit.get(), 16);
    }

    #[test]
    fn a_registry_that_is_slow_by_itself_is_not_taken_for_one_with_a_queue() {
        let mut now = Instant::now();
        let mut limit = limit(now);
        let policy = AdmissionPolicy::default();
        for _ in 0..10 {
            round(&mut limit, &mut now, policy.target / 2);
        }
        assert_eq!(limit.get(), policy.most);
        // What each class takes by itself is its own.
        for _ in 0..1_000 {
            limit.answered(Class::Load, now, now + QUICK);
        }
        assert_eq!(limit.get(), policy.most);
    }

    #[test]
    fn what_answers_slowly_at_first_is_not_sent_twice_as_much_each_time() {
        let mut now = Instant::now();
        let mut limit = limit(now);
        let policy = AdmissionPolicy::default();
        for more in 0..5 {
            assert_eq!(
                limit.get(),
                policy.initial + more.min(1) + more.saturating_sub(1)
            );
            round(&mut limit, &mut now, policy.target * 5);
        }
    }

    #[test]
    fn a_registry_that_has_become_slower_for_good_has_its_window_back_within_two_epochs() {
        let mut now = Instant::now();
        let mut limit = limit(now);
        round(&mut limit, &mut now, QUICK);
        let (slow, became) = (AdmissionPolicy::default().target * 4, now);
        while now - became < EPOCH * 2 {
            round(&mut limit, &mut now, slow);
        }
        round(&mut limit, &mut now, slow);
        let window = limit.get();
        round(&mut limit, &mut now, slow);
        assert!(limit.get() > window, "{limit:?}");
    }

    #[test]
    fn a_queue_that_never_ends_is_let_run_empty_for_a_round_of_each_epoch() {
        let mut now = Instant::now();
        let mut limit = limit(now);
        let began = now;
        let mut least = usize::MAX;
        while now - began < EPOCH + Duration::from_secs(1) {
            round(&mut limit, &mut now, QUICK);
            least = least.min(limit.get());
        }
        assert_eq!(least, AdmissionPolicy::default().least);
        assert_eq!(limit.get(), AdmissionPolicy::default().most);
    }
}
