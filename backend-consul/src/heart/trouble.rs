//! The pace of what fails.

use std::time::Duration;

use plimsoll_backend_kit::Backoff;
use plimsoll_discovery_api::{Result, Rng};
use tokio::time::Instant;

/// What failed is repeated after these: at first at once, as it may have been nothing, and later no
/// faster than checks need it that still stand.
const FIRST_RETRY: Duration = Duration::from_millis(200);
pub(super) const LAST_RETRY: Duration = Duration::from_secs(2);
const LEAST_RETRY: Duration = Duration::from_millis(50);
/// What waiting rarely cures is repeated no faster than this.
const PERMANENT_RETRY: Duration = Duration::from_secs(1);

/// How often in a row it has failed, and until when nothing is tried. Every registration asks for
/// what it needs at a pace of its own; all of them together are no more often in the agent's ear than
/// one would be.
#[derive(Debug)]
pub(super) struct Trouble {
    backoff: Backoff,
    failed: u32,
    pub(super) until: Option<Instant>,
}

impl Trouble {
    /// No pause is longer than `most`, be it for what others need who are not in trouble.
    pub(super) fn new(most: Duration) -> Self {
        let mut backoff = Backoff::default();
        backoff.cap = LAST_RETRY.min(most);
        backoff.base = FIRST_RETRY.min(backoff.cap);
        backoff.floor = LEAST_RETRY;
        Self {
            backoff,
            failed: 0,
            until: None,
        }
    }

    /// Takes note of how it went.
    pub(super) fn was(&mut self, outcome: Result<()>, rng: &mut Rng) {
        let Err(cause) = outcome else {
            (self.failed, self.until) = (0, None);
            return;
        };
        let mut pause = self.backoff.delay(self.failed, rng);
        if !cause.is_retryable() {
            pause = pause.max(PERMANENT_RETRY.min(self.backoff.cap));
        }
        self.failed = self.failed.saturating_add(1);
        self.until = Some(Instant::now() + pause);
    }
}
