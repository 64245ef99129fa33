//! How long a query may wait at the agent.
//!
//! As long as the settings say, unless something between here and the agent ends what is silent for
//! that long: reverse proxies do after a minute, or whatever they were told, and that is no word of
//! the agent's. It is asked whether it is there, then once more as before, and once that has ended
//! in the same way, for less from then on.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// The longest wait that gets through, shared by all watches of a handle.
#[derive(Debug)]
pub(crate) struct Waits(AtomicU64);

impl Default for Waits {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Waits {
    fn longest(&self, wanted: Duration) -> Duration {
        wanted.min(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }

    /// Waits of `lasted` are cut off.
    fn shorten(&self, lasted: Duration) {
        let part = lasted.mul_f64(PART).max(LEAST);
        let millis = u64::try_from(part.as_millis()).unwrap_or(u64::MAX);
        if self.0.fetch_min(millis, Ordering::Relaxed) > millis {
            tracing::info!(?lasted, wait = ?part, "queries are cut off on their way; waiting for less");
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
        let mut cut = false;
        loop {
            let (wait, asked) = (self.longest(wanted), Instant::now());
            let answer = agent.health(&name, Reading::Settings, None, Some((index, wait)));
            let failure = match answer.await {
                Err(failure) if failure.is_cut_off() => failure,
                answer => return answer,
            };
            let lasted = asked.elapsed();
            if lasted < LEAST || lasted >= wait || agent.leader().await.is_err() {
                return Err(failure);
            }
            if cut {
                self.shorten(lasted);
            }
            cut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_shortened_to_what_gets_through_and_never_below_a_second() {
        let (waits, s) = (Waits::default(), Duration::from_secs);
        assert_eq!(waits.longest(s(300)), s(300));
        waits.shorten(s(60));
        assert_eq!(
            (waits.longest(s(300)), waits.longest(s(10))),
            (s(45), s(10))
        );
        waits.shorten(s(80));
        assert_eq!(waits.longest(s(300)), s(45));
        waits.shorten(s(1));
        assert_eq!(waits.longest(s(300)), s(1));
    }
}
