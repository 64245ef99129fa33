//! One call, admitted, bounded and accounted for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout};

use super::queue::{Outcome, Shared};
use super::{Admission, Class};

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
