//! How a call fails.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Endpoint, ServiceName};

use super::NoEndpoint;

/// How a call failed. Its text names the service, the endpoint last tried and the cause.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError<E> {
    /// There was nothing to try it on; it was not tried.
    NoEndpoint(NoEndpoint),
    /// Every attempt failed in a way that allowed another, and no more were allowed: by the number
    /// of attempts, the [retry budget](super::RetryBudget) or the time for the call.
    #[non_exhaustive]
    Exhausted {
        /// The service that was called.
        service: ServiceName,
        /// The endpoint tried last.
        endpoint: Arc<Endpoint>,
        /// How many were made.
        attempts: u32,
        /// How the last one failed.
        last: E,
    },
    /// An attempt failed in a way that allows no other.
    #[non_exhaustive]
    Final {
        /// The service that was called.
        service: ServiceName,
        /// The endpoint that failed.
        endpoint: Arc<Endpoint>,
        /// How it failed.
        error: E,
    },
    /// An attempt was not answered in time, and it is not known whether it had its effect.
    #[non_exhaustive]
    TimedOut {
        /// The service that was called.
        service: ServiceName,
        /// The endpoint that did not answer.
        endpoint: Arc<Endpoint>,
        /// How many attempts were made, this one included.
        attempts: u32,
        /// The time it was given.
        limit: Duration,
        /// How the attempt before failed, if there was one that ended by itself.
        last: Option<E>,
    },
}

impl<E> CallError<E> {
    /// How the operation itself failed; `None` if it was not tried, or not answered.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::NoEndpoint(_) => None,
            Self::TimedOut { last, .. } => last,
            Self::Exhausted { last: error, .. } | Self::Final { error, .. } => Some(error),
        }
    }

    /// The endpoint tried last; `None` if none was.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match self {
            Self::NoEndpoint(_) => None,
            Self::TimedOut { endpoint, .. }
            | Self::Exhausted { endpoint, .. }
            | Self::Final { endpoint, .. } => Some(endpoint),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint(error) => write!(f, "the call could not be tried: {error}"),
            Self::Exhausted {
                service,
                endpoint,
                attempts,
                last,
            } => {
                let times = if *attempts == 1 { "once" } else { "times" };
                let site = Site(service, endpoint);
                match attempts {
                    1 => write!(f, "the call of {site} failed {times}: {last}"),
                    _ => write!(f, "the call of {site} failed {attempts} {times}: {last}"),
                }
            }
            Self::Final {
                service,
                endpoint,
                error,
            } => {
                let site = Site(service, endpoint);
                write!(
                    f,
                    "the call of {site} failed and must not be repeated: {error}"
                )
            }
            Self::TimedOut {
                service,
                endpoint,
                attempts,
                limit,
                ..
            } => {
                let site = Site(service, endpoint);
                write!(f, "the call of {site} was not answered within {limit:?}")?;
                match attempts {
                    1 => Ok(()),
                    _ => write!(f, " (attempt {attempts})"),
                }
            }
        }
    }
}

/// A service and one of its endpoints, for people.
struct Site<'a>(&'a ServiceName, &'a Endpoint);

impl fmt::Display for Site<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(service, endpoint) = self;
        let authority = endpoint.instance().authority();
        write!(f, "{service} at {} ({authority})", endpoint.id())
    }
}

impl<E: StdError + 'static> StdError for CallError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NoEndpoint(error) => Some(error),
            Self::Exhausted { last: error, .. } | Self::Final { error, .. } => Some(error),
            Self::TimedOut { last, .. } => last.as_ref().map(|last| last as _),
        }
    }
}
