//! The registry as users meet it.

use std::time::Duration;

use plimsoll_backend_kit::Backend;

use crate::driver::ZkDriver;

/// A registry in `ZooKeeper`.
///
/// One handle is one session, shared by all its registrations and watches; clones are the same
/// handle. It connects when it is first used, within a tokio runtime. When the handle and all that
/// came from it are dropped, the session is closed.
#[derive(Clone, Debug)]
pub struct ZkRegistry(pub(crate) Backend<ZkDriver>);

impl ZkRegistry {
    /// The session timeout that the server has granted; `None` before there is a session.
    #[must_use]
    pub fn session_timeout(&self) -> Option<Duration> {
        self.0.driver().session_timeout()
    }
}

plimsoll_backend_kit::delegate_registry!(ZkRegistry);
