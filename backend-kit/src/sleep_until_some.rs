//! Waiting for a moment that may have come already.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

/// Returns at `deadline`; at once, without a timer, if that has come: a timer would be up to a
/// millisecond late. Never, if there is none. Cancel safe.
pub async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) if deadline <= Instant::now() => {}
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_takes_no_timer_and_what_is_not_takes_its_time() {
        let is_ready = |deadline| {
            let mut context = Context::from_waker(Waker::noop());
            pin!(sleep_until_some(deadline))
                .poll(&mut context)
                .is_ready()
        };
        let (now, span) = (Instant::now(), Duration::from_millis(5));
        assert!(is_ready(Some(now)));
        assert!(!is_ready(Some(now + span)) && !is_ready(None));
        sleep_until_some(Some(now + span)).await;
        assert!(Instant::now() >= now + span);
    }
}
