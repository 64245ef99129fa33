//! Leaving out what has just been seen to fail.
//!
//! Failure accrual, as Finagle and Linkerd call it: an endpoint's failures add up until it is left
//! out, and one request at a time tries it again.

mod judge;
mod left_out;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Admission, Endpoint, Endpoints, FailureAlarm, Rng};
use tokio::time::Instant;

pub use self::rules::FailureAccrual;

use self::judge::{Cause, Failing};
use self::left_out::LeftOut;

/// The share of the endpoints that must remain where those left out do answer, wrongly: with fewer
/// the rest would carry more than twice their load.
const LEAST_LEFT: f64 = 0.5;

/// Between two looks at all endpoints, once so many in a row have found nothing to do: failures
/// that change nothing may come by the thousand.
const REST: Duration = Duration::from_millis(20);
const IDLE_LOOKS: u32 = 8;

/// Between two looks at endpoints whose requests were given up, until it shows whether others
/// answer. The first; each is twice the one before, and with the last it is given up.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What a client's updater does about failures. It alone decides who is left out.
#[derive(Debug)]
pub(super) struct Accrual {
    rules: FailureAccrual,
    alarm: Arc<FailureAlarm>,
    left_out: Vec<LeftOut>,
    /// When success rates are compared next.
    compare_at: Instant,
    /// No sooner are all endpoints looked at again, alarm or not.
    rested_at: Instant,
    /// How many looks in a row have found nothing to do.
    idle_looks: u32,
    /// When to look again though nothing happens.
    look_again: Option<Instant>,
    /// The pause before that look; `None` once there have been enough since the last alarm.
    look_after: Option<Duration>,
    /// Whether everybody is left out, so that everybody may be picked.
    all_out: bool,
    rng: Rng,
}

impl Accrual {
    pub(super) fn new(rules: FailureAccrual, rng: Rng) -> Self {
        let alarm = Arc::new(rules.alarm());
        let now = Instant::now();
        Self {
            compare_at: now + rules.interval,
            rested_at: now,
            idle_looks: 0,
            look_again: None,
            look_after: None,
            rules,
            alarm,
            left_out: Vec::new(),
            all_out: false,
            rng,
        }
    }

    /// Watches `endpoint` from now on.
    pub(super) fn watch(&self, endpoint: &Endpoint) {
        endpoint.set_failure_alarm(Arc::clone(&self.alarm));
    }

    /// Lets everybody in, for good: the balancer leaves out by itself what fails.
    pub(super) fn retire(self, endpoints: &Endpoints) {
        for endpoint in endpoints.iter() {
            endpoint.set_admission(Admission::Admitted);
        }
    }

    /// Returns when there is something to do.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn due(&mut self) {
        let next_offer = self.left_out.iter().map(LeftOut::offer_at).min();
        let times = [Some(self.compare_at), next_offer, self.look_again];
        let next = times.into_iter().flatten().min().unwrap_or(self.compare_at);
        // The rest comes first: an alarm that has been taken would be lost with the future.
        let raised = async {
            tokio::time::sleep_until(self.rested_at).await;
            self.alarm.raised.notified().await;
        };
        tokio::select! {
            () = raised => (self.look_again, self.look_after) = (None, Some(LOOK_AGAIN.0)),
            () = tokio::time::sleep_until(next) => {}
        }
    }

    /// Decides anew who of `usable` is left out, and who may be tried; returns whether any of that is
    /// new. `members` are those and all others, `service` is for the log.
    pub(super) fn revise(
        &mut self,
        members: &Endpoints,
        usable: &Endpoints,
        service: &str,
    ) -> bool {
        let at = Instant::now();
        let before = self.left_out.len();
        self.left_out.retain(|out| out.stays(members, service));
        let mut changed = before != self.left_out.len();
        for out in &mut self.left_out {
            changed |= out.advance(&self.rules, at, &mut self.rng);
        }
        let Failing {
            mut found,
            undecided,
        } = judge::failing(&self.rules, usable);
        if self.compare_at <= at {
            self.compare_at = at + self.rules.interval;
            found.extend(judge::outliers(&self.rules, usable));
            members.iter().for_each(|endpoint| endpoint.count_anew());
        }
        for (endpoint, cause) in found {
            if is_in(&endpoint) && may_leave_out(usable, cause) {
                changed = true;
                let out = LeftOut::new(endpoint, cause, &self.rules, at, &mut self.rng, service);
                self.left_out.push(out);
            }
        }
        changed |= self.mark_outage(usable, at);
        self.idle_looks = if changed {
            0
        } else {
            self.idle_looks.saturating_add(1)
        };
        if self.idle_looks > IDLE_LOOKS {
            self.rested_at = at + REST;
        }
        if !undecided {
            self.look_again = None;
        } else if self.look_again.is_none_or(|due| due <= at) {
            self.look_again = self.look_after.map(|pause| at + pause);
            let (_, last) = LOOK_AGAIN;
            self.look_after = self
                .look_after
                .map(|pause| pause * 2)
                .filter(|next| *next <= last);
        }
        changed
    }

    /// While all are out, all are picked from, and none is on trial. Whoever is left out without
    /// having failed last, say for its rate, has nothing to prove then. As soon as one is back, all
    /// others are offered for a trial: it could not carry what all of them did.
    fn mark_outage(&mut self, usable: &Endpoints, at: Instant) -> bool {
        let all_out = !usable.is_empty() && !usable.iter().any(is_in);
        let mut changed = false;
        if self.all_out && !all_out {
            self.left_out.iter_mut().for_each(|out| out.offer_now(at));
            changed = true;
        }
        self.all_out = all_out;
        if all_out {
            for endpoint in usable.iter().filter(|endpoint| has_no_row(endpoint)) {
                endpoint.set_admission(Admission::Admitted);
                changed = true;
            }
        }
        changed
    }
}

/// Where no answer came at all, everybody may be left out: if all are, all are picked from. Where
/// answers came, wrong ones, only as many as the others can do without.
fn may_leave_out(usable: &Endpoints, cause: Cause) -> bool {
    let remaining = usable.iter().filter(|endpoint| is_in(endpoint)).count() - 1;
    match cause {
        Cause::Unreachable | Cause::TimingOut | Cause::GivenUp => true,
        Cause::Failing | Cause::Outlier => {
            remaining >= 1 && remaining as f64 >= LEAST_LEFT * usable.len() as f64
        }
    }
}

fn is_in(endpoint: &Arc<Endpoint>) -> bool {
    endpoint.admission() == Admission::Admitted
}

/// Whether its last request was neither a failure nor given up.
fn has_no_row(endpoint: &Endpoint) -> bool {
    endpoint.consecutive_failures() == 0 && endpoint.given_up().is_none()
}

/// Of `usable` endpoints, those to pick among, and which of these may be had for one trial at a
/// time only. If every one is left out, none is: whoever must fail may as well try.
pub(super) fn admitted(usable: Endpoints) -> (Endpoints, Endpoints) {
    let is_tried = |endpoint: &&Arc<Endpoint>| {
        matches!(
            endpoint.admission(),
            Admission::OnOffer | Admission::OnTrial
        )
    };
    let none: Endpoints = Arc::new([]);
    if usable.iter().all(is_in) || !usable.iter().any(is_in) {
        return (usable, none);
    }
    let trials: Endpoints = usable.iter().filter(is_tried).cloned().collect();
    let eligible = usable.iter().filter(|e| is_in(e) || is_tried(e));
    (eligible.cloned().collect(), trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_outlives_a_look_that_is_dropped_while_it_rests() {
        let mut accrual = Accrual::new(FailureAccrual::new(), Rng::from_seed(1));
        let nobody: Endpoints = Arc::new([]);
        for _ in 0..=IDLE_LOOKS {
            accrual.revise(&nobody, &nobody, "s");
        }
        accrual.alarm.raised.notify_one();
        let dropped = tokio::time::timeout(REST / 2, accrual.due()).await;
        assert!(dropped.is_err(), "it rests");
        assert!(tokio::time::timeout(REST, accrual.due()).await.is_ok());
    }
}
