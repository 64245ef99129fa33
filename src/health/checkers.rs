//! The checks that come with the crate.

use std::time::Duration;

use async_trait::async_trait;
use plimsoll_discovery_api::{Error, ErrorKind, HealthChecker, Instance, Result};

use crate::client::dial;

/// An instance can serve if it accepts a TCP connection, which is closed again at once. Of a name
/// with several addresses one is enough, and none waits behind a silent one.
///
/// It finds processes and machines that are gone and networks that are cut, but not a process
/// that hangs: the kernel accepts in its name.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TcpConnect;

impl TcpConnect {
    /// The check.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl HealthChecker for TcpConnect {
    async fn check(&self, instance: &Instance, limit: Duration) -> Result<()> {
        dial(instance, limit).await.map(drop)
    }
}

/// The same answer for every instance: for tests, and where a check is required but unwanted.
#[derive(Clone, Copy, Debug)]
pub struct Constant(bool);

impl Constant {
    /// Every instance can serve.
    #[must_use]
    pub const fn healthy() -> Self {
        Self(true)
    }

    /// No instance can serve.
    #[must_use]
    pub const fn unhealthy() -> Self {
        Self(false)
    }
}

#[async_trait]
impl HealthChecker for Constant {
    async fn check(&self, _instance: &Instance, _limit: Duration) -> Result<()> {
        if self.0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "declared unhealthy").with_operation("check"))
    }
}
