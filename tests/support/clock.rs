//! A clock for paused time.

use plimsoll::{Clock, Timestamp};

/// Reads tokio's clock, so that statistics and timers see the same paused time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        tokio::time::Instant::now().into_std().into()
    }
}
