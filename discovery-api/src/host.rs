//! Where an instance listens.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::try_from_text;
use crate::{Error, Result};

/// An address that clients can connect to: an IP address or a DNS name.
///
/// A DNS name follows [RFC 1123 section 2.1](https://www.rfc-editor.org/rfc/rfc1123#section-2.1)
/// (labels of letters, digits and hyphens), with underscores allowed as container platforms use
/// them; it is kept in lower case, as DNS ignores case. One that ends in a dot is absolute
/// ([RFC 1034 section 3.1](https://www.rfc-editor.org/rfc/rfc1034#section-3.1)): it is resolved as
/// it is, and never below one of the domains that the system searches. As it may lead elsewhere
/// without, the dot is kept, in text, in an authority and in comparison; where it does not belong,
/// there is [`tls_name`](Self::tls_name).
///
/// An IPv6 address may be given in brackets. Unspecified and multicast addresses are refused:
/// nobody can connect to them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Ip(IpAddr),
    Name(Arc<str>),
}

impl Host {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is neither an address that can
    /// be connected to nor a DNS name.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
            if bare.is_some() && ip.is_ipv4() {
                return Err(Error::invalid(
                    "host",
                    text,
                    "has brackets around an IPv4 address",
                ));
            }
            return Self::try_from(ip);
        }
        match name_fault(text) {
            None => Ok(Self(Repr::Name(text.to_ascii_lowercase().into()))),
            Some(why) => Err(Error::invalid("host", text, why)),
        }
    }

    /// What a TLS server is asked for and its certificate is checked against: the address, or the
    /// name without the dot at its end, which SNI does not have
    /// ([RFC 6066 section 3](https://www.rfc-editor.org/rfc/rfc6066#section-3)).
    #[must_use]
    pub fn tls_name(&self) -> String {
        let text = self.to_string();
        match text.strip_suffix('.') {
            Some(relative) => relative.to_owned(),
            None => text,
        }
    }

    /// The IP address, unless the host is a DNS name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.0 {
            Repr::Ip(ip) => Some(ip),
            Repr::Name(_) => None,
        }
    }
}

fn name_fault(text: &str) -> Option<&'static str> {
    // The root's own name, a dot alone, is nobody's host.
    let text = match text.strip_suffix('.') {
        Some("") => return Some("is the root of DNS"),
        Some(absolute) => absolute,
        None => text,
    };
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > 253 {
        return Some("is longer than 253 bytes, a dot at its end aside");
    }
    if !text.split('.').all(label_ok) {
        return Some("is neither an IP address nor a DNS name");
    }
    // RFC 1123: a name's last label is never all digits, so this is a mistyped address.
    let last = text.rsplit('.').next()?;
    last.bytes()
        .all(|b| b.is_ascii_digit())
        .then_some("looks like an IP address but is not one")
}

impl TryFrom<IpAddr> for Host {
    type Error = Error;
    fn try_from(ip: IpAddr) -> Result<Self> {
        if ip.is_unspecified() {
            return Err(Error::invalid("host", ip, "is the unspecified address"));
        }
        if ip.is_multicast() {
            return Err(Error::invalid("host", ip, "is a multicast address"));
        }
        Ok(Self(Repr::Ip(ip)))
    }
}

impl FromStr for Host {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

try_from_text!(Host);

/// An IPv6 address is printed bare; [`Instance::authority`](crate::Instance::authority) adds the
/// brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Ip(ip) => ip.fmt(f),
            Repr::Name(name) => f.pad(name),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        assert!(Host::new("10.0.0.7").unwrap().ip().is_some());
        assert_eq!(Host::new("[::1]").unwrap(), Host::new("::1").unwrap());
        assert_eq!(
            Host::new("Node_1.Example").unwrap().to_string(),
            "node_1.example"
        );
    }

    #[test]
    fn a_name_that_ends_in_a_dot_is_absolute_and_another_than_without() {
        let absolute = Host::new("Node.Example.").unwrap();
        assert_eq!(
            (absolute.to_string().as_str(), absolute.ip()),
            ("node.example.", None)
        );
        assert_ne!(absolute, Host::new("node.example").unwrap());
        assert_eq!(absolute.tls_name(), "node.example");
        for same in ["node.example", "10.0.0.7", "::1"] {
            assert_eq!(Host::new(same).unwrap().tls_name(), same);
        }
        // The longest name there is, with its dot.
        let longest = format!("{}.", ["a"; 127].join("."));
        assert_eq!(longest.len(), 254);
        assert!(Host::new(&longest).is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        let long = ["a"; 128].join(".");
        let long_absolute = format!("{long}.");
        let bad = [
            ".",
            "..",
            "a..",
            ".a",
            ".a.",
            "1.2.3.4.",
            "10.",
            "::1.",
            "[::1].",
            long_absolute.as_str(),
            "",
            "a b",
            "a..b",
            "-a",
            "a-",
            "1.2.3",
            "1.2.3.400",
            "host:80",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "[10.0.0.1]",
            "[::1",
            "höst",
            "a/b",
            long.as_str(),
        ];
        for text in bad {
            assert!(Host::new(text).is_err(), "{text:?} was taken");
        }
    }
}
