//! Settings, and what is wrong with them.

use std::fmt;
use std::time::Duration;

use plimsoll_backend_kit::{
    Backend, CommonSettings, Credential, RegistryUrl, Timings, check_span, invalid_setting,
    read_host,
};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

use crate::config::Config;
use crate::driver::EtcdDriver;
use crate::lease::FRESH;
use crate::registry::EtcdRegistry;

/// Long enough for a change of leader and a pause of the garbage collector, short enough that
/// clients do not call the dead for long.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// Several times what the slowest healthy server needs to answer, and with the time for a request
/// within what a registration waits for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// A watch is not missed for longer than a lease.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers hang up on who pings more often than every 5 s, see `--grpc-keepalive-min-time`.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Thirty times the largest record, and a thousand times a page of usual ones.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
const MIN_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Each page has the time of a request; this bounds hundreds of them over a slow line.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_PORT: u16 = 2379;
const DEFAULT_PREFIX: &str = "plimsoll";

/// Settings of an [`EtcdRegistry`].
///
/// As options of a URL: `lease_ttl`, `connect_timeout`, `request_timeout`, `watch_timeout`,
/// `keep_alive_interval`, `keep_alive_timeout`, `max_message_bytes`, `load_interval`, `password_file`; and with the
/// feature `tls` also `tls=true`, `ca`, `cert`, `key` (paths of files in PEM) and `domain`, of
/// which each turns it on. User, password and prefix are in the URL's own places for them.
#[must_use]
pub struct EtcdBuilder {
    hosts: Vec<String>,
    prefix: String,
    lease_ttl: Duration,
    connect_timeout: Duration,
    request_timeout: Duration,
    watch_timeout: Duration,
    keep_alive: (Duration, Duration),
    max_message_bytes: usize,
    credentials: Option<(Credential, Credential)>,
    #[cfg(feature = "tls")]
    tls: Option<crate::Tls>,
    common: CommonSettings,
}

impl fmt::Debug for EtcdBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBuilder")
            .field("hosts", &self.hosts)
            .field("prefix", &self.prefix)
            .field("lease_ttl", &self.lease_ttl)
            .field(
                "credentials",
                &self.credentials.as_ref().map(|_| "(hidden)"),
            )
            .finish_non_exhaustive()
    }
}

impl EtcdRegistry {
    /// Settings for a handle on the cluster whose members are at `hosts`, each `host` or
    /// `host:port`; the port is 2379 unless given.
    pub fn builder(hosts: impl IntoIterator<Item = impl Into<String>>) -> EtcdBuilder {
        EtcdBuilder::new(hosts)
    }

    /// The registry of a URL such as `etcd://user:password@h1:2379,h2:2379/prefix?lease_ttl=10s`.
    /// Its options are those of [`EtcdBuilder`], see there.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the part at
    /// fault; [`Unsupported`](plimsoll_discovery_api::ErrorKind::Unsupported) naming the feature
    /// that an option needs.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        EtcdBuilder::from_url(url)?.build()
    }
}

impl EtcdBuilder {
    pub(crate) fn new(hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            hosts: hosts.into_iter().map(Into::into).collect(),
            prefix: DEFAULT_PREFIX.into(),
            lease_ttl: LEASE_TTL,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            watch_timeout: WATCH_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            max_message_bytes: MAX_MESSAGE_BYTES,
            credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
            common: CommonSettings::default(),
        }
    }

    /// Reads `etcd://user:password@host1:2379,host2/prefix?lease_ttl=10s`.
    pub(crate) fn from_url(url: &RegistryUrl) -> Result<Self> {
        if url.scheme() != "etcd" {
            return Err(Error::new(ErrorKind::InvalidConfig, "not an etcd:// URL")
                .with_context("scheme", url.scheme()));
        }
        let mut builder = Self::new(url.hosts());
        if !url.path().is_empty() {
            builder = builder.with_prefix(url.path());
        }
        let mut options = url.options();
        let file = options.take::<String>("password_file")?;
        if let Some(password) = url.password_or_file(file)? {
            builder = builder.with_user(url.user().unwrap_or_default(), password);
        }
        for (name, field) in [
            ("lease_ttl", &mut builder.lease_ttl),
            ("connect_timeout", &mut builder.connect_timeout),
            ("request_timeout", &mut builder.request_timeout),
            ("watch_timeout", &mut builder.watch_timeout),
            ("keep_alive_interval", &mut builder.keep_alive.0),
            ("keep_alive_timeout", &mut builder.keep_alive.1),
        ] {
            if let Some(span) = options.take_duration(name)? {
                *field = span;
            }
        }
        if let Some(bytes) = options.take("max_message_bytes")? {
            builder = builder.with_max_message_bytes(bytes);
        }
        builder.common.load_interval = options.take_duration("load_interval")?;
        let on = options.take::<bool>("tls")?;
        let mut take = |name| options.take::<String>(name);
        let (ca, cert, key) = (take("ca")?, take("cert")?, take("key")?);
        let domain = take("domain")?;
        options.finish()?;
        builder.encrypt(on, ca, cert, key, domain)
    }

    fn encrypt(
        self,
        on: Option<bool>,
        ca: Option<String>,
        certificate: Option<String>,
        key: Option<String>,
        domain: Option<String>,
    ) -> Result<Self> {
        let parts = [&ca, &certificate, &key, &domain];
        if !parts.iter().any(|part| part.is_some()) && on != Some(true) {
            return Ok(self);
        }
        if on == Some(false) {
            return Err(invalid_setting(
                "tls",
                "false",
                "contradicts the other options",
            ));
        }
        let identity = match (&certificate, &key) {
            (Some(certificate), Some(key)) => Some((certificate.as_str(), key.as_str())),
            (None, None) => None,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "cert and key are needed together",
                ));
            }
        };
        #[cfg(feature = "tls")]
        return Ok(self.with_tls(crate::Tls::from_files(ca.as_deref(), identity, domain)?));
        #[cfg(not(feature = "tls"))]
        {
            let _unread = identity;
            Err(Error::new(
                ErrorKind::Unsupported,
                "this build has no TLS for etcd; turn on the feature `tls` of plimsoll-backend-etcd, \
                 which is `etcd-tls` of plimsoll",
            ))
        }
    }

    /// What all keys begin with, a slash at its end aside; without a slash at its beginning, unless
    /// it is given one. Default: `plimsoll`.
    pub fn with_prefix(mut self, prefix: impl AsRef<str>) -> Self {
        prefix
            .as_ref()
            .trim_end_matches('/')
            .clone_into(&mut self.prefix);
        self
    }

    /// The time to live of the lease to ask for: so long after it was last heard of, a crashed
    /// server is removed. Servers grant no less than one and a half times their election timeout,
    /// see [`granted_ttl`](EtcdRegistry::granted_ttl). Whole seconds, 2 s to 1 h. Default: 10 s.
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// How long one attempt to connect to a member may take. 100 ms to 1 h. Default: 1 s.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one request may take. 100 ms to 1 h. Default: 2 s.
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// A watch whose server says nothing for this long, although it was asked to at half of it, is
    /// opened anew. 100 ms to 1 h. Default: 5 s.
    pub fn with_watch_timeout(mut self, timeout: Duration) -> Self {
        self.watch_timeout = timeout;
        self
    }

    /// How often a connection is pinged, 5 s to 1 h, as servers hang up on who pings more often; and
    /// how long the answer may take, 100 ms to 1 h. Default: 6 s and 3 s.
    pub fn with_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive = (interval, timeout);
        self
    }

    /// The largest answer that is received, in bytes: 4 MiB to 1 GiB. Lists are read in pages that
    /// fit. Default: 16 MiB.
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Authenticates by name and password; when the token runs out, again, as they are then: each may
    /// be a [`Credential`] that changes. Default: nobody.
    pub fn with_user(
        mut self,
        user: impl Into<Credential>,
        password: impl Into<Credential>,
    ) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Encrypts the connections. Default: they are not.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: crate::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The shortest time between two publications of a load, and with it the longest that any
    /// change, however small, goes unpublished; at most a day. Default: 2 s, and 10 s for changes
    /// that are smaller than 8, or than a tenth where that is more.
    pub fn with_load_interval(mut self, interval: Duration) -> Self {
        self.common.load_interval = Some(interval);
        self
    }

    /// Changes how this handle times what it does.
    pub fn with_timings(mut self, change: impl FnOnce(&mut Timings) + Send + 'static) -> Self {
        self.common.change_timings(change);
        self
    }

    /// Makes the handle. It connects when it is first used.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the setting at fault.
    pub fn build(self) -> Result<EtcdRegistry> {
        self.check()?;
        #[cfg(feature = "tls")]
        let (encrypted, tls) = (
            self.tls.is_some(),
            self.tls.map(crate::Tls::options).transpose()?,
        );
        #[cfg(not(feature = "tls"))]
        let encrypted = false;
        let scheme = if encrypted { "https" } else { "http" };
        let hosts = self.hosts.iter();
        let endpoints = hosts
            .map(|host| {
                Ok(format!(
                    "{scheme}://{}",
                    read_host("host", host, DEFAULT_PORT)?
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        if endpoints.is_empty() {
            return Err(invalid_setting("hosts", "", "are needed, at least one"));
        }
        let timings = timings(self.lease_ttl, self.connect_timeout + self.request_timeout);
        let timings = self.common.apply(timings)?;
        let config = Config {
            endpoints,
            prefix: self.prefix,
            lease_ttl: self.lease_ttl,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            watch_timeout: self.watch_timeout,
            keep_alive: self.keep_alive,
            max_message_bytes: self.max_message_bytes,
            credentials: self.credentials,
            #[cfg(feature = "tls")]
            tls,
            timings,
        };
        Ok(EtcdRegistry(Backend::new(EtcdDriver::new(config))))
    }

    fn check(&self) -> Result<()> {
        if self.prefix.chars().any(char::is_control) || self.prefix.contains("//") {
            return Err(invalid_setting(
                "prefix",
                &self.prefix,
                "has an empty segment or a control character",
            ));
        }
        let within = Duration::from_secs(2)..=Duration::from_secs(3600);
        let ttl = format!("{:?}", self.lease_ttl);
        if !within.contains(&self.lease_ttl) || self.lease_ttl.subsec_nanos() != 0 {
            return Err(invalid_setting(
                "lease_ttl",
                &ttl,
                "is not whole seconds between 2 s and 1 h",
            ));
        }
        let (least, hour) = (Duration::from_millis(100), Duration::from_secs(3600));
        for (name, span, least) in [
            ("connect_timeout", self.connect_timeout, least),
            ("request_timeout", self.request_timeout, least),
            ("watch_timeout", self.watch_timeout, least),
            ("keep_alive_interval", self.keep_alive.0, MIN_KEEP_ALIVE),
            ("keep_alive_timeout", self.keep_alive.1, least),
        ] {
            check_span(name, span, least..=hour)?;
        }
        if !(MIN_MESSAGE_BYTES..=1 << 30).contains(&self.max_message_bytes) {
            let bytes = self.max_message_bytes.to_string();
            return Err(invalid_setting(
                "max_message_bytes",
                &bytes,
                "is not between 4 MiB and 1 GiB",
            ));
        }
        if self
            .credentials
            .as_ref()
            .is_some_and(|(user, _)| user.bytes().is_empty())
        {
            return Err(Error::new(ErrorKind::InvalidConfig, "user is empty"));
        }
        Ok(())
    }
}

/// A record stands as long as its lease; its owner must not believe in it for longer, counted from
/// a confirmation that may be so old already.
fn timings(ttl: Duration, call_timeout: Duration) -> Timings {
    let mut timings = Timings::default();
    timings.call_timeout = call_timeout;
    timings.list_timeout = LIST_TIMEOUT;
    timings.deregister_timeout = call_timeout + Duration::from_secs(1);
    timings.lease = Some(ttl - FRESH);
    timings.renew_interval = ttl / 3;
    // The lease tells at once when it is lost, and those that ended together wait for a turn of their
    // own, of no more than this, before they ask for another one.
    timings.backoff.cap = Duration::from_secs(2);
    timings.hold_down.grace = timings.hold_down.grace.max(ttl * 3);
    timings
}

#[cfg(test)]
mod tests;
