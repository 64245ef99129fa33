//! Refusing a configuration.

use std::fmt;

use plimsoll_discovery_api::{Error, ErrorKind};

/// An [`InvalidConfig`](ErrorKind::InvalidConfig) that names the field and the value at fault.
pub(crate) fn invalid_config(field: &'static str, value: impl fmt::Display, why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{field} {why}"))
        .with_context(field, value.to_string())
}
