//! When a lease is asked for, and under which number.

use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::time::{Instant, sleep_until};

use super::ended;
use crate::config::Config;

#[derive(Debug, Default)]
pub(super) struct Granting {
    /// Asked for without an answer: to be asked for again, lest two be granted.
    pub(super) id: Option<i64>,
    pub(super) failed: Option<(Instant, Error)>,
    /// Whether there was a lease, which has ended.
    is_another: bool,
    /// When it is this process's turn to ask for another one.
    turn: Option<Instant>,
}

impl Granting {
    /// Leases end together, as of a server that was paused or wiped, and all their owners learn of it
    /// at one moment: each comes back at a moment of its own within `window`.
    pub(super) async fn await_turn(&mut self, window: Duration) {
        if !self.is_another {
            return;
        }
        let draw = || Instant::now() + window.mul_f64(Rng::from_entropy().next_f64());
        sleep_until(*self.turn.get_or_insert_with(draw)).await;
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self {
            is_another: true,
            ..Self::default()
        };
    }

    pub(super) fn failed(&mut self, cause: &Error) {
        self.failed = Some((Instant::now(), cause.clone()));
        if cause.kind() == ErrorKind::LeaseExpired {
            // It was granted, and ended before anybody knew.
            self.id = None;
        }
    }
}

/// How long the leases of processes that ended at one moment may take to come back: as long as the
/// longest pause of the backoff, half of the time that a claim has, of which it is a part, and a third
/// of the lease, which is counted from the beginning of the claim.
pub(super) fn window(config: &Config) -> Duration {
    let timings = config.timings;
    let cap = timings.backoff.cap.min(timings.call_timeout / 2);
    cap.min(config.lease_ttl / 3)
}

/// The time to live of the lease `id`, in seconds, which was `granted` before; it has `left` of it.
pub(super) fn of_standing(id: i64, left: i64, granted: i64) -> Result<i64> {
    if left > 0 {
        Ok(granted)
    } else {
        Err(ended(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_ended_before_anybody_knew_of_it_is_not_asked_for_again() {
        let mut granting = Granting {
            id: Some(7),
            ..Granting::default()
        };
        let late = Error::new(ErrorKind::TimedOut, "x");
        granting.failed(&late);
        assert_eq!(granting.id, Some(7), "it may have been granted");
        assert_eq!(of_standing(7, 1, 10).ok(), Some(10));
        for left in [0, -1] {
            let ended = of_standing(7, left, 10).unwrap_err();
            granting.id = Some(7);
            granting.failed(&ended);
            assert_eq!(granting.id, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leases_that_ended_together_come_back_spread_over_the_window() {
        let window = Duration::from_secs(2);
        let mut turns = Vec::new();
        for _ in 0..1_000 {
            let mut granting = Granting::default();
            let began = Instant::now();
            granting.await_turn(window).await;
            assert_eq!(began.elapsed(), Duration::ZERO, "the first one");
            granting.succeeded();
            granting.await_turn(window).await;
            turns.push(began.elapsed());
            // A turn is drawn once, however often the grant is tried.
            granting.failed(&Error::new(ErrorKind::TimedOut, "x"));
            granting.await_turn(window).await;
            assert_eq!(Some(&began.elapsed()), turns.last());
        }
        // Each tenth of the window is the turn of 100 of 1,000, with a deviation of 9.5; half of
        // that or twice of it is more than five off.
        for tenth in 0..10 {
            let (from, to) = (window * tenth / 10, window * (tenth + 1) / 10);
            let count = turns.iter().filter(|t| (from..to).contains(t)).count();
            assert!(
                (50..=200).contains(&count),
                "{count} of 1,000 in tenth {tenth}"
            );
        }
    }
}
