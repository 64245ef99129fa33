//! The pace of accepting.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// Keeps a failing accept from becoming a busy loop. Out of descriptors is the usual cause, and
/// passes as soon as connections close.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
    resume: Option<Instant>,
}

impl Pace {
    /// A pause too short to be noticed, doubled with each failure in a row.
    const FIRST: Duration = Duration::from_millis(5);
    /// Long enough to cost nothing, short enough not to prolong an outage.
    const LONGEST: Duration = Duration::from_secs(1);

    /// Waits for the next connection; errors are logged and waited out. Cancel safe: a pause goes
    /// on where it was.
    pub(super) async fn accept<T, Fut>(&mut self, mut accept: impl FnMut() -> Fut) -> T
    where
        Fut: Future<Output = io::Result<T>>,
    {
        loop {
            if let Some(resume) = self.resume {
                tokio::time::sleep_until(resume).await;
            }
            self.resume = None;
            match accept().await {
                Ok(accepted) => {
                    self.failures = 0;
                    return accepted;
                }
                Err(error) if is_peers_fault(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => self.back_off(&error),
            }
        }
    }

    fn back_off(&mut self, error: &io::Error) {
        let doubled = Self::FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        let pause = doubled.min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.resume = Some(Instant::now() + pause);
        tracing::error!(%error, ?pause, "cannot accept connections");
    }
}

/// Whether the connection was already gone when its turn came.
pub(super) fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failing_accept_is_retried_at_a_slowing_pace_and_never_given_up() {
        let calls = Cell::new(0_u32);
        let mut pace = Pace::default();
        let start = Instant::now();
        let accept = async || {
            calls.set(calls.get() + 1);
            if calls.get() <= 100 {
                Err(io::Error::from_raw_os_error(24))
            } else {
                Ok("one")
            }
        };
        assert_eq!(pace.accept(accept).await, "one");
        // 5 + 10 + … + 640 ms in 8 steps, then 92 of 1 s.
        assert_eq!(start.elapsed(), Duration::from_millis(1_275 + 92_000));
        assert_eq!(pace.failures, 0, "a success starts afresh");
    }

    #[tokio::test(start_paused = true)]
    async fn being_interrupted_does_not_shorten_a_pause() {
        let calls = Cell::new(0_u32);
        let mut pace = Pace {
            failures: 7,
            resume: None,
        };
        for _ in 0..60 {
            let fails = async || {
                calls.set(calls.get() + 1);
                Err::<(), _>(io::Error::other("no descriptors"))
            };
            let interrupted =
                tokio::time::timeout(Duration::from_millis(10), pace.accept(fails)).await;
            assert!(interrupted.is_err());
        }
        assert_eq!(calls.get(), 1, "640 ms were not over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_gone_already_slows_nobody_down() {
        let calls = Cell::new(0_u32);
        let start = Instant::now();
        let accept = async || {
            calls.set(calls.get() + 1);
            if calls.get() < 10 {
                Err(io::ErrorKind::ConnectionAborted.into())
            } else {
                Ok(())
            }
        };
        Pace::default().accept(accept).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
