//! Where to listen.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use plimsoll_backend_kit::addresses;
use plimsoll_discovery_api::{Error, ErrorKind, Host, Result};
use tokio::net::TcpListener;

use crate::invalid::invalid_config;

/// The system's resolvers give up by themselves by then, as a rule.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// Where a [`Server`](crate::Server) listens: made of text such as `"0.0.0.0:80"`, `"[::1]:0"` or
/// `"localhost:8080"`, of a `SocketAddr`, or of a host and a port.
///
/// What is wrong with a text is told when the server is [started](crate::ServerBuilder::start).
#[derive(Clone, PartialEq, Eq)]
pub struct BindAddress {
    /// As it was given.
    text: String,
    place: Result<Place, &'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    At(SocketAddr),
    /// What the text, `name:port`, is resolved to.
    ByName,
}

impl BindAddress {
    /// The address, unless it is given by name.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming `bind` and the text.
    pub(super) fn check(&self) -> Result<Option<SocketAddr>> {
        match self.place {
            Ok(Place::At(address)) => Ok(Some(address)),
            Ok(Place::ByName) => Ok(None),
            Err(why) => Err(invalid_config("bind", &self.text, why)),
        }
    }

    /// A listener there.
    pub(super) async fn listen(&self) -> Result<(TcpListener, SocketAddr)> {
        let places = match self.check()? {
            Some(address) => vec![address],
            None => self.resolve().await?,
        };
        let failed = |error: io::Error| not_bound(&self.text, error);
        let listener = TcpListener::bind(&places[..]).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok((listener, local_addr))
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let late = |_| {
            Error::new(ErrorKind::TimedOut, "the name was not resolved in time")
                .with_context("limit", format!("{RESOLVE_LIMIT:?}"))
        };
        let resolved = tokio::time::timeout(RESOLVE_LIMIT, addresses(&self.text)).await;
        resolved
            .map_err(late)
            .and_then(|found| found)
            .map_err(|error| {
                error
                    .with_operation("bind")
                    .with_context("bind", &*self.text)
            })
    }

    fn of_text(text: String) -> Self {
        let place = read(&text);
        Self { text, place }
    }

    fn of_parts(host: &str, port: u16) -> Self {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare.unwrap_or(host).parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).into(),
            Err(_) => Self::of_text(format!("{host}:{port}")),
        }
    }
}

fn read(text: &str) -> Result<Place, &'static str> {
    if let Ok(address) = text.parse() {
        return Ok(Place::At(address));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("has no port; 0 lets the system choose one");
    };
    if host.is_empty() {
        return Err("has no host; 0.0.0.0 and [::] are every interface");
    }
    if host.contains(':') {
        return Err("is not `[v6]:port`");
    }
    if port.parse::<u16>().is_err() {
        return Err("has a port that is not between 0 and 65535");
    }
    match Host::new(host) {
        Ok(host) if host.ip().is_none() => Ok(Place::ByName),
        _ => Err("is neither `address:port` nor `name:port`"),
    }
}

/// Why there is no listener at `bind`.
pub(super) fn not_bound(bind: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::AddrNotAvailable => ErrorKind::InvalidConfig,
        // Taken, or out of descriptors: both may pass.
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the listener was not bound")
        .with_operation("bind")
        .with_context("bind", bind)
        .with_source(error)
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl From<SocketAddr> for BindAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            text: address.to_string(),
            place: Ok(Place::At(address)),
        }
    }
}

impl From<SocketAddrV4> for BindAddress {
    fn from(address: SocketAddrV4) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<SocketAddrV6> for BindAddress {
    fn from(address: SocketAddrV6) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<(IpAddr, u16)> for BindAddress {
    fn from(parts: (IpAddr, u16)) -> Self {
        SocketAddr::from(parts).into()
    }
}

impl From<(Ipv4Addr, u16)> for BindAddress {
    fn from(parts: (Ipv4Addr, u16)) -> Self {
        SocketAddr::from(parts).into()
    }
}

impl From<(Ipv6Addr, u16)> for BindAddress {
    fn from(parts: (Ipv6Addr, u16)) -> Self {
        SocketAddr::from(parts).into()
    }
}

impl From<([u8; 4], u16)> for BindAddress {
    fn from(parts: ([u8; 4], u16)) -> Self {
        SocketAddr::from(parts).into()
    }
}

impl From<&str> for BindAddress {
    fn from(text: &str) -> Self {
        Self::of_text(text.to_owned())
    }
}

impl From<String> for BindAddress {
    fn from(text: String) -> Self {
        Self::of_text(text)
    }
}

impl From<&String> for BindAddress {
    fn from(text: &String) -> Self {
        Self::of_text(text.clone())
    }
}

impl From<(&str, u16)> for BindAddress {
    fn from((host, port): (&str, u16)) -> Self {
        Self::of_parts(host, port)
    }
}

impl From<(String, u16)> for BindAddress {
    fn from((host, port): (String, u16)) -> Self {
        Self::of_parts(&host, port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_addresses_and_parts_say_the_same() {
        let every = BindAddress::from((Ipv4Addr::UNSPECIFIED, 80));
        assert_eq!(BindAddress::from("0.0.0.0:80"), every);
        assert_eq!(BindAddress::from("0.0.0.0:80".to_owned()), every);
        assert_eq!(BindAddress::from(([0, 0, 0, 0], 80)), every);
        assert_eq!(BindAddress::from(("0.0.0.0", 80)), every);
        let local = BindAddress::from((Ipv6Addr::LOCALHOST, 0));
        for same in [
            "[::1]:0".into(),
            ("::1", 0).into(),
            ("[::1]".to_owned(), 0).into(),
        ] {
            assert_eq!(local, same);
        }
        let named = BindAddress::from(("localhost", 80));
        assert_eq!(named, "localhost:80".into());
        assert_eq!(named.check().unwrap(), None);
        assert_eq!(BindAddress::from("node.example.:80").check().unwrap(), None);
    }

    #[test]
    fn what_is_no_address_is_told_by_field_and_value() {
        for (bad, why) in [
            ("", "port"),
            ("0.0.0.0", "port"),
            (":80", "host"),
            ("::1", "[v6]:port"),
            ("::1:80:", "[v6]:port"),
            ("[::1]", "[v6]:port"),
            ("h:", "port"),
            ("h:65536", "port"),
            ("h:http", "port"),
            ("a b:80", "name:port"),
            ("1.2.3:80", "name:port"),
            ("http://h:80", "[v6]:port"),
        ] {
            let error = BindAddress::from(bad).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}");
            assert_eq!(error.context().next(), Some(("bind", bad)));
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
