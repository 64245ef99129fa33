//! What each of the client's errors means here.

use etcd_client::{Error as Native, WatchResponse};
use plimsoll_discovery_api::{Error, ErrorKind};
use tonic::{Code, Status};

/// The kind of a native error, wherever it arises.
pub(crate) fn kind(error: &Native) -> ErrorKind {
    match error {
        Native::GRpcStatus(status) => kind_of_status(status),
        Native::InvalidArgs(_) | Native::InvalidUri(_) | Native::InvalidMetadataValue(_) => {
            ErrorKind::InvalidConfig
        }
        Native::Utf8Error(_) => ErrorKind::Corrupt,
        // Where a lease is found to have ended, the caller has taken that before it comes here:
        // what is left is a stream that ended.
        Native::IoError(_)
        | Native::TransportError(_)
        | Native::WatchError(_)
        | Native::LeaseKeepAliveError(_)
        | Native::EndpointError(_) => ErrorKind::Unavailable,
        Native::ElectError(_) | Native::EndpointsNotManaged | Native::Internal(_) => {
            ErrorKind::Unexpected
        }
    }
}

/// The codes are those of `rpctypes` in etcd's source; a connection that breaks shows as one of
/// several.
fn kind_of_status(status: &Status) -> ErrorKind {
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        Code::InvalidArgument
            if says("authentication failed")
                || says("user name is empty")
                || says("revision of auth store is old") =>
        {
            ErrorKind::Unauthenticated
        }
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::NotFound if says("requested lease not found") => ErrorKind::LeaseExpired,
        Code::NotFound => ErrorKind::NotFound,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::FailedPrecondition if says("authentication is not enabled") => {
            ErrorKind::InvalidConfig
        }
        Code::OutOfRange if is_oversized_status(status) => ErrorKind::ResourceExhausted,
        // A compacted or future revision: what is there now is to be read instead.
        Code::OutOfRange => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::TimedOut,
        Code::Cancelled if says("Timeout expired") => ErrorKind::TimedOut,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Unavailable | Code::Aborted | Code::Cancelled | Code::Unknown | Code::Internal => {
            ErrorKind::Unavailable
        }
        Code::Ok | Code::AlreadyExists | Code::FailedPrecondition => ErrorKind::Unexpected,
    }
}

/// Whether an answer exceeded the limit set on this side.
pub(crate) fn is_oversized(error: &Error) -> bool {
    status_of(error).is_some_and(is_oversized_status)
}

fn is_oversized_status(status: &Status) -> bool {
    status.message().contains("message length too large")
}

/// Whether the revision asked for is no longer kept.
pub(crate) fn is_compacted(error: &Error) -> bool {
    status_of(error).is_some_and(|status| {
        status.code() == Code::OutOfRange && status.message().contains("compacted")
    })
}

/// Whether a lease of the id asked for is there already.
pub(crate) fn is_granted_already(error: &Error) -> bool {
    status_of(error).is_some_and(|status| status.message().contains("lease already exists"))
}

/// Whether it is what a server says that is in good order, whatever its kind.
pub(crate) fn is_nobodys_fault(error: &Error) -> bool {
    is_compacted(error) || is_granted_already(error)
}

/// Whether the server knows of no users, so that none can be authenticated.
pub(crate) fn is_auth_disabled(error: &Native) -> bool {
    matches!(error, Native::GRpcStatus(status)
        if status.message().contains("authentication is not enabled"))
}

/// Whether it was refused by a learner, which has changed nothing and says so to whoever comes.
pub(crate) fn is_of_learner(error: &Error) -> bool {
    status_of(error).is_some_and(|status| {
        status.code() == Code::Unavailable && status.message().contains("not supported for learner")
    })
}

/// Whether the keepalive was answered with: there is no such lease.
pub(crate) fn is_lease_lost(error: &Native) -> bool {
    match error {
        Native::LeaseKeepAliveError(text) => text == "lease not found",
        Native::GRpcStatus(status) => kind_of_status(status) == ErrorKind::LeaseExpired,
        _ => false,
    }
}

fn status_of(error: &Error) -> Option<&Status> {
    match std::error::Error::source(error)?.downcast_ref::<Native>()? {
        Native::GRpcStatus(status) => Some(status),
        _ => None,
    }
}

/// The error of a call that came to nothing.
pub(crate) fn failed(error: Native) -> Error {
    Error::new(kind(&error), "the etcd server refused or lost the call").with_source(error)
}

/// The server has ended a watch, or refused to begin it.
pub(crate) fn cancelled(message: &WatchResponse) -> Error {
    let reason = message.cancel_reason();
    let kind = if reason.contains("permission denied") {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, "the server cancelled the watch")
        .with_context("reason", reason)
        .with_context("compacted", message.compact_revision().to_string())
}

/// The registration of `key` has ended.
pub(crate) fn gone(key: &str, why: &str) -> Error {
    Error::new(ErrorKind::LeaseExpired, why).with_context("key", key)
}

/// Others keep changing what is to be written.
pub(crate) fn contended(key: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "others keep writing the same key").with_context("key", key)
}

/// Says which key an error is about, unless it says so itself.
pub(crate) fn about(key: &str) -> impl FnOnce(Error) -> Error {
    move |error| {
        if error.context().any(|(name, _)| name == "key") {
            return error;
        }
        error.with_context("key", key)
    }
}

/// Says what a call needs to be allowed, if it was not.
pub(crate) fn needing(needs: impl FnOnce() -> String) -> impl FnOnce(Error) -> Error {
    move |error| {
        let is_denied = error.kind() == ErrorKind::PermissionDenied;
        if !is_denied || error.context().any(|(name, _)| name == "needs") {
            return error;
        }
        error.with_context("needs", needs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_kind_that_was_meant_for_it() {
        use ErrorKind as K;
        let table = [
            (Code::Ok, "", K::Unexpected),
            (Code::Cancelled, "Timeout expired", K::TimedOut),
            (Code::Cancelled, "operation was canceled", K::Unavailable),
            (Code::Unknown, "h2 protocol error", K::Unavailable),
            (
                Code::InvalidArgument,
                "etcdserver: key is not provided",
                K::InvalidArgument,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                K::Unauthenticated,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                K::Unauthenticated,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                K::Unauthenticated,
            ),
            (Code::DeadlineExceeded, "", K::TimedOut),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                K::LeaseExpired,
            ),
            (Code::NotFound, "etcdserver: member not found", K::NotFound),
            (Code::AlreadyExists, "", K::Unexpected),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                K::PermissionDenied,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                K::ResourceExhausted,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
                K::InvalidConfig,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: lease already exists",
                K::Unexpected,
            ),
            (Code::Aborted, "", K::Unavailable),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                K::Unavailable,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
                K::ResourceExhausted,
            ),
            (Code::Unimplemented, "", K::Unsupported),
            (Code::Internal, "connection reset", K::Unavailable),
            (Code::Unavailable, "etcdserver: no leader", K::Unavailable),
            (Code::DataLoss, "etcdserver: corrupt cluster", K::Corrupt),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                K::Unauthenticated,
            ),
        ];
        for (code, message, meant) in table {
            let native = Native::GRpcStatus(Status::new(code, message));
            assert_eq!(kind(&native), meant, "{code:?} {message}");
            assert!(std::error::Error::source(&failed(native)).is_some());
        }
    }

    #[test]
    fn every_other_error_has_the_kind_that_was_meant_for_it() {
        use ErrorKind as K;
        let table = [
            (Native::InvalidArgs("x".into()), K::InvalidConfig),
            (Native::IoError(std::io::Error::other("x")), K::Unavailable),
            (Native::WatchError("x".into()), K::Unavailable),
            (Native::LeaseKeepAliveError("x".into()), K::Unavailable),
            (Native::ElectError("x".into()), K::Unexpected),
            (Native::EndpointError("x".into()), K::Unavailable),
            (Native::EndpointsNotManaged, K::Unexpected),
            (Native::Internal("x".into()), K::Unexpected),
        ];
        for (native, meant) in table {
            assert_eq!(kind(&native), meant, "{native:?}");
        }
    }

    #[test]
    fn an_error_names_its_key_once() {
        let context = |error: Error| {
            let context = error
                .context()
                .map(|(name, value)| format!("{name} {value}"));
            context.collect::<Vec<_>>()
        };
        let bare = Error::new(ErrorKind::Unavailable, "x");
        assert_eq!(context(about("a")(bare)), ["key a"]);
        assert_eq!(context(about("a")(gone("b", "x"))), ["key b"]);
    }

    #[test]
    fn special_answers_are_told_apart() {
        let status = |code, text: &str| Native::GRpcStatus(Status::new(code, text));
        let compacted = || {
            status(
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            )
        };
        assert!(is_compacted(&failed(compacted())) && !is_oversized(&failed(compacted())));
        let exists = status(Code::FailedPrecondition, "etcdserver: lease already exists");
        assert!(is_granted_already(&failed(exists)));
        assert!(is_lease_lost(&Native::LeaseKeepAliveError(
            "lease not found".into()
        )));
        assert!(!is_lease_lost(&Native::LeaseKeepAliveError(
            "channel closed".into()
        )));
        assert!(is_lease_lost(&status(
            Code::NotFound,
            "etcdserver: requested lease not found"
        )));
        let learner = status(
            Code::Unavailable,
            "etcdserver: rpc not supported for learner",
        );
        assert!(is_of_learner(&failed(learner)) && !is_of_learner(&failed(compacted())));
        assert!(is_auth_disabled(&status(
            Code::FailedPrecondition,
            "etcdserver: authentication is not enabled"
        )));
    }
}
