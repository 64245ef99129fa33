//! The one error type of every crate in the workspace.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A `Result` whose error is plimsoll's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, sorted by who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The handle was closed or deregistered; nothing more will come of it.
    Closed,
    /// Another live owner holds the instance id.
    Conflict,
    /// The registry answered with something that cannot be understood.
    Corrupt,
    /// The caller passed a value that no registry would accept.
    InvalidArgument,
    /// The configuration or the URL is wrong.
    InvalidConfig,
    /// The lease, session or check that carried a record has ended.
    LeaseExpired,
    /// What was asked for is not there.
    NotFound,
    /// The credentials are good, but do not allow this.
    PermissionDenied,
    /// The registry has run out of a resource (space, quota, rate).
    ResourceExhausted,
    /// No answer came in time. A write may or may not have been applied.
    TimedOut,
    /// The credentials are missing, wrong or out of date.
    Unauthenticated,
    /// The registry cannot be reached or cannot serve now.
    Unavailable,
    /// A fault that fits nowhere else; worth a bug report.
    Unexpected,
    /// The backend, or this build, cannot do what was asked.
    Unsupported,
}

impl ErrorKind {
    /// Whether the same call may succeed later although its caller changed nothing.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::LeaseExpired
            | Self::ResourceExhausted
            | Self::TimedOut
            | Self::Unavailable
            | Self::Unexpected => true,
            Self::Closed
            | Self::Conflict
            | Self::Corrupt
            | Self::InvalidArgument
            | Self::InvalidConfig
            | Self::NotFound
            | Self::PermissionDenied
            | Self::Unauthenticated
            | Self::Unsupported => false,
        }
    }

    /// The name used in messages and as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Conflict => "conflict",
            Self::Corrupt => "corrupt",
            Self::InvalidArgument => "invalid argument",
            Self::InvalidConfig => "invalid configuration",
            Self::LeaseExpired => "lease expired",
            Self::NotFound => "not found",
            Self::PermissionDenied => "permission denied",
            Self::ResourceExhausted => "resource exhausted",
            Self::TimedOut => "timed out",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::Unexpected => "unexpected",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Source = Arc<dyn StdError + Send + Sync + 'static>;

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    backend: Option<&'static str>,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

/// An error: its [kind](ErrorKind), what was being done, to what, and the cause beneath it.
///
/// `Display` prints this layer alone, on one line; the cause is in [`source`](StdError::source). Cloning is
/// cheap, so that a state can carry the error that led to it. Context never holds a secret.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

impl Error {
    /// An error of `kind`; `message` says what is wrong, in lower case and without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            backend: None,
            operation: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// An [`InvalidArgument`](ErrorKind::InvalidArgument) naming the field and the value at fault.
    #[must_use]
    pub fn invalid(field: &'static str, value: impl fmt::Display, why: &str) -> Self {
        Self::new(ErrorKind::InvalidArgument, format!("{field} {why}"))
            .with_context(field, shorten(&value.to_string()))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Names the backend (`"memory"`, `"etcd"`, …).
    #[must_use]
    pub fn with_backend(self, backend: &'static str) -> Self {
        self.edit(|inner| inner.backend = Some(backend))
    }

    /// Names the operation (`"register"`, `"watch"`, …).
    #[must_use]
    pub fn with_operation(self, operation: &'static str) -> Self {
        self.edit(|inner| inner.operation = Some(operation))
    }

    /// Adds a fact that helps to find the fault, such as the key. Never a secret.
    #[must_use]
    pub fn with_context(self, name: &'static str, value: impl Into<String>) -> Self {
        self.edit(|inner| inner.context.push((name, value.into())))
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.source = Some(Arc::new(source)))
    }

    /// What went wrong, for matching.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later although its caller changed nothing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// The backend it came from, where there is one.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The operation that failed, where it is known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The facts attached to the error, in the order they were added.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0
            .context
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }
}

/// Values of any length can be at fault; messages stay readable.
fn shorten(value: &str) -> String {
    const LIMIT: usize = 80;
    if value.chars().count() <= LIMIT {
        return value.escape_debug().to_string();
    }
    let head: String = value.chars().take(LIMIT).collect();
    format!("{}… ({} bytes)", head.escape_debug(), value.len())
}

/// Writes on one line: what would end it, or act on a terminal, is escaped, as part of it may come
/// from strangers.
struct OneLine<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            write!(self.0, "{}", part[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let inner = &*self.0;
        let mut f = OneLine(f);
        match (inner.backend, inner.operation) {
            (Some(backend), Some(operation)) => write!(f, "{backend} {operation}: ")?,
            (Some(one), None) | (None, Some(one)) => write!(f, "{one}: ")?,
            (None, None) => {}
        }
        write!(f, "{}: {}", inner.kind, inner.message)?;
        for (index, (name, value)) in inner.context.iter().enumerate() {
            let lead = if index == 0 { " (" } else { ", " };
            write!(f, "{lead}{name}: {value}")?;
        }
        if inner.context.is_empty() {
            Ok(())
        } else {
            f.write_str(")")
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("backend", &inner.backend)
            .field("operation", &inner.operation)
            .field("message", &inner.message)
            .field("context", &inner.context)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_holds() {
        let error =
            Error::new(ErrorKind::Corrupt, "odd\nvalue").with_context("key", "a\r\n\u{1b}[2Jü\"b");
        let text = error.to_string();
        assert_eq!(text, "corrupt: odd\\nvalue (key: a\\r\\n\\u{1b}[2Jü\"b)");
    }

    #[test]
    fn display_prints_this_layer_and_leaves_the_cause_to_source() {
        let error = Error::new(ErrorKind::Unavailable, "connection refused")
            .with_backend("etcd")
            .with_operation("register")
            .with_context("key", "/a/b")
            .with_context("endpoint", "h:1")
            .with_source(std::io::Error::other("os says no"));
        assert_eq!(
            error.to_string(),
            "etcd register: unavailable: connection refused (key: /a/b, endpoint: h:1)"
        );
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("os says no")
        );
    }

    #[test]
    fn invalid_names_field_and_value_and_shortens_long_values() {
        let error = Error::invalid("zone", "x".repeat(500), "is too long");
        let text = error.to_string();
        assert!(
            text.starts_with("invalid argument: zone is too long (zone: xxx"),
            "{text}"
        );
        assert!(text.ends_with("… (500 bytes))"), "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(!error.is_retryable());
    }

    #[test]
    fn every_layer_survives_cloning() {
        let error = Error::new(ErrorKind::TimedOut, "late").with_source(std::io::Error::other("x"));
        let clone = error.clone().with_backend("zk");
        assert_eq!(error.backend(), None);
        assert_eq!(clone.backend(), Some("zk"));
        assert!(clone.source().is_some());
    }
}
