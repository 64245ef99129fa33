//! The registry as users meet it.

use std::time::Duration;

use plimsoll_backend_kit::{Backend, RegistryUrl};
use plimsoll_discovery_api::Result;

use crate::EtcdBuilder;
use crate::driver::EtcdDriver;

/// A registry in etcd.
///
/// One handle has one lease and one stream that keeps it, shared by all its registrations; clones
/// are the same handle. It connects when it is first used, within a tokio runtime, to one member at
/// a time. When the handle and all that came from it are dropped, the lease is given back.
#[derive(Clone, Debug)]
pub struct EtcdRegistry(pub(crate) Backend<EtcdDriver>);

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

    /// The lease that all records of this handle are under, as `etcdctl lease` knows it (there in
    /// hexadecimal digits); `None` while there is none.
    #[must_use]
    pub fn lease_id(&self) -> Option<i64> {
        self.0.driver().granted().map(|granted| granted.id)
    }

    /// The time to live that the server has granted the lease, which is longer than what was asked
    /// for if that was below the server's minimum; `None` while there is no lease.
    #[must_use]
    pub fn granted_ttl(&self) -> Option<Duration> {
        self.0.driver().granted().map(|granted| granted.ttl)
    }
}

plimsoll_backend_kit::delegate_registry!(EtcdRegistry);
