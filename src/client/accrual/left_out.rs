//! An endpoint that is left out, until a trial succeeds.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Admission, Endpoint, Endpoints, Rng};
use tokio::time::Instant;

use super::FailureAccrual;
use super::judge::Cause;

/// What is taken off a pause at most, as a part of it: endpoints left out together, and clients
/// that saw them fail together, do not come back together.
const JITTER: f64 = 0.1;

/// A trial that is still under way after so long may never end, its server having vanished without
/// a word, and its caller waiting without a limit.
const TRIAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct LeftOut {
    endpoint: Arc<Endpoint>,
    since: Instant,
    /// The pause that is over or under way, before its jitter.
    pause: Duration,
    /// When it is offered for a trial, for the first time or anew.
    offer_at: Instant,
}

impl LeftOut {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        cause: Cause,
        rules: &FailureAccrual,
        at: Instant,
        rng: &mut Rng,
        service: &str,
    ) -> Self {
        endpoint.set_admission(Admission::LeftOut);
        tracing::warn!(
            service,
            id = %endpoint.id(),
            to = %endpoint.instance().authority(),
            %cause,
            "an endpoint is left out"
        );
        let pause = rules.first_pause;
        Self {
            endpoint,
            since: at,
            pause,
            offer_at: at + jittered(pause, rng),
        }
    }

    pub(super) fn offer_at(&self) -> Instant {
        self.offer_at
    }

    /// Whether it is still a member, and still left out.
    pub(super) fn stays(&self, endpoints: &Endpoints, service: &str) -> bool {
        let id = self.endpoint.id();
        let place = endpoints.binary_search_by(|endpoint| endpoint.id().cmp(id));
        if !place.is_ok_and(|place| Arc::ptr_eq(&endpoints[place], &self.endpoint)) {
            return false;
        }
        let stays = self.endpoint.admission() != Admission::Admitted;
        if !stays {
            tracing::info!(
                service,
                id = %self.endpoint.id(),
                after = ?self.since.elapsed(),
                "an endpoint that was left out answers again"
            );
        }
        stays
    }

    /// Offers it when the pause is over, and pauses again when its trial failed; whether either
    /// is new.
    pub(super) fn advance(&mut self, rules: &FailureAccrual, at: Instant, rng: &mut Rng) -> bool {
        if self.endpoint.admission() == Admission::Failed {
            self.pause = self.pause.saturating_mul(2).min(rules.max_pause);
            self.endpoint.set_admission(Admission::LeftOut);
            self.offer_at = at + jittered(self.pause, rng);
            return true;
        }
        let is_due = self.offer_at <= at;
        if is_due {
            self.offer_now(at);
        }
        is_due
    }

    pub(super) fn offer_now(&mut self, at: Instant) {
        self.endpoint.set_admission(Admission::OnOffer);
        self.offer_at = at + TRIAL;
    }
}

fn jittered(pause: Duration, rng: &mut Rng) -> Duration {
    pause.mul_f64(1.0 - JITTER * rng.next_f64())
}
