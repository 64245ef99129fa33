//! What each answer of an agent means here.

use std::fmt;

use plimsoll_discovery_api::{Error, ErrorKind};

/// Messages stay readable whatever a server or a gateway before it says.
const SHOWN_CHARS: usize = 200;
/// A refused transaction says of each of its operations why, and repeats their keys.
const READ_CHARS: usize = 4_096;

/// An answer that is not what was asked for, or none. Callers take those that have a meaning to
/// them; all others become an [`Error`] of the kind that was meant for them.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The status; `None` if there was no answer.
    pub(crate) status: Option<u16>,
    /// What the agent said, or what went wrong on the way.
    pub(crate) text: String,
    pub(crate) error: Error,
}

impl Failure {
    /// An answer of `status`, to a request that carried a token or none.
    pub(crate) fn refused(operation: &'static str, status: u16, text: &str, token: bool) -> Self {
        let text: String = text.trim().chars().take(READ_CHARS).collect();
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let error = Error::new(kind(status, &text, token), "the Consul agent refused")
            .with_context("request", operation)
            .with_context("status", status.to_string())
            .with_context("answer", shown);
        let error = match needs(operation) {
            Some(needs) if error.kind() == ErrorKind::PermissionDenied => {
                error.with_context("needs", needs)
            }
            _ => error,
        };
        Self {
            status: Some(status),
            text,
            error,
        }
    }

    /// No answer, or none in full. The address is left out of the cause: it is the caller's own.
    pub(crate) fn lost(operation: &'static str, cause: reqwest::Error) -> Self {
        let kind = if cause.is_timeout() {
            ErrorKind::TimedOut
        } else if cause.is_builder() {
            ErrorKind::Unexpected
        } else {
            // Refused, reset, cut short, or no TLS: all of them pass with the agent's trouble.
            ErrorKind::Unavailable
        };
        let cause = cause.without_url();
        let text = cause.to_string();
        let error = Error::new(kind, "no answer from the Consul agent")
            .with_context("request", operation)
            .with_source(cause);
        Self {
            status: None,
            text,
            error,
        }
    }

    /// An answer that is not what the API promises.
    pub(crate) fn corrupt(operation: &'static str, cause: impl fmt::Display) -> Self {
        let text = cause.to_string();
        let error = Error::new(ErrorKind::Corrupt, "not an answer of Consul's API")
            .with_context("request", operation)
            .with_context("cause", text.clone());
        Self {
            status: None,
            text,
            error,
        }
    }

    /// The same, with a fact that it lacks.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.error = self.error.with_context(name, value);
        self
    }

    /// The same of a thing that stands: nobody is to think that it is gone.
    pub(crate) fn of_what_stands(mut self) -> Self {
        if self.error.kind() == ErrorKind::NotFound {
            let why = "the Consul agent has no place for what it knows";
            self.error = Error::new(ErrorKind::Unavailable, why).with_source(self.error);
        }
        self
    }

    pub(crate) fn is(&self, status: u16) -> bool {
        self.status == Some(status)
    }

    /// Whether it may be the word of something between here and the agent, which has ended what
    /// was silent.
    pub(crate) fn is_cut_off(&self) -> bool {
        match self.status {
            None => self.error.kind() == ErrorKind::Unavailable,
            Some(status) => matches!(status, 408 | 502 | 503 | 504),
        }
    }

    /// Whether it says who may do what, and nothing of the record that was asked about.
    pub(crate) fn is_of_credentials(&self) -> bool {
        is_of_credentials(&self.error)
    }

    /// Whether the agent, asked by somebody with a token, knows of no such service; older ones have no
    /// status for it.
    pub(crate) fn knows_no_service(&self) -> bool {
        self.is(500) && self.text.contains("Unknown service")
    }

    /// Whether a transaction failed because its session is no more.
    pub(crate) fn names_no_session(&self) -> bool {
        self.is(409) && self.text.contains("invalid session")
    }

    /// Whether a transaction failed because things are not as it says; one that its token does not
    /// allow has the same status.
    pub(crate) fn is_lost_race(&self) -> bool {
        self.is(409) && !self.names_no_session() && !self.is_of_credentials()
    }
}

/// See [`Failure::is_of_credentials`].
pub(crate) fn is_of_credentials(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied
    )
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// The right that a request needs; Consul says which one it was in some releases only.
fn needs(operation: &str) -> Option<&'static str> {
    match operation {
        "register" | "deregister" | "pass" => Some("service:write"),
        "session" | "renewal" | "destroy" => Some("session:write"),
        "transaction" => Some("key:write"),
        "owner lock" => Some("key:read"),
        "loads" => Some("key:read, or key:list where the agent has enable_key_list_policy"),
        "health" => Some("service:read and node:read"),
        "check" => Some("node:read"),
        _ => None,
    }
}

/// The kind of a status, wherever it arises. Where one has a meaning of its own (a missing key, a
/// transaction that lost a race), the caller has taken it before it comes here.
pub(crate) fn kind(status: u16, text: &str, token: bool) -> ErrorKind {
    match status {
        // The agent could not read the request, or the configuration names a thing it has not:
        // a namespace without Enterprise, an unknown datacentre.
        400 | 422 if text.contains("Enterprise feature") => ErrorKind::Unsupported,
        400 | 413 | 415 | 422 => ErrorKind::InvalidArgument,
        // "ACL support disabled".
        401 => ErrorKind::Unauthenticated,
        // An unknown token is "ACL not found"; none at all is treated as one that may do nothing.
        403 if !token || text.contains("ACL not found") => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::Unsupported,
        408 | 504 => ErrorKind::TimedOut,
        409 if text.contains("Permission denied") && !token => ErrorKind::Unauthenticated,
        409 if text.contains("Permission denied") => ErrorKind::PermissionDenied,
        // A transaction was rolled back: a race with another writer, to be tried again.
        409 | 412 => ErrorKind::Unavailable,
        429 => ErrorKind::ResourceExhausted,
        // A server behind the agent refused, which older agents pass on so.
        500 if text.contains("ACL not found") => ErrorKind::Unauthenticated,
        500 if text.contains("Permission denied") => ErrorKind::PermissionDenied,
        500 if text.contains("No path to datacenter") => ErrorKind::InvalidConfig,
        500 if text.contains("Invalid Session TTL") => ErrorKind::InvalidConfig,
        // No leader, a lost server, an election: the words differ, the cure is to wait.
        500 | 502 | 503 => ErrorKind::Unavailable,
        // The token, or the balancer in between, sends elsewhere: nothing here follows.
        300..=399 => ErrorKind::InvalidConfig,
        _ => ErrorKind::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_kind_that_was_meant_for_it() {
        use ErrorKind as K;
        let table = [
            (301, "Moved Permanently", K::InvalidConfig),
            (307, "", K::InvalidConfig),
            (400, "Invalid service address", K::InvalidArgument),
            (
                400,
                "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
                K::Unsupported,
            ),
            (401, "ACL support disabled", K::Unauthenticated),
            (403, "ACL not found", K::Unauthenticated),
            (403, "Permission denied", K::PermissionDenied),
            (404, "", K::NotFound),
            (405, "method GET not allowed", K::Unsupported),
            (408, "", K::TimedOut),
            (409, "key exists", K::Unavailable),
            (
                409,
                r#"{"Errors":[{"OpIndex":0,"What":"Permission denied"}]}"#,
                K::PermissionDenied,
            ),
            (412, "", K::Unavailable),
            (413, "Request body too large", K::InvalidArgument),
            (415, "", K::InvalidArgument),
            (418, "", K::Unexpected),
            (422, "", K::InvalidArgument),
            (
                429,
                "Your IP is issuing too many concurrent connections",
                K::ResourceExhausted,
            ),
            (500, "No cluster leader", K::Unavailable),
            (500, "rpc error making call: EOF", K::Unavailable),
            (
                500,
                "rpc error making call: ACL not found",
                K::Unauthenticated,
            ),
            (
                500,
                "rpc error making call: Permission denied",
                K::PermissionDenied,
            ),
            (500, "No path to datacenter", K::InvalidConfig),
            (
                500,
                "Invalid Session TTL '1', must be between [10s=24h0m0s]",
                K::InvalidConfig,
            ),
            (501, "", K::Unsupported),
            (502, "", K::Unavailable),
            (503, "", K::Unavailable),
            (504, "", K::TimedOut),
            (599, "", K::Unexpected),
        ];
        for (status, text, meant) in table {
            assert_eq!(kind(status, text, true), meant, "{status} {text}");
            let error = Error::from(Failure::refused("x", status, text, true));
            assert_eq!(error.kind(), meant);
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
        for status in [403, 409] {
            let anonymous = kind(status, "Permission denied", false);
            assert_eq!(anonymous, K::Unauthenticated, "there is no token at all");
        }
    }

    #[test]
    fn a_transaction_that_is_not_allowed_or_has_no_session_has_not_lost_a_race() {
        let long = "k".repeat(1_000);
        let refused = |what: &str| {
            let text =
                format!(r#"{{"Errors":[{{"What":"key {long} exists"}},{{"What":"{what}"}}]}}"#);
            Failure::refused("transaction", 409, &text, true)
        };
        assert!(refused("index is stale").is_lost_race());
        assert!(!refused("Permission denied").is_lost_race());
        let ended = refused("invalid session \"x\"");
        assert!(ended.names_no_session() && !ended.is_lost_race());
    }

    #[test]
    fn a_long_answer_is_cut_short() {
        let failure = Failure::refused("x", 500, &"é".repeat(10_000), true);
        assert!(failure.error.to_string().len() < 1_000);
    }
}
