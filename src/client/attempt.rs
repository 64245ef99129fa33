//! How one attempt at an operation fails.

use std::any::Any;
use std::error::Error as StdError;
use std::io;

use plimsoll_discovery_api::Outcome;

/// How one attempt at an operation failed.
///
/// `?` turns an error into [`Final`](Self::Final): nothing is repeated unless the operation says
/// that it may be. [`AttemptExt`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth way")]
pub enum Attempt<E> {
    /// The endpoint could not be reached: nothing was done there. It is left out at once, and the
    /// operation tried elsewhere.
    Unreachable(E),
    /// It may succeed elsewhere, and trying it again does no harm.
    ///
    /// The endpoint is left out at once, as if [`Unreachable`](Self::Unreachable), if `E` is or
    /// comes from an [`io::Error`] that says that a connection was refused, aborted or reset, or
    /// that there is no route. What `E` comes from can be seen if it is an [`io::Error`], an
    /// [`Error`](crate::Error) or a boxed error.
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
///     let mut stream = TcpStream::connect(endpoint.instance().authority()).await.or_unreachable()?;
///     // This may have had its effect: no second time.
///     stream.write_all(b"one pizza").await?;
///     Ok::<_, Attempt<io::Error>>(())
/// });
/// # ordered.await.unwrap();
/// # }
/// ```
pub trait AttemptExt<T, E> {
    /// On an error, the endpoint could not be reached, and the operation is tried elsewhere.
    ///
    /// # Errors
    /// [`Attempt::Unreachable`] with the error, if there is one.
    fn or_unreachable(self) -> Result<T, Attempt<E>>;

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
    fn or_unreachable(self) -> Result<T, Attempt<E>> {
        self.map_err(Attempt::Unreachable)
    }

    fn or_retry(self) -> Result<T, Attempt<E>> {
        self.map_err(Attempt::Retry)
    }

    fn or_final(self) -> Result<T, Attempt<E>> {
        self.map_err(Attempt::Final)
    }
}

/// What an error says of the endpoint; `retryable` is whether the operation may be repeated.
pub(super) fn outcome_of<E: 'static>(error: &E, retryable: bool) -> Outcome {
    let error: &dyn Any = error;
    let cause: Option<&(dyn StdError + 'static)> =
        if let Some(error) = error.downcast_ref::<io::Error>() {
            Some(error)
        } else if let Some(error) = error.downcast_ref::<crate::Error>() {
            Some(error)
        } else if let Some(error) = error.downcast_ref::<Box<dyn StdError + Send + Sync>>() {
            Some(&**error)
        } else if let Some(error) = error.downcast_ref::<Box<dyn StdError>>() {
            Some(&**error)
        } else {
            None
        };
    std::iter::successors(cause, |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .map_or(Outcome::Failure, |error| of_io(error.kind(), retryable))
}

/// A connection that is reset while a request is under way may have been closed for its age, and
/// one that times out may be busy: only where nothing had been sent do these mean that there is
/// nobody.
fn of_io(kind: io::ErrorKind, retryable: bool) -> Outcome {
    use io::ErrorKind as Kind;
    match kind {
        Kind::ConnectionRefused | Kind::HostUnreachable | Kind::NetworkUnreachable => {
            Outcome::Unreachable
        }
        Kind::ConnectionAborted | Kind::ConnectionReset if retryable => Outcome::Unreachable,
        Kind::TimedOut => Outcome::TimedOut,
        _ => Outcome::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[test]
    fn a_refused_connection_is_recognised_through_the_errors_round_it() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let wrapped = || Error::new(ErrorKind::Unavailable, "not made").with_source(refused());
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(wrapped());
        let local: Box<dyn StdError> = Box::new(refused());
        for retryable in [true, false] {
            assert_eq!(outcome_of(&refused(), retryable), Outcome::Unreachable);
            assert_eq!(outcome_of(&wrapped(), retryable), Outcome::Unreachable);
            assert_eq!(outcome_of(&boxed, retryable), Outcome::Unreachable);
            assert_eq!(outcome_of(&local, retryable), Outcome::Unreachable);
        }
    }

    #[test]
    fn a_reset_says_that_nobody_is_there_only_before_anything_was_sent() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(outcome_of(&reset, true), Outcome::Unreachable);
        assert_eq!(outcome_of(&reset, false), Outcome::Failure);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(outcome_of(&late, false), Outcome::TimedOut);
    }

    #[test]
    fn any_other_error_is_a_failure_of_the_endpoint() {
        assert_eq!(
            outcome_of(&io::Error::other("broken"), true),
            Outcome::Failure
        );
        assert_eq!(outcome_of(&"text", true), Outcome::Failure);
        let closed: Box<dyn StdError + Send + Sync> =
            Box::new(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(outcome_of(&closed, true), Outcome::Failure);
    }
}
