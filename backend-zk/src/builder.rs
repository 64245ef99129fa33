//! Settings, and what is wrong with them.

use std::fmt;
use std::time::Duration;

use plimsoll_backend_kit::{Backend, RegistryUrl, Timings};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

use crate::ZkRegistry;
use crate::driver::ZkDriver;

/// Long enough for a pause of the garbage collector on either side, short enough that clients do
/// not call the dead for long; what servers with the usual tick of 2 s grant as it is.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Several times what the slowest healthy server needs to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_PORT: u16 = 2181;
const DEFAULT_ROOT: &str = "plimsoll";

/// What a handle was built with.
pub(crate) struct Config {
    pub(crate) hosts: Vec<String>,
    pub(crate) root: String,
    pub(crate) session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    /// `user:password`. A secret.
    pub(crate) credentials: Option<String>,
    pub(crate) timings: Timings,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts", &self.hosts)
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .field(
                "credentials",
                &self.credentials.as_ref().map(|_| "(hidden)"),
            )
            .finish_non_exhaustive()
    }
}

type Change = Box<dyn FnOnce(&mut Timings) + Send>;

/// Settings of a [`ZkRegistry`].
#[must_use]
pub struct ZkBuilder {
    hosts: Vec<String>,
    root: String,
    session_timeout: Duration,
    connect_timeout: Duration,
    credentials: Option<(String, String)>,
    load_interval: Option<Duration>,
    changes: Vec<Change>,
}

impl fmt::Debug for ZkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkBuilder")
            .field("hosts", &self.hosts)
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .field(
                "credentials",
                &self.credentials.as_ref().map(|_| "(hidden)"),
            )
            .finish_non_exhaustive()
    }
}

impl ZkBuilder {
    pub(crate) fn new(hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            hosts: hosts.into_iter().map(Into::into).collect(),
            root: DEFAULT_ROOT.into(),
            session_timeout: SESSION_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            credentials: None,
            load_interval: None,
            changes: Vec::new(),
        }
    }

    /// Reads `zk://user:password@host1:2181,host2/root?session_timeout=10s`.
    pub(crate) fn from_url(url: &RegistryUrl) -> Result<Self> {
        if url.scheme() != "zk" {
            return Err(Error::new(ErrorKind::InvalidConfig, "not a zk:// URL")
                .with_context("scheme", url.scheme()));
        }
        let mut builder = Self::new(url.hosts());
        if !url.path().is_empty() {
            builder = builder.with_root(url.path());
        }
        if let Some(user) = url.user() {
            builder = builder.with_digest(user, url.password().unwrap_or_default());
        }
        let mut options = url.options();
        if let Some(timeout) = options.take_duration("session_timeout")? {
            builder = builder.with_session_timeout(timeout);
        }
        if let Some(timeout) = options.take_duration("connect_timeout")? {
            builder = builder.with_connect_timeout(timeout);
        }
        if let Some(interval) = options.take_duration("load_interval")? {
            builder = builder.with_load_interval(interval);
        }
        options.finish()?;
        Ok(builder)
    }

    /// The path below which everything is kept, outer slashes aside. Default: `plimsoll`.
    pub fn with_root(mut self, root: impl AsRef<str>) -> Self {
        self.root = root.as_ref().trim_matches('/').to_owned();
        self
    }

    /// The session timeout to ask for: so long after it was last heard of, a crashed server is
    /// removed. What comes of it is the server's to say, see
    /// [`session_timeout`](ZkRegistry::session_timeout). Between 100 ms and 1 h. Default: 10 s.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long one round of attempts to connect may take. Default: 3 s.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Authenticates by the scheme `digest`; what is created belongs to this user alone. Default:
    /// nobody in particular, and open to all.
    pub fn with_digest(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// The shortest time between two publications of a load, and with it the longest that any
    /// change, however small, goes unpublished. Default: 2 s, and 10 s for changes below both 8 and
    /// a tenth.
    pub fn with_load_interval(mut self, interval: Duration) -> Self {
        self.load_interval = Some(interval);
        self
    }

    /// Changes how this handle times what it does.
    pub fn with_timings(mut self, change: impl FnOnce(&mut Timings) + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Makes the handle. It connects when it is first used.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the setting at fault.
    pub fn build(self) -> Result<ZkRegistry> {
        let hosts = self
            .hosts
            .iter()
            .map(|host| read_host(host))
            .collect::<Result<Vec<_>>>()?;
        if hosts.is_empty() {
            return Err(invalid("hosts", "", "are needed, at least one"));
        }
        let root = read_root(&self.root)?;
        let within = Duration::from_millis(100)..=Duration::from_secs(3600);
        for (name, span) in [
            ("session_timeout", self.session_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if !within.contains(&span) {
                return Err(invalid(
                    name,
                    &format!("{span:?}"),
                    "is not between 100 ms and 1 h",
                ));
            }
        }
        let credentials = match self.credentials {
            Some((user, _)) if user.is_empty() || user.contains(':') => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "user is empty or has a colon",
                ));
            }
            Some((user, password)) => Some(format!("{user}:{password}")),
            None => None,
        };
        let mut timings = timings(self.session_timeout);
        if let Some(interval) = self.load_interval {
            timings.load.min_interval = interval;
            timings.load.settle = interval;
            timings.load.max_age = timings.load.max_age.max(interval);
        }
        for change in self.changes {
            change(&mut timings);
        }
        let config = Config {
            hosts,
            root,
            session_timeout: self.session_timeout,
            connect_timeout: self.connect_timeout,
            credentials,
            timings,
        };
        Ok(ZkRegistry(Backend::new(ZkDriver::new(config))))
    }
}

/// A record stands as long as its session; its owner must not believe in it for longer.
fn timings(session: Duration) -> Timings {
    let mut timings = Timings::default();
    timings.lease = Some(session);
    timings.renew_interval = session / 3;
    // The connection tells at once when it is there again; what is left is to spread the herd.
    timings.backoff.cap = Duration::from_secs(2);
    timings.hold_down.grace = timings.hold_down.grace.max(session * 3);
    timings
}

fn read_host(host: &str) -> Result<String> {
    let bad = || invalid("host", host, "is not `host`, `host:port` or `[v6]:port`");
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let plain = !name.is_empty() && !name.contains(['/', ',', '@', '?', ' ']);
    let bracketed = name.starts_with('[') && name.ends_with(']');
    if !plain || name.contains(':') && !bracketed {
        return Err(bad());
    }
    let port = match port {
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(bad)?,
        None => DEFAULT_PORT,
    };
    Ok(format!("{name}:{port}"))
}

fn read_root(root: &str) -> Result<String> {
    if root.is_empty() {
        return Ok(String::new());
    }
    for segment in root.split('/') {
        let bad = segment.is_empty()
            || segment == "."
            || segment == ".."
            || segment.chars().any(char::is_control);
        if bad {
            return Err(invalid(
                "root",
                root,
                "has an empty segment, a dot segment or a control character",
            ));
        }
    }
    if root == "zookeeper" || root.starts_with("zookeeper/") {
        return Err(invalid("root", root, "is reserved by ZooKeeper"));
    }
    Ok(format!("/{root}"))
}

fn invalid(field: &'static str, value: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{field} {why}")).with_context(field, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(url: &str) -> Result<ZkRegistry> {
        ZkBuilder::from_url(&url.parse()?)?.build()
    }

    #[test]
    fn mistakes_are_named_before_any_connection() {
        for (url, part) in [
            ("zk://", "hosts"),
            ("zk://h:0", "host: h:0"),
            ("zk://h:x", "host: h:x"),
            ("zk://::1", "host: ::1"),
            ("zk://h/a//b", "root"),
            ("zk://h/a/../b", "root"),
            ("zk://h/zookeeper", "reserved"),
            ("zk://h?session_timeout=1ms", "session_timeout"),
            ("zk://h?session_timeout=soon", "session_timeout"),
            ("zk://h?lease=1s", "lease"),
            ("zk://a%3Ab:p@h", "user"),
            ("memory://h", "scheme: memory"),
        ] {
            let error = built(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
        for good in [
            "zk://h",
            "zk://h1:1,h2/root?session_timeout=4s&connect_timeout=1s&load_interval=1s",
            "zk://[::1]:2181",
        ] {
            assert!(built(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let url: RegistryUrl = "zk://root:hunter2@h".parse().unwrap();
        let builder = ZkBuilder::from_url(&url).unwrap();
        let shown = format!("{builder:?}");
        let shown = format!("{shown} {:?}", builder.build().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = built("zk://:hunter2@h").unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}
