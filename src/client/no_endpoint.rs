//! Why nothing could be picked.

use std::error::Error as StdError;
use std::fmt;

use plimsoll_discovery_api::{Error, ErrorKind, ServiceName};

/// Why nothing could be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoEndpointReason {
    /// The registry has not answered yet; if an attempt to reach it has failed, its error is the source.
    NotYetKnown,
    /// The registry lists no instance.
    NoneRegistered,
    /// Every instance is draining, out of service or of weight zero.
    AllUnavailable,
    /// The client's own filters leave none.
    AllFiltered,
    /// Every instance is unhealthy or suspect, and the client was told never to fail open.
    AllUnhealthy,
    /// The balancer can make nothing of those that are left; its error is the source.
    Unbalanceable,
    /// The request excludes all that are left.
    AllExcluded,
}

impl NoEndpointReason {
    /// Each reason once, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::NotYetKnown,
        Self::NoneRegistered,
        Self::AllUnavailable,
        Self::AllFiltered,
        Self::AllUnhealthy,
        Self::Unbalanceable,
        Self::AllExcluded,
    ];

    /// The name used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotYetKnown => "not_yet_known",
            Self::NoneRegistered => "none_registered",
            Self::AllUnavailable => "all_unavailable",
            Self::AllFiltered => "all_filtered",
            Self::AllUnhealthy => "all_unhealthy",
            Self::Unbalanceable => "unbalanceable",
            Self::AllExcluded => "all_excluded",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::NotYetKnown => "the registry has not answered yet",
            Self::NoneRegistered => "no instance is registered",
            Self::AllUnavailable => "every instance is draining, out of service or weighs nothing",
            Self::AllFiltered => "the client's filters leave no instance",
            Self::AllUnhealthy => "every instance is unhealthy or suspect",
            Self::Unbalanceable => "the balancer cannot pick",
            Self::AllExcluded => "the request excludes every instance",
        }
    }
}

impl fmt::Display for NoEndpointReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Nothing could be picked, and why. Made without allocating.
#[derive(Clone, Debug)]
pub struct NoEndpoint {
    reason: NoEndpointReason,
    service: ServiceName,
    source: Option<Error>,
}

impl NoEndpoint {
    pub(super) fn new(
        reason: NoEndpointReason,
        service: ServiceName,
        source: Option<Error>,
    ) -> Self {
        Self {
            reason,
            service,
            source,
        }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> NoEndpointReason {
        self.reason
    }

    /// The service that was to be reached.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no endpoint of {}: {}",
            self.service,
            self.reason.sentence()
        )
    }
}

impl StdError for NoEndpoint {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// [`Unavailable`](ErrorKind::Unavailable), whatever the reason: each may pass without the
/// caller's doing.
impl From<NoEndpoint> for Error {
    fn from(error: NoEndpoint) -> Self {
        Self::new(ErrorKind::Unavailable, "no endpoint can be picked")
            .with_operation("pick")
            .with_context("service", error.service.as_str())
            .with_context("reason", error.reason.as_str())
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_survives_in_the_common_error() {
        for (index, reason) in NoEndpointReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "ALL is in the order of declaration");
            let cause = Error::new(ErrorKind::InvalidArgument, "odd weights");
            let error = NoEndpoint::new(
                reason,
                ServiceName::new("orders").unwrap(),
                Some(cause.clone()),
            );
            assert_eq!(
                error.source().map(ToString::to_string),
                Some(cause.to_string())
            );
            let error = Error::from(error);
            assert!(error.is_retryable() && error.to_string().contains(reason.as_str()));
            let source = error
                .source()
                .and_then(|source| source.downcast_ref::<NoEndpoint>());
            assert_eq!(source.map(NoEndpoint::reason), Some(reason));
        }
    }
}
