//! How long a query may wait at the agent.
//!
//! As long as the settings say, unless something between here and the agent ends what is silent for
//! that long: reverse proxies do after a minute, or whatever they were told, and that is no word of
//! the agent's. It is asked whether it is there, then once more as before, and once that has ended
//! in the same way, for less from then on. Something else may have ended them, or be gone by then: so
//! after a while the whole time is tried again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::ServiceName;
use tokio::time::Instant;

use crate::error::Failure;
use crate::http::agent::{Agent, Health, Reading};
use crate::keys::service_name;

/// What ends sooner has not been waited for.
const LEAST: Duration = Duration::from_secs(1);
/// Of the time after which two queries were cut off.
const PART: f64 = 0.75;
/// The whole time is tried again after this: two queries cut off in ten minutes cost nothing.
const AGAIN: Duration = Duration::from_secs(600);

/// The longest wait that gets through, shared by all watches of a handle; `None` for any.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<Option<Shortened>>);

#[derive(Clone, Copy, Debug)]
struct Shortened {
    wait: Duration,
    until: Instant,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, Option<Shortened>> {
        // One value, which a panic cannot leave half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn longest(&self, wanted: Duration, now: Instant) -> Duration {
        let shortened = self.lock().filter(|shortened| now < shortened.until);
        shortened.map_or(wanted, |shortened| wanted.min(shortened.wait))
    }

    /// Two waits in a row were cut off, after so long each. What cuts off what is silent lets the
    /// longer of the two through; a connection that broke says nothing.
    fn shorten(&self, lasted: [Duration; 2], now: Instant) {
        let [first, second] = lasted;
        let wait = first.max(second).mul_f64(PART).max(LEAST);
        let mut shortened = self.lock();
        let known = shortened.filter(|known| now < known.until);
        if known.is_none_or(|known| wait < known.wait) {
            let until = now + AGAIN;
            *shortened = Some(Shortened { wait, until });
            tracing::info!(
                ?lasted,
                ?wait,
                "queries are cut off on their way; waiting for less"
            );
        }
    }

    /// The entries of `service` once they have changed since `index`, or the wait is over.
    pub(crate) async fn health(
        &self,
        agent: &Agent,
        service: &ServiceName,
        index: u64,
        wanted: Duration,
    ) -> Result<Health, Failure> {
        let name = service_name(service);
        let mut before = None;
        loop {
            let asked = Instant::now();
            let wait = self.longest(wanted, asked);
            let answer = agent.health(&name, Reading::Settings, None, Some((index, wait)));
            let failure = match answer.await {
                Err(failure) if failure.is_cut_off() => failure,
                answer => return answer,
            };
            let lasted = asked.elapsed();
            if lasted < LEAST || lasted >= wait || agent.leader().await.is_err() {
                return Err(failure);
            }
            if let Some(before) = before {
                self.shorten([before, lasted], Instant::now());
            }
            before = Some(lasted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn waits_are_shortened_to_what_gets_through_and_never_below_a_second() {
        let (waits, now) = (Waits::default(), Instant::now());
        let longest = |wanted| waits.longest(wanted, now);
        assert_eq!(longest(s(300)), s(300));
        waits.shorten([s(60), s(60)], now);
        assert_eq!((longest(s(300)), longest(s(10))), (s(45), s(10)));
        waits.shorten([s(80), s(80)], now);
        assert_eq!(longest(s(300)), s(45));
        waits.shorten([s(1), s(1)], now);
        assert_eq!(longest(s(300)), s(1));
    }

    #[test]
    fn of_two_cut_offs_the_longer_counts_whichever_came_first() {
        for lasted in [[s(2), s(200)], [s(200), s(2)]] {
            let (waits, now) = (Waits::default(), Instant::now());
            waits.shorten(lasted, now);
            assert_eq!(waits.longest(s(300), now), s(150), "{lasted:?}");
        }
    }

    #[test]
    fn the_whole_wait_is_tried_again_after_ten_minutes_and_shortened_anew() {
        let (waits, now) = (Waits::default(), Instant::now());
        waits.shorten([s(2), s(2)], now);
        assert!(waits.longest(s(300), now + s(599)) < s(2));
        assert_eq!(waits.longest(s(300), now + s(600)), s(300));
        waits.shorten([s(60), s(60)], now + s(720));
        assert_eq!(waits.longest(s(300), now + s(721)), s(45));
    }
}
