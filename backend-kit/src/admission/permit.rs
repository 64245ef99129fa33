//! One call, admitted, bounded and accounted for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::queue::{Outcome, State};
use super::{Admission, AdmissionPolicy, Class};

/// The queue of one registry handle.
pub(super) struct Shared(Mutex<State<Permit>>);

impl Shared {
    pub(super) fn new(policy: AdmissionPolicy, lease: Option<Duration>) -> Self {
        Self(Mutex::new(State::new(policy, lease)))
    }

    fn lock(&self) -> MutexGuard<'_, State<Permit>> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn patience(&self, usual: Duration) -> Duration {
        self.lock().patience(usual)
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit()
    }

    /// A call that was sent at `sent` has ended.
    pub(super) fn ended(self: &Arc<Self>, class: Class, sent: Instant, outcome: Outcome) {
        self.lock().ended(class, sent, outcome);
        self.admit();
    }

    /// A permit is given back that nothing was sent with.
    pub(super) fn returned(self: &Arc<Self>, class: Class) {
        self.lock().leave(class);
        self.admit();
    }

    /// Admits whose turn it is, as many as there is room for.
    fn admit(self: &Arc<Self>) {
        loop {
            // The lock is let go before anything is sent, as what is not received comes back.
            let next = self.lock().next();
            let Some((class, sender)) = next else { return };
            if let Err(permit) = sender.send(Permit::new(Arc::clone(self), class)) {
                permit.forget();
                self.lock().leave(class);
            }
        }
    }

    /// A permit at once, or a place in the queue.
    pub(super) fn queue(
        self: &Arc<Self>,
        class: Class,
    ) -> Result<Permit, oneshot::Receiver<Permit>> {
        let mut state = self.lock();
        if state.joins_at_once(class) {
            return Ok(Permit::new(Arc::clone(self), class));
        }
        let (sender, receiver) = oneshot::channel();
        state.wait(class, sender);
        drop(state);
        // There may be room for this one, if not for those that waited.
        self.admit();
        Err(receiver)
    }
}

/// Waits for a permit.
pub(super) async fn enter(shared: &Arc<Shared>, class: Class) -> Permit {
    loop {
        match shared.queue(class) {
            Ok(permit) => return permit,
            Err(queued) => {
                if let Ok(permit) = queued.await {
                    return permit;
                }
                // Not to be reached: the other end is in the queue, which this call keeps.
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

/// Leave to make one call. Dropping it gives it back.
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    shared: Option<Arc<Shared>>,
    class: Class,
    sent: Option<Instant>,
}

impl Permit {
    pub(super) fn new(shared: Arc<Shared>, class: Class) -> Self {
        Self {
            shared: Some(shared),
            class,
            sent: None,
        }
    }

    /// Makes `call`, which has `limit` from now on.
    ///
    /// A call that is dropped, or not answered in time, goes on taking its place until one that was
    /// sent later is answered, or as long again as it was waited for: the registry may still be busy
    /// with it.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) if there is no answer in time; those of `call`.
    pub async fn run<T>(
        mut self,
        limit: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.sent = Some(Instant::now());
        let result = bounded(limit, call).await;
        let outcome = match &result {
            Ok(_) => Outcome::Answered(limit),
            Err(error) => Outcome::of(error.kind(), limit),
        };
        self.end(outcome);
        result
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(shared) = self.shared.take() {
            match self.sent {
                Some(sent) => shared.ended(self.class, sent, outcome),
                None => shared.returned(self.class),
            }
        }
    }

    /// Is no permit any more, and gives nothing back.
    pub(super) fn forget(mut self) {
        self.shared = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("class", &self.class)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// Makes `call` when it is its turn; from then on it has `limit`.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) if there is no answer in time; those of `call`.
    pub async fn call<T>(
        &self,
        class: Class,
        limit: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.enter(class).await.run(limit, call).await
    }
}

/// Turns silence into an error.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(
            Error::new(ErrorKind::TimedOut, "the registry did not answer")
                .with_context("waited", format!("{limit:?}")),
        )
    })
}
