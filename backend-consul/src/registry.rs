//! The registry as users meet it.

use plimsoll_backend_kit::{Backend, RegistryUrl};
use plimsoll_discovery_api::Result;

use crate::driver::ConsulDriver;
use crate::{ConsulBuilder, url};

/// A registry in Consul, spoken to through one agent.
///
/// One handle is one session, shared by all its registrations; clones are the same handle. The
/// session is opened with the first registration, within a tokio runtime. When the handle and all
/// that came from it are dropped, it is closed.
#[derive(Clone, Debug)]
pub struct ConsulRegistry(pub(crate) Backend<ConsulDriver>);

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

    /// The registry of a URL such as `consul://127.0.0.1:8500/root?ttl=15s`. Its user is left empty;
    /// its password, if it has one, is the token.
    ///
    /// Options, as on [`ConsulBuilder`]: `ttl`, `session_ttl`, `deregister_after`,
    /// `request_timeout`, `wait`, `load_interval`, `load_poll`, `consistency` (`default`,
    /// `consistent` or `stale`), `dc`, `ns`, `name`, `node_health` (`true` or `false`), `tls` (the same),
    /// and with TLS the paths of PEM files `tls_ca`, `tls_cert` and `tls_key`.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the part at fault;
    /// [`Unsupported`](plimsoll_discovery_api::ErrorKind::Unsupported) for TLS without the feature.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        url::read(url)?.build()
    }
}

plimsoll_backend_kit::delegate_registry!(ConsulRegistry);
