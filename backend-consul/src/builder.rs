//! Settings, and what is wrong with them.

use std::fmt;
use std::time::Duration;

use plimsoll_backend_kit::{
    Backend, CommonSettings, Credential, Timings, check_root, check_span, invalid_setting,
    read_host,
};
use plimsoll_discovery_api::Result;

use crate::config::{Config, Consistency};
use crate::driver::ConsulDriver;
use crate::registry::ConsulRegistry;
use crate::tls::Tls;

/// Long enough for a pause of either side, short enough that clients do not call the dead for long.
const TTL: Duration = Duration::from_secs(15);
/// What servers grant at the least unless they are told otherwise.
const LEAST_SESSION_TTL: Duration = Duration::from_secs(10);
/// What Consul grants at the least, and what is enough to tidy up after a life that has lapsed:
/// nobody sees it any more.
const DEREGISTER_AFTER: Duration = Duration::from_secs(60);
/// Several times what the slowest healthy agent needs to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that has died without a word is noticed within this and a request's time.
const WAIT: Duration = Duration::from_secs(10);
/// The store is not made for more: a maintainer of Consul calls some 100 writes a second, of all
/// that it holds, a thing to watch.
const LOAD_INTERVAL: Duration = Duration::from_secs(15);
/// Reads of loads within one interval of their publication: a fifth more in age, and no server is
/// asked more often than that.
const POLLS_PER_INTERVAL: u32 = 5;
const LEAST_LOAD_POLL: Duration = Duration::from_millis(50);
const DEFAULT_ROOT: &str = "plimsoll";
const DEFAULT_PORT: u16 = 8500;

/// Settings of a [`ConsulRegistry`].
#[must_use]
pub struct ConsulBuilder {
    address: String,
    tls: Option<Tls>,
    token: Option<Credential>,
    datacenter: Option<String>,
    namespace: Option<String>,
    root: String,
    ttl: Duration,
    session_ttl: Option<Duration>,
    deregister_after: Duration,
    request_timeout: Duration,
    wait: Duration,
    load_poll: Option<Duration>,
    consistency: Consistency,
    node_health: bool,
    name: String,
    common: CommonSettings,
}

impl fmt::Debug for ConsulBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulBuilder")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("root", &self.root)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl ConsulRegistry {
    /// Settings for a handle on the agent at `address`, `host` or `host:port`; the port is 8500
    /// unless given.
    ///
    /// The agent is the one on the same machine, or another that is always the same: services are
    /// an agent's own, and behind an address that leads now to this one and now to that, none of
    /// them would be found again.
    pub fn builder(address: impl Into<String>) -> ConsulBuilder {
        ConsulBuilder::new(address)
    }
}

impl ConsulBuilder {
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            tls: None,
            token: None,
            datacenter: None,
            namespace: None,
            root: DEFAULT_ROOT.into(),
            ttl: TTL,
            session_ttl: None,
            deregister_after: DEREGISTER_AFTER,
            request_timeout: REQUEST_TIMEOUT,
            wait: WAIT,
            load_poll: None,
            consistency: Consistency::Default,
            node_health: false,
            name: DEFAULT_ROOT.into(),
            common: CommonSettings::default(),
        }
    }

    /// The prefix of all keys in the store, outer slashes aside; services have none. Default:
    /// `plimsoll`.
    pub fn with_root(mut self, root: impl AsRef<str>) -> Self {
        self.root = root.as_ref().trim_matches('/').to_owned();
        self
    }

    /// The token, sent in a header with every request: as it is then, of a [`Credential`] that changes.
    /// Default: none, which is what Consul calls anonymous.
    ///
    /// Registering takes `service:write` for the services, `session:write` and `node:read` for the
    /// agent's node and `key:write` for the root: who registers looks whether it can be seen.
    /// Following takes `service:read` and `node:read`, and `key:read` for loads (`key:list`, where
    /// the agent has `enable_key_list_policy`), without which everybody is there and nobody's load
    /// is known. What a token may not read Consul leaves out of its answers without a word, so a
    /// service followed without the right to read it is empty.
    pub fn with_token(mut self, token: impl Into<Credential>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The datacentre whose services are followed and listed. One that the agent knows no way to is
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig), naming `dc`, for as long as that is so. Default:
    /// the agent's own, in which registrations always are.
    pub fn with_datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// The namespace of everything, which Consul Enterprise has; of a server without namespaces
    /// every call is [`Unsupported`](plimsoll_discovery_api::ErrorKind::Unsupported). Default: not said.
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// How long after its last sign of life an instance's check turns critical, and nobody uses it
    /// any more. Between 1 s and 24 h. Default: 15 s.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The TTL of the session that owns the ids of this handle. After a crash they are free again
    /// within twice this time. Servers grant 10 s and more, unless they are configured otherwise.
    /// Between 500 ms and 24 h. Default: as the TTL, at least 10 s.
    pub fn with_session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = Some(ttl);
        self
    }

    /// How long an instance that has turned critical stays in the catalog, for people to see.
    /// Between 1 min, which is the least that Consul grants, and 30 days. Default: 1 min.
    pub fn with_deregister_after(mut self, after: Duration) -> Self {
        self.deregister_after = after;
        self
    }

    /// How long one request may take, the wait of a blocking query aside. Between 100 ms and 1 h.
    /// Default: 3 s.
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a blocking query waits at the agent for a change. So long, and a sixteenth, and a
    /// request's time, may pass before a connection that has died without a word is noticed.
    /// Between 1 s and 10 min, which is the most that Consul grants. Default: 10 s.
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The shortest time between two publications of a load, and with it the longest that any
    /// change, however small, goes unpublished; at most a day. Default: 15 s.
    pub fn with_load_interval(mut self, interval: Duration) -> Self {
        self.common.load_interval = Some(interval);
        self
    }

    /// How often the loads of a followed service are read. At least 50 ms. Default: a fifth of the
    /// load interval.
    pub fn with_load_poll(mut self, interval: Duration) -> Self {
        self.load_poll = Some(interval);
        self
    }

    /// How sure a list or a watch must be of its answer; loads that are polled are any server's
    /// always. Default: [`Consistency::Default`].
    pub fn with_consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// Whether the session ends when Consul takes the agent's node for failed. Default: no, so that
    /// a moment's trouble between agents costs nobody its registration; the TTL alone decides.
    pub fn with_node_health(mut self, node_health: bool) -> Self {
        self.node_health = node_health;
        self
    }

    /// The name of the session, by which people tell who holds an id. Default: `plimsoll`.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Speaks TLS to the agent, and trusts whom this system trusts.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self) -> Self {
        self.tls.get_or_insert_default();
        self
    }

    /// Speaks TLS to the agent, and trusts these authorities alone: one certificate or more, in
    /// PEM. As they are when a connection is made, of a [`Credential`] that changes.
    #[cfg(feature = "tls")]
    pub fn with_tls_authorities(mut self, pem: impl Into<Credential>) -> Self {
        self.tls.get_or_insert_default().authorities = Some(pem.into());
        self
    }

    /// Speaks TLS to the agent, and shows it this certificate, with what it was signed by, and this
    /// key, both in PEM; as they are when a connection is made.
    #[cfg(feature = "tls")]
    pub fn with_tls_identity(
        mut self,
        certificate: impl Into<Credential>,
        key: impl Into<Credential>,
    ) -> Self {
        self.tls.get_or_insert_default().identity = Some((certificate.into(), key.into()));
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
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the setting at fault.
    pub fn build(self) -> Result<ConsulRegistry> {
        let driver = ConsulDriver::new(self.config()?)?;
        Ok(ConsulRegistry(Backend::new(driver)))
    }

    pub(crate) fn config(self) -> Result<Config> {
        let session_ttl = self
            .session_ttl
            .unwrap_or_else(|| self.ttl.max(LEAST_SESSION_TTL));
        let load_interval = self.common.load_interval.unwrap_or(LOAD_INTERVAL);
        let load_poll = self
            .load_poll
            .unwrap_or_else(|| (load_interval / POLLS_PER_INTERVAL).max(LEAST_LOAD_POLL));
        let (ms, s, day) = (
            Duration::from_millis,
            Duration::from_secs,
            Duration::from_secs(86_400),
        );
        for (name, span, least, most) in [
            ("ttl", self.ttl, s(1), day),
            ("session_ttl", session_ttl, ms(500), day),
            ("deregister_after", self.deregister_after, s(60), day * 30),
            ("request_timeout", self.request_timeout, ms(100), s(3600)),
            ("wait", self.wait, s(1), s(600)),
            ("load_poll", load_poll, LEAST_LOAD_POLL, day),
        ] {
            check_span(name, span, least..=most)?;
        }
        for (name, value) in [("dc", &self.datacenter), ("ns", &self.namespace)] {
            if value.as_ref().is_some_and(String::is_empty) {
                return Err(invalid_setting(name, "", "is empty"));
            }
        }
        check_root(&self.root)?;
        let mut config = Config {
            address: read_host("address", &self.address, DEFAULT_PORT)?,
            tls: self.tls,
            token: self.token,
            datacenter: self.datacenter,
            namespace: self.namespace,
            root: self.root,
            ttl: self.ttl,
            session_ttl,
            deregister_after: self.deregister_after,
            request_timeout: self.request_timeout,
            wait: self.wait,
            load_poll,
            consistency: self.consistency,
            node_health: self.node_health,
            name: self.name,
            timings: Timings::default(),
        };
        config.timings = self.common.apply(config.timings(load_interval))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::ErrorKind;

    use super::*;

    #[test]
    fn mistakes_are_named_before_any_connection() {
        let at = |address: &str| ConsulBuilder::new(address);
        let s = Duration::from_secs;
        let cases = [
            ("address", at("")),
            ("address", at("h:0")),
            ("address", at("h1:8500,h2:8500")),
            ("address", at("http://h:8500")),
            ("address", at("::1")),
            ("root", at("h").with_root("a//b")),
            ("root", at("h").with_root("a/../b")),
            ("ttl", at("h").with_ttl(s(0))),
            ("session_ttl", at("h").with_session_ttl(s(0))),
            ("deregister_after", at("h").with_deregister_after(s(59))),
            ("request_timeout", at("h").with_request_timeout(s(0))),
            ("wait", at("h").with_wait(s(601))),
            ("load_poll", at("h").with_load_poll(s(0))),
            ("load_interval", at("h").with_load_interval(s(100_000))),
            ("token", at("h").with_token("")),
            ("token", at("h").with_token("a\nb")),
            ("dc", at("h").with_datacenter("")),
            ("ns", at("h").with_namespace("")),
        ];
        for (field, builder) in cases {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{field}");
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
        for good in ["h", "h:1", "127.0.0.1:8500", "[::1]:8500", "[::1]"] {
            assert!(at(good).build().is_ok(), "{good}");
        }
    }

    #[test]
    fn the_token_is_never_shown() {
        let builder = ConsulBuilder::new("h").with_token("hunter2");
        let shown = format!("{builder:?}");
        let shown = format!("{shown} {:?}", builder.build().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = ConsulBuilder::new("h")
            .with_token("hunter2\n")
            .build()
            .unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}
