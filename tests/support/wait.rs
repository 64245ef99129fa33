//! Waiting for what will be true.

use std::time::{Duration, Instant};

/// Polls until `condition` holds; fails the test after 10 s of real time.
#[track_caller]
pub(crate) fn eventually(
    what: &'static str,
    mut condition: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let caller = std::panic::Location::caller();
    async move {
        while !condition() {
            assert!(Instant::now() < deadline, "not in time: {what} ({caller})");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Lets every task run until each waits for something, without the clock moving.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Waits until the runtime runs nothing but the test itself.
pub(crate) async fn no_tasks_left() {
    let metrics = tokio::runtime::Handle::current().metrics();
    eventually("every task has ended", || metrics.num_alive_tasks() == 0).await;
}
