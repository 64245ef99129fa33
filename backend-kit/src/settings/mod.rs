//! Settings that all networked backends have, and how a bad one is refused.

mod common;
mod credential;
mod url;

use plimsoll_discovery_api::{Error, ErrorKind, Result};

pub use self::common::{CommonSettings, check_span};
pub use self::credential::{Credential, Derived, is_pem};
pub use self::url::{Options, RegistryUrl};

/// An [`InvalidConfig`](ErrorKind::InvalidConfig) naming the setting and the value at fault.
#[must_use]
pub fn invalid_setting(name: &'static str, value: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{name} {why}")).with_context(name, value)
}

/// Reads `host`, `host:port` or `[v6]:port`, the value of the setting `name`, as a host with a port.
///
/// ```
/// use plimsoll_backend_kit::read_host;
///
/// assert_eq!(read_host("host", "[::1]", 2181)?, "[::1]:2181");
/// assert!(read_host("host", "h1,h2", 2181).is_err());
/// # Ok::<(), plimsoll_discovery_api::Error>(())
/// ```
///
/// # Errors
/// [`InvalidConfig`](ErrorKind::InvalidConfig) if it is none of these; port 0 is none.
pub fn read_host(name: &'static str, text: &str, default_port: u16) -> Result<String> {
    let why = "is not `host`, `host:port` or `[v6]:port`";
    if text.contains('@') {
        // What stands before it may be a password.
        return Err(invalid_setting(name, "(not shown)", why));
    }
    let bad = || invalid_setting(name, text, why);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let plain = !host.is_empty() && !host.contains(['/', ',', '?', '#', ' ', '%', '\\']);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if !plain || host.contains(':') && !bracketed {
        return Err(bad());
    }
    let port = match port {
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(bad)?,
        None => default_port,
    };
    Ok(format!("{host}:{port}"))
}

/// Checks that no segment of `root`, a path without its outer slashes or nothing, could be lost or
/// mean something else on its way to the registry.
///
/// # Errors
/// [`InvalidConfig`](ErrorKind::InvalidConfig) naming `root` if one is empty, a dot or two, or has
/// a control character.
pub fn check_root(root: &str) -> Result<()> {
    let bad =
        |segment: &str| matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control);
    if !root.is_empty() && root.split('/').any(bad) {
        let why = "has an empty segment, a dot segment or a control character";
        return Err(invalid_setting("root", root, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, host) in [
            ("h", "h:7"),
            ("h:1", "h:1"),
            ("h.example.", "h.example.:7"),
            ("h.example.:1", "h.example.:1"),
            ("127.0.0.1:8500", "127.0.0.1:8500"),
            ("[::1]:8500", "[::1]:8500"),
            ("[::1]", "[::1]:7"),
        ] {
            assert_eq!(read_host("host", text, 7).unwrap(), host);
        }
        for bad in [
            "", ":1", "h:", "h:0", "h:65536", "h:x", "a b", "a,b", "u@h", "h/p", "h?q", "h#f",
            "::1", "%68", "h\\p",
        ] {
            let error = read_host("host", bad, 7).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad:?}");
            assert!(error.to_string().contains("host"), "{error}");
        }
    }

    #[test]
    fn credentials_where_a_host_belongs_are_not_shown() {
        let error = read_host("host", "root:hunter2@h", 7).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[test]
    fn roots_are_what_they_seem() {
        for good in ["", "a", "a/b", "a.b/..c", "ä b"] {
            assert!(check_root(good).is_ok(), "{good:?}");
        }
        for bad in ["/", "/a", "a/", "a//b", "./a", "a/..", "a\nb"] {
            assert!(check_root(bad).is_err(), "{bad:?}");
        }
    }
}
