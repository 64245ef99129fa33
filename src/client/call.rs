//! Running an operation where it works.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Outcome, Pick, Timestamp};

use super::{Client, NoEndpoint, PickRequest};

/// How one attempt at an operation failed.
///
/// `?` turns an error into [`Final`](Self::Final): nothing is repeated unless the operation says
/// that it may be. [`AttemptExt::or_retry`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Attempt<E> {
    /// It may succeed elsewhere, and trying it again does no harm.
    Retry(E),
    /// It must not be tried again.
    Final(E),
}

impl<E> From<E> for Attempt<E> {
    fn from(error: E) -> Self {
        Self::Final(error)
    }
}

/// Says of a `Result` within an operation what is to become of its error.
///
/// ```
/// # use std::{io, sync::Arc};
/// # use plimsoll::{Attempt, AttemptExt, Client, Endpoint, PickRequest};
/// # use tokio::{io::AsyncWriteExt, net::TcpStream};
/// # async fn order(client: &Client) {
/// let any = PickRequest::new();
/// let ordered = client.call(&any, async |endpoint: Arc<Endpoint>| {
///     // Nothing has been sent yet: another endpoint may be tried.
///     let mut stream = TcpStream::connect(endpoint.instance().authority()).await.or_retry()?;
///     // This may have had its effect: no second time.
///     stream.write_all(b"one pizza").await?;
///     Ok::<_, Attempt<io::Error>>(())
/// });
/// # ordered.await.unwrap();
/// # }
/// ```
pub trait AttemptExt<T, E> {
    /// On an error, the operation may be tried elsewhere.
    ///
    /// # Errors
    /// [`Attempt::Retry`] with the error, if there is one.
    fn or_retry(self) -> Result<T, Attempt<E>>;

    /// On an error, the operation must not be tried again.
    ///
    /// # Errors
    /// [`Attempt::Final`] with the error, if there is one.
    fn or_final(self) -> Result<T, Attempt<E>>;
}

impl<T, E> AttemptExt<T, E> for Result<T, E> {
    fn or_retry(self) -> Result<T, Attempt<E>> {
        self.map_err(Attempt::Retry)
    }

    fn or_final(self) -> Result<T, Attempt<E>> {
        self.map_err(Attempt::Final)
    }
}

/// How a call failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError<E> {
    /// There was nothing to try it on; it was not tried.
    NoEndpoint(NoEndpoint),
    /// Every attempt failed in a way that allowed another.
    #[non_exhaustive]
    Exhausted {
        /// How many were made, each on another endpoint.
        attempts: u32,
        /// How the last one failed.
        last: E,
    },
    /// An attempt failed in a way that allows no other.
    Final(E),
}

impl<E> CallError<E> {
    /// How the operation itself failed; `None` if it was not tried.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::NoEndpoint(_) => None,
            Self::Exhausted { last: error, .. } | Self::Final(error) => Some(error),
        }
    }
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint(_) => f.write_str("the call could not be tried"),
            Self::Exhausted { attempts, .. } => write!(f, "the call failed {attempts} times"),
            Self::Final(_) => f.write_str("the call failed and must not be tried again"),
        }
    }
}

impl<E: StdError + 'static> StdError for CallError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NoEndpoint(error) => Some(error),
            Self::Exhausted { last: error, .. } | Self::Final(error) => Some(error),
        }
    }
}

impl Client {
    /// Picks an endpoint and runs `operation` on it; if that fails in a way that
    /// [allows it](Attempt::Retry), again on another.
    ///
    /// No endpoint is tried twice in one call, and none at once more: when every eligible
    /// endpoint has been tried, or [`with_max_attempts`](super::ClientBuilder::with_max_attempts)
    /// is reached, the last error stands. There is no pause between attempts, as each goes
    /// elsewhere.
    ///
    /// Each attempt is reported to its endpoint with the time it took, an error of either kind as
    /// a failure: an answer that says no (a 404) belongs in `T`.
    ///
    /// # Cancel safety
    /// If the future is dropped, so is the attempt under way, and it counts as cancelled.
    ///
    /// # Errors
    /// [`CallError`], saying whether it was tried at all.
    pub async fn call<T, E, Op, Fut>(
        &self,
        request: &PickRequest<'_>,
        operation: Op,
    ) -> Result<T, CallError<E>>
    where
        Op: FnMut(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Attempt<E>>>,
    {
        let Served {
            value,
            pick,
            started,
        } = self.attempt(request, operation).await?;
        self.report(pick, Outcome::Success, started);
        Ok(value)
    }

    /// [`call`](Self::call), but the success is left to the caller to report.
    pub(super) async fn attempt<T, E, Op, Fut>(
        &self,
        request: &PickRequest<'_>,
        mut operation: Op,
    ) -> Result<Served<T>, CallError<E>>
    where
        Op: FnMut(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Attempt<E>>>,
    {
        let mut tried = Vec::new();
        let mut attempts = 0;
        let mut pick = self.pick(request).map_err(CallError::NoEndpoint)?;
        loop {
            attempts += 1;
            let started = self.shared.clock.now();
            let last = match operation(Arc::clone(pick.endpoint())).await {
                Ok(value) => {
                    return Ok(Served {
                        value,
                        pick,
                        started,
                    });
                }
                Err(Attempt::Final(error)) => {
                    self.report(pick, Outcome::Failure, started);
                    return Err(CallError::Final(error));
                }
                Err(Attempt::Retry(error)) => error,
            };
            if tried.is_empty() {
                tried.extend_from_slice(request.excluded());
            }
            tried.push(Arc::clone(pick.endpoint()));
            self.report(pick, Outcome::Failure, started);
            let exhausted = CallError::Exhausted { attempts, last };
            if attempts == self.tasks.limits.max_attempts {
                return Err(exhausted);
            }
            let Ok(other) = self.pick(&request.with_excluded(&tried)) else {
                return Err(exhausted);
            };
            pick = other;
        }
    }

    fn report(&self, pick: Pick, outcome: Outcome, started: Timestamp) {
        let now = self.shared.clock.now();
        pick.finish_at(outcome, now.since(started), now);
    }
}

/// A success that has not been reported yet.
#[derive(Debug)]
pub(super) struct Served<T> {
    pub(super) value: T,
    pub(super) pick: Pick,
    pub(super) started: Timestamp,
}
