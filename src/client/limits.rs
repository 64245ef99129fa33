//! What bounds a call.

use std::time::Duration;

use plimsoll_discovery_api::{Result, Rng};

use crate::invalid::invalid_config;

/// Two failures in a row on different endpoints are rarely the endpoints' fault.
const MAX_ATTEMPTS: u32 = 3;
/// Room for one lost SYN and its retransmission after 1 s
/// ([RFC 6298 section 2](https://www.rfc-editor.org/rfc/rfc6298#section-2)).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than anybody waits for a page, so that what works slowly is not cut off.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// An attempt that is not answered, and one elsewhere.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// A process that is restarted is back by then.
const ENDPOINT_WAIT: Duration = Duration::from_secs(5);

/// The first pause between rounds, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What bounds a call. The reasons for the defaults are at the constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_attempts: u32,
    pub(super) connect_timeout: Duration,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) call_timeout: Option<Duration>,
    pub(super) endpoint_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_attempts: MAX_ATTEMPTS,
            connect_timeout: CONNECT_TIMEOUT,
            attempt_timeout: Some(ATTEMPT_TIMEOUT),
            call_timeout: Some(CALL_TIMEOUT),
            endpoint_wait: ENDPOINT_WAIT,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<()> {
        if self.max_attempts == 0 {
            return Err(invalid_config("max_attempts", 0, "is zero"));
        }
        for (field, span) in [
            ("connect_timeout", Some(self.connect_timeout)),
            ("attempt_timeout", self.attempt_timeout),
            ("call_timeout", self.call_timeout),
        ] {
            if span.is_some_and(|span| span.is_zero()) {
                return Err(invalid_config(field, "0s", "is zero"));
            }
        }
        Ok(())
    }
}

/// The pause after the `round`-th round, counted from 0, in which every endpoint was tried: twice
/// the one before, and between half of that and all of it at random.
pub(super) fn pause(round: u32, rng: &mut Rng) -> Duration {
    let (first, most) = BACKOFF;
    let full = first.saturating_mul(1 << round.min(16)).min(most);
    full.mul_f64(0.5 + 0.5 * rng.next_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_never_to_nothing() {
        let mut rng = Rng::from_seed(1);
        for _ in 0..1_000 {
            let first = pause(0, &mut rng).as_millis();
            assert!((25..=50).contains(&first), "{first}");
            let late = pause(1_000, &mut rng).as_millis();
            assert!((500..=1_000).contains(&late), "{late}");
        }
    }
}
