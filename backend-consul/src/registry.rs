//! The registry as users meet it.

use plimsoll_backend_kit::Backend;

use crate::driver::ConsulDriver;

/// A registry in Consul, spoken to through one agent.
///
/// One handle is one session, shared by all its registrations; clones are the same handle. The
/// session is opened with the first registration, within a tokio runtime. When the handle and all
/// that came from it are dropped, it is closed.
#[derive(Clone, Debug)]
pub struct ConsulRegistry(pub(crate) Backend<ConsulDriver>);

plimsoll_backend_kit::delegate_registry!(ConsulRegistry);
