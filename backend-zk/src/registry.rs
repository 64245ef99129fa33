//! The registry as users meet it.

use std::time::Duration;

use plimsoll_backend_kit::{Backend, RegistryUrl};
use plimsoll_discovery_api::Result;

use crate::ZkBuilder;
use crate::driver::ZkDriver;

/// A registry in `ZooKeeper`.
///
/// One handle is one session, shared by all its registrations and watches; clones are the same
/// handle. It connects when it is first used, within a tokio runtime. When the handle and all that
/// came from it are dropped, the session is closed.
#[derive(Clone, Debug)]
pub struct ZkRegistry(pub(crate) Backend<ZkDriver>);

impl ZkRegistry {
    /// Settings for a handle on the ensemble of `hosts`, each `host` or `host:port`; the port is
    /// 2181 unless given.
    pub fn builder(hosts: impl IntoIterator<Item = impl Into<String>>) -> ZkBuilder {
        ZkBuilder::new(hosts)
    }

    /// The registry of a URL such as `zk://user:password@h1:2181,h2:2181/root?session_timeout=10s`.
    /// Options: `session_timeout`, `connect_timeout`, `load_interval` and `acl`, as on [`ZkBuilder`];
    /// `sasl=digest-md5` logs in by SASL instead of the scheme `digest`; `password_file` holds the
    /// password; `tls_ca`, `tls_cert` and `tls_key` are files in PEM. Files are read here and now, and
    /// again before each connection, see [`Credential`](crate::Credential).
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the part at fault.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        crate::url::builder(url)?.build()
    }

    /// The session timeout that the server has granted; `None` before there is a session.
    #[must_use]
    pub fn session_timeout(&self) -> Option<Duration> {
        self.0.driver().session_timeout()
    }
}

plimsoll_backend_kit::delegate_registry!(ZkRegistry);
