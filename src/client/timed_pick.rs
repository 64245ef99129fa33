//! A pick that knows since when it is under way.

use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{Clock, Endpoint, Outcome, Pick, Timestamp};

/// A request under way, as [`Client::call_with_pick`](super::Client::call_with_pick) hands it out:
/// it counts as in flight until it is finished or dropped, and knows since when.
///
/// Dropping it counts as [`Cancelled`](Outcome::Cancelled) after the time it was held.
#[must_use = "the request counts as cancelled as soon as the pick is dropped"]
pub struct TimedPick {
    /// `None` only while it ends.
    pick: Option<Pick>,
    endpoint: Arc<Endpoint>,
    clock: Arc<dyn Clock>,
    started: Timestamp,
}

impl TimedPick {
    pub(super) fn new(pick: Pick, clock: Arc<dyn Clock>) -> Self {
        Self {
            endpoint: Arc::clone(pick.endpoint()),
            pick: Some(pick),
            started: clock.now(),
            clock,
        }
    }

    /// The endpoint that was picked.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Reports that the endpoint answers, though the request has not ended.
    pub fn answered(&mut self) {
        if let Some(pick) = &mut self.pick {
            pick.answered(self.clock.now());
        }
    }

    /// Reports how the request ended: now, counted from the pick.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// Reports how something ended whose length says nothing of the endpoint.
    pub(super) fn finish_untimed(mut self, outcome: Outcome) {
        if let Some(pick) = self.pick.take() {
            pick.finish(outcome);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(pick) = self.pick.take() {
            let now = self.clock.now();
            pick.finish_at(outcome, now.since(self.started), now);
        }
    }
}

impl Drop for TimedPick {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl fmt::Debug for TimedPick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedPick")
            .field("endpoint", &self.endpoint)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
