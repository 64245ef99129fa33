//! What each of the client's errors means here.

use plimsoll_discovery_api::{Error, ErrorKind};
use zookeeper_client as zk;

/// `EphemeralOnLocalSession`, which the client library does not know.
const LOCAL_SESSION: i32 = -120;

/// The kind of a native error, wherever it arises.
pub(crate) fn kind(error: &zk::Error) -> ErrorKind {
    use zk::Error as E;
    match error {
        // The session's own end is decided by the supervisor alone; to a call it is an
        // interruption like any other, and it is asked again.
        E::SessionExpired
        | E::SessionMoved
        | E::ClientClosed
        | E::ConnectionLoss
        | E::NoHosts
        | E::NotReadOnly
        | E::RuntimeInconsistent
        | E::Custom(_) => ErrorKind::Unavailable,
        E::Timeout => ErrorKind::TimedOut,
        E::NoAuth => ErrorKind::PermissionDenied,
        E::AuthFailed => ErrorKind::Unauthenticated,
        E::QuotaExceeded | E::Throttled => ErrorKind::ResourceExhausted,
        E::Unimplemented | E::ReconfigDisabled => ErrorKind::Unsupported,
        E::BadArguments(_) | E::InvalidAcl => ErrorKind::InvalidConfig,
        E::UnmarshalError { .. } | E::MarshallingError => ErrorKind::Corrupt,
        // Where these have a meaning, the caller has taken them before they come here: what is
        // left is a race with another writer, to be tried again.
        E::NoNode | E::NodeExists | E::BadVersion | E::NotEmpty => ErrorKind::Unavailable,
        E::UnexpectedErrorCode(LOCAL_SESSION) => ErrorKind::InvalidConfig,
        E::NoChildrenForEphemerals
        | E::NoWatcher
        | E::UnexpectedError(_)
        | E::UnexpectedErrorCode(_) => ErrorKind::Unexpected,
        // The enum may grow; what it grows by is not known to be harmless.
        _ => ErrorKind::Unexpected,
    }
}

/// Whether the session may own no node.
pub(crate) fn is_local_session(error: &zk::Error) -> bool {
    matches!(error, zk::Error::UnexpectedErrorCode(LOCAL_SESSION))
}

/// The error of a call that came to nothing.
pub(crate) fn failed(error: zk::Error) -> Error {
    let what = if is_local_session(&error) {
        "the ZooKeeper server makes local sessions, which own no node: there an instance cannot be \
         registered unless localSessionsUpgradingEnabled=true, or localSessionsEnabled=false, is set"
    } else {
        "the ZooKeeper server refused or lost the call"
    };
    Error::new(kind(&error), what).with_source(error)
}

/// The same, of a call on the node `path`, or on several of which that is the first.
pub(crate) fn failed_at(path: &str) -> impl Fn(zk::Error) -> Error + '_ {
    move |error| failed(error).with_context("path", path)
}

/// The same, saying what the call needs to be allowed, if it was not.
pub(crate) fn failed_for(
    path: &str,
    needs: impl FnOnce() -> String,
) -> impl FnOnce(zk::Error) -> Error {
    move |error| {
        let is_denied = matches!(error, zk::Error::NoAuth);
        let error = failed_at(path)(error);
        if is_denied {
            error.with_context("needs", needs())
        } else {
            error
        }
    }
}

/// The same, of a call that reads the node `path`.
pub(crate) fn unread_at(path: &str) -> impl FnOnce(zk::Error) -> Error {
    failed_for(path, move || format!("to read (r) {path}"))
}

/// The registration of `path` has ended.
pub(crate) fn gone(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::LeaseExpired, why).with_context("path", path)
}

/// Another writer was faster, again and again.
pub(crate) fn contended() -> Error {
    Error::new(ErrorKind::Unavailable, "others keep writing the same node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_native_error_has_the_kind_that_was_meant_for_it() {
        use ErrorKind as K;
        use zk::Error as E;
        let table = [
            (
                E::UnmarshalError {
                    entity: "e",
                    reason: &"r",
                },
                K::Corrupt,
            ),
            (E::NoHosts, K::Unavailable),
            (E::Timeout, K::TimedOut),
            (E::UnexpectedError("x".into()), K::Unexpected),
            (E::BadArguments(&"x"), K::InvalidConfig),
            (E::NoNode, K::Unavailable),
            (E::NoAuth, K::PermissionDenied),
            (E::BadVersion, K::Unavailable),
            (E::NoChildrenForEphemerals, K::Unexpected),
            (E::NodeExists, K::Unavailable),
            (E::NotEmpty, K::Unavailable),
            (E::SessionExpired, K::Unavailable),
            (E::InvalidAcl, K::InvalidConfig),
            (E::AuthFailed, K::Unauthenticated),
            (E::SessionMoved, K::Unavailable),
            (E::NotReadOnly, K::Unavailable),
            (E::NoWatcher, K::Unexpected),
            (E::QuotaExceeded, K::ResourceExhausted),
            (E::Throttled, K::ResourceExhausted),
            (E::MarshallingError, K::Corrupt),
            (E::Unimplemented, K::Unsupported),
            (E::ConnectionLoss, K::Unavailable),
            (E::ReconfigDisabled, K::Unsupported),
            (E::UnexpectedErrorCode(-99), K::Unexpected),
            (E::UnexpectedErrorCode(-120), K::InvalidConfig),
            (E::ClientClosed, K::Unavailable),
            (E::RuntimeInconsistent, K::Unavailable),
        ];
        for (native, meant) in table {
            assert_eq!(kind(&native), meant, "{native:?}");
            let error = failed(native.clone());
            assert!(std::error::Error::source(&error).is_some(), "{native:?}");
        }
    }
}
