//! A request to an endpoint, for as long as it is under way.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, Outcome};
use crate::Timestamp;

/// One request to one endpoint: counts as in flight until it is finished or dropped.
///
/// Dropping it unreported counts as [`Cancelled`](Outcome::Cancelled). `E` is how the endpoint is
/// held: by default an `Arc`, so that the pick may be kept and sent anywhere; a borrow where a
/// hot loop saves even that.
#[must_use = "the request counts as cancelled as soon as the pick is dropped"]
pub struct Pick<E: Deref<Target = Endpoint> = Arc<Endpoint>> {
    endpoint: E,
    stage: Stage,
}

/// One byte, as two that are written apart and then moved together would be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    UnderWay,
    /// Under way, and what becomes of it decides on the endpoint.
    OnTrial,
    Ended,
}

impl<E: Deref<Target = Endpoint>> Pick<E> {
    /// Counts a request on `endpoint`.
    #[inline]
    pub fn new(endpoint: E) -> Self {
        Self::begin(endpoint, Stage::UnderWay)
    }

    /// Counts a request on `endpoint` that tries whether it may be
    /// [admitted](super::Admission) again; for who has [claimed](Endpoint::claim_trial) the trial.
    pub fn on_trial(endpoint: E) -> Self {
        Self::begin(endpoint, Stage::OnTrial)
    }

    #[inline]
    fn begin(endpoint: E, stage: Stage) -> Self {
        endpoint.begin();
        Self { endpoint, stage }
    }

    /// Ends it; whether it was a trial.
    #[inline]
    fn close(&mut self) -> bool {
        let was_trial = self.stage == Stage::OnTrial;
        self.stage = Stage::Ended;
        was_trial
    }

    /// The endpoint that was picked.
    #[inline]
    #[must_use]
    pub fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// Reports that the endpoint answers, though the request has not ended: a connection that
    /// stays open, a response that is still being read. Ends rows of failures, and trials.
    pub fn answered(&mut self, now: Timestamp) {
        self.endpoint.mark_answered(now);
        let trial = self.close();
        self.stage = Stage::UnderWay;
        self.endpoint.recover(trial);
    }

    /// Reports how the request ended.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        let trial = self.close();
        self.endpoint.end(outcome, trial, None);
        if trial && outcome == Outcome::Cancelled {
            self.endpoint.give_up(None, trial);
        }
    }

    /// Reports how the request ended, how long it took, and when, however it ended:
    /// [`latency`](Endpoint::latency) takes in successes, and what was waited for in vain as a
    /// lower bound; [`peak_latency`](Endpoint::peak_latency) what each outcome says of the
    /// endpoint.
    ///
    /// `now` is of the clock that the client was given, with which balancers read what is learned
    /// here: [`SystemClock`](crate::SystemClock) unless it was given another.
    pub fn finish_at(mut self, outcome: Outcome, latency: Duration, now: Timestamp) {
        let trial = self.close();
        let endpoint = &*self.endpoint;
        let sample = (outcome == Outcome::Success).then_some(latency);
        endpoint.end(outcome, trial, sample);
        match outcome {
            Outcome::Success => endpoint.mark_answered(now),
            Outcome::TimedOut => endpoint.bound_latency(latency),
            Outcome::Cancelled => {
                endpoint.bound_latency(latency);
                endpoint.give_up(Some((latency, now)), trial);
            }
            Outcome::Failure | Outcome::Unreachable => {}
        }
        endpoint.hot.peak_latency.observe(outcome, latency, now);
    }

    /// Reports how the request ended and how long it took. Report only latencies that say
    /// something of the endpoint: a quick failure is not a quick answer.
    pub fn finish_after(mut self, outcome: Outcome, latency: Duration) {
        let trial = self.close();
        self.endpoint.end(outcome, trial, Some(latency));
        if trial && outcome == Outcome::Cancelled {
            self.endpoint.give_up(None, trial);
        }
    }
}

impl<E: Deref<Target = Endpoint>> Drop for Pick<E> {
    #[inline]
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            let trial = self.close();
            self.endpoint.end(Outcome::Cancelled, trial, None);
            if trial {
                self.endpoint.give_up(None, true);
            }
        }
    }
}

impl<E: Deref<Target = Endpoint>> fmt::Debug for Pick<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(&*self.endpoint).finish()
    }
}
