//! Leaving without failing a request.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use plimsoll_discovery_api::{Registration, Status};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Server, acceptor};

/// A registry that has not confirmed the removal by then will not; the lease runs out by itself.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(10);
/// An aborted handler ends at its next await; one that computes on without is left behind.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What became of the connections that were open when a draining server stopped accepting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Ended by themselves.
    pub finished: usize,
    /// Were still open at the deadline and cut.
    pub aborted: usize,
}

impl Server {
    /// Leaves the registry, lets what is in flight finish, and ends.
    ///
    /// In this order:
    /// 1. The instance is marked [`Draining`](Status::Draining), and the change is given
    ///    [`with_propagation_wait`](super::ServerBuilder::with_propagation_wait) to reach clients:
    ///    they send nothing new. Whoever connects all the same is served.
    /// 2. It is deregistered, which is given at most 10 s and then as long again to reach
    ///    clients. A registry that is down delays the drain but does not prevent it.
    /// 3. The listener is closed; connections that wait in its queue are served.
    /// 4. Handlers are told through [`DrainSignal`](super::DrainSignal), and have until
    ///    [`with_drain_timeout`](super::ServerBuilder::with_drain_timeout) to finish.
    /// 5. The rest is aborted.
    ///
    /// Tasks that a handler has started itself are its own.
    ///
    /// # Cancel safety
    /// If the future is dropped, the server is dropped, which is abrupt.
    pub async fn drain(self) -> DrainReport {
        self.leave().await;
        let Self {
            registrations: _registrations,
            acceptor,
            stop,
            draining,
            timing,
            ..
        } = self;
        let deadline = Instant::now() + timing.timeout;
        // The receiver is gone only if the acceptor is, and then there is nothing to wait for.
        let _acceptor_runs = stop.send(());
        let Ok(mut handlers) = acceptor.await else {
            return DrainReport::default();
        };
        draining.send_replace(true);
        let finished = finish(&mut handlers, deadline).await;
        let aborted = abort(&mut handlers).await;
        tracing::info!(finished, aborted, "drained");
        DrainReport { finished, aborted }
    }

    /// Steps 1 and 2, for every service at once.
    async fn leave(&self) {
        for registration in &self.registrations {
            if let Err(error) = registration.set_status(Status::Draining) {
                tracing::debug!(%error, "not marked as draining");
            }
        }
        tokio::time::sleep(self.timing.propagation_wait).await;
        all(self.registrations.iter().map(deregister)).await;
        tokio::time::sleep(self.timing.propagation_wait).await;
    }
}

async fn deregister(registration: &Registration) {
    match tokio::time::timeout(DEREGISTER_LIMIT, registration.deregister()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the deregistration is not confirmed"),
        Err(_) => tracing::warn!(limit = ?DEREGISTER_LIMIT, "deregistering takes too long"),
    }
}

/// Runs all of them at once, to their end.
async fn all(futures: impl Iterator<Item = impl Future<Output = ()> + Send> + Send) {
    let mut under_way: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|cx| {
        under_way.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if under_way.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Waits for handlers to end, until `deadline`; returns how many did.
async fn finish(handlers: &mut JoinSet<()>, deadline: Instant) -> usize {
    let mut finished = 0;
    while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, handlers.join_next()).await {
        acceptor::log_panic(ended);
        finished += 1;
    }
    finished
}

/// Ends the handlers that are left; returns how many there were.
async fn abort(handlers: &mut JoinSet<()>) -> usize {
    let aborted = handlers.len();
    if tokio::time::timeout(ABORT_LIMIT, handlers.shutdown())
        .await
        .is_err()
    {
        tracing::error!(
            left = handlers.len(),
            "connection handlers go on although they were aborted; do they block their thread?"
        );
    }
    aborted
}
