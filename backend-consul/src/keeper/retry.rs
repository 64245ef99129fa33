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
pub(super) struct RetryPacer {
    backoff: Backoff,
    failed: u32,
    pub(super) until: Option<Instant>,
}

impl RetryPacer {
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

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::{Error, ErrorKind};

    use super::*;

    /// The pauses after so many failures of one kind in a row.
    fn pauses(most: Duration, kind: ErrorKind) -> Vec<Duration> {
        let (mut pacer, mut rng) = (RetryPacer::new(most), Rng::from_seed(5));
        let mut pause = || {
            let before = Instant::now();
            pacer.was(Err(Error::new(kind, "x")), &mut rng);
            pacer.until.map(|until| until - before)
        };
        (0..200).map(|_| pause().expect("a pause")).collect()
    }

    #[test]
    fn what_waiting_may_cure_is_tried_soon_and_ever_more_slowly_and_all_else_once_a_second() {
        let slack = Duration::from_millis(100);
        let passing = pauses(LAST_RETRY, ErrorKind::Unavailable);
        assert!(passing[0] <= FIRST_RETRY + slack, "{passing:?}");
        assert!(
            passing
                .iter()
                .all(|pause| *pause >= LEAST_RETRY && *pause <= LAST_RETRY + slack)
        );
        let later = passing[10..].iter().sum::<Duration>() / 190;
        // Uniform below 2 s: the mean of 190 has a deviation of 0.04 s.
        assert!(
            later.abs_diff(Duration::from_secs(1)) < slack * 3,
            "{later:?}"
        );
        let lasting = pauses(LAST_RETRY, ErrorKind::PermissionDenied);
        assert!(
            lasting.iter().all(|pause| *pause >= PERMANENT_RETRY),
            "{lasting:?}"
        );
        // Others need their passes: nothing pauses for longer than the rhythm.
        let rhythm = Duration::from_millis(500);
        let short = pauses(rhythm, ErrorKind::PermissionDenied);
        assert!(
            short.iter().all(|pause| *pause <= rhythm + slack),
            "{short:?}"
        );
    }

    #[test]
    fn what_succeeds_is_followed_by_no_pause() {
        let (mut pacer, mut rng) = (RetryPacer::new(LAST_RETRY), Rng::from_seed(5));
        for _ in 0..20 {
            pacer.was(Err(Error::new(ErrorKind::Unavailable, "x")), &mut rng);
        }
        pacer.was(Ok(()), &mut rng);
        assert_eq!((pacer.until, pacer.failed), (None, 0));
    }
}
