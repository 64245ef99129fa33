//! The registry as users meet it.

use std::time::Duration;

use plimsoll_backend_kit::Backend;

use crate::driver::EtcdDriver;

/// A registry in etcd.
///
/// One handle has one lease and one stream that keeps it, shared by all its registrations; clones
/// are the same handle. It connects when it is first used, within a tokio runtime, to one member at
/// a time. When the handle and all that came from it are dropped, the lease is given back.
#[derive(Clone, Debug)]
pub struct EtcdRegistry(pub(crate) Backend<EtcdDriver>);

impl EtcdRegistry {
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
